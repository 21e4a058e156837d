"""Image pairs: folders, Parquet packs and the Hub -> ``datasets.Dataset`` of (name, input, references)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast, overload

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image, List, concatenate_datasets
from tqdm import tqdm

from frfsr.data import packs
from frfsr.data.decoding import RGBImage, decode_image, stored_bytes
from frfsr.data.layouts import Fault
from frfsr.data.sources import Options, Pairs, Rows, Source, open_source, slice_rows
from frfsr.errors import UserError
from frfsr.imageio import is_same_file
from frfsr.names import require_pack_name

STORED = Image(decode=False)


@overload
def load_pairs(
    source: Source,
    split: str = "train",
    *,
    streaming: Literal[False] = False,
    decode: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Dataset: ...
@overload
def load_pairs(
    source: Source,
    split: str = "train",
    *,
    streaming: bool,
    decode: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Rows: ...
def load_pairs(
    source: Source,
    split: str = "train",
    *,
    streaming: bool = False,
    decode: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Rows:
    """Images with their reference images, decoded to RGB on access.

    Args:
        source: one of

            - a folder: ``input/`` + ``ref/`` as in CUFED and WR-SR, with several references for ``input/X.png`` in a
              folder ``ref/X/`` or named by pairs.txt (names with blanks in double quotes); ``000_0.png`` ...
              ``000_5.png`` as in CUFED5; an ImageFolder whose metadata.jsonl names ``file_name`` and
              ``reference_file_name``; a plain folder of HR images, which have no reference;
            - Parquet packs with the columns ``name``, ``input`` and ``reference`` or ``references``: a file, a folder,
              a clone of a Hub dataset, a pattern such as ``packs/*.parquet``, ``hf://datasets/OWNER/NAME/x.parquet``;
            - what ``Dataset.save_to_disk`` wrote, a Hub id, perhaps with a revision (``OWNER/NAME@v1``), or a dataset
              object with those columns.
        split: train, validation, test, ..., perhaps a part of it such as ``train[:2]``. In a local folder the subfolder
            or the packs of that name (``test-00000-of-00001.parquet``) if there are any, else all of it.
        streaming: give an ``IterableDataset`` that reads as it goes.
        decode: without it images come as they are stored, as ``{"bytes", "path"}``, for `decode_image`.
        revision: of a Hub dataset: branch, tag or commit.
        token: for private Hub datasets; True takes the one of ``hf auth login``.

    Returns:
        Columns ``name`` (str), ``input`` (RGB PIL image), ``references`` (list of RGB PIL images, most relevant
        first, empty if there is none), and those of the source beside them.

    Raises:
        UserError: there is no such source, it has no known layout, or a file is missing or has no partner.
    """
    pairs = open_pairs(source, split, streaming=streaming, decode=decode, revision=revision, token=token)
    if pairs.faults:
        more = f" (and {len(pairs.faults) - 1} more; see `frfsr data check`)" if len(pairs.faults) > 1 else ""
        raise UserError(f"{source if isinstance(source, str | Path) else 'the dataset'}: {pairs.faults[0]}{more}")
    return pairs.rows


def open_pairs(
    source: Source,
    split: str = "train",
    *,
    streaming: bool = False,
    decode: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Pairs:
    """Open pairs as `load_pairs` does, but return missing and unpaired files instead of raising; arguments as there.

    Returns:
        The pairs, and what is wrong with the source.

    Raises:
        UserError: there is no such source or split.
    """
    options = Options(RGBImage() if decode else STORED, streaming, revision, token)
    parts: list[Any] = []
    faults: list[Fault] = []
    kind = ""
    for part in split.split("+"):
        match = re.fullmatch(r"\s*([^\[\]\s]+)(\[.*\].*)?\s*", part)
        if not match:
            raise UserError(f"{split!r} is no split; examples: train, test, train[:100], train[10%:]")
        found = open_source(source, match[1], options)
        parts.append(slice_rows(found.rows, match[2]) if match[2] else found.rows)
        faults += found.faults
        kind = found.kind
    rows = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    return Pairs(rows, faults, kind)


def stored(pairs: Dataset) -> Dataset:
    """The same rows with their images as they are stored, ``{"bytes", "path"}``; nothing is copied."""
    features = Features({**pairs.features, "input": STORED, "references": List(STORED)})
    info = DatasetInfo(features=features)
    return Dataset(pairs.data, info, indices_table=pairs._indices, fingerprint=pairs._fingerprint)


def stored_rows(pairs: Dataset) -> Iterator[dict]:
    """The rows with their images as they are stored, ``{"bytes", "path"}``, in bounded memory."""
    size = packs.bounded_rows(pairs.data.nbytes, len(pairs.data))
    for table in pairs.with_format("arrow").iter(size):
        yield from cast(pa.Table, table).to_pylist()


def pack(
    source: Source,
    out: str | Path,
    split: str = "train",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> int:
    """Write the pairs of a source into one Parquet file; its image files are stored as they are, not encoded again.

    Args:
        source: as for `load_pairs`.
        out: the file, which appears only when it is complete.
        split: as for `load_pairs`.
        revision: as for `load_pairs`.
        token: as for `load_pairs`.

    Returns:
        The number of pairs.

    Raises:
        UserError: wrong layout, an unreadable image, or `out` cannot be written, is no name of a pack or the source.
    """
    out = Path(out)
    require_pack_name(out)
    if isinstance(source, str | Path) and is_same_file(out, source):
        raise UserError(f"{out} is the source itself: it would be overwritten; give another name.")
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: there is no folder {out.parent}")
    pairs = load_pairs(source, split, decode=False, revision=revision, token=token)
    features = Features({**pairs.features, "input": Image(), "references": List(Image())})
    rows = tqdm(stored_rows(pairs), total=len(pairs), desc=f"packing {out.name}", unit="pair", disable=None)
    return packs.write_pack(map(_embedded, rows), features, out)


def _embedded(row: dict) -> dict:
    """The row's image files as bytes, each decoded once to make sure that it can be."""

    def embed(file: dict) -> dict:
        try:
            decode_image(file)
        except UserError as error:
            raise UserError(f"{row['name']}: {error}") from error
        return {"bytes": stored_bytes(file), "path": Path(file["path"] or row["name"]).name}

    return {**row, "input": embed(row["input"]), "references": [embed(file) for file in row["references"]]}
