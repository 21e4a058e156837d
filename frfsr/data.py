"""Image pairs: folders, Parquet packs and the Hub -> ``datasets.Dataset`` of (name, input, references)."""

import os
import re
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from datasets.exceptions import DatasetsError
from PIL import Image as PILImage
from tqdm import tqdm

from frfsr.errors import UserError
from frfsr.layouts import Layout, scan, split_folder

# What Pillow raises on files that are no image, truncated, broken inside, or suspiciously huge.
UNREADABLE = (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError)
RGB, STORED = Image(mode="RGB"), Image(decode=False)


def load_pairs(
    path_or_name: str | Path,
    split: str = "train",
    streaming: bool = False,
    decode: bool = True,
    faults: list[str] | None = None,
) -> Dataset | IterableDataset:
    """Images with their reference images, decoded to RGB on access.

    Args:
        path_or_name: a folder (``input/`` + ``ref/`` as in CUFED and WR-SR, with several references for ``input/X.png``
            in a folder ``ref/X/`` or named by pairs.txt; ``000_0.png`` ... ``000_5.png`` as in CUFED5; a plain folder
            of HR images, which have no reference), a Parquet pack (columns ``name``, ``input`` and ``reference`` or
            ``references``), a folder of packs, or a Hub id.
        split: the split of a Hub dataset. For a local folder, the subfolder of that name if there is one, else it all.
        streaming: give an ``IterableDataset`` that reads as it goes.
        decode: without it images come as they are stored, as ``{"bytes", "path"}``, for `decode_image`.
        faults: receives a line for each missing or unpaired file of a folder; without it the first one is an error.

    Returns:
        Columns ``name`` (str), ``input`` (RGB PIL image), ``references`` (list of RGB PIL images, most relevant
        first, empty if there is none), and those of the source beside them.

    Raises:
        UserError: the path does not exist, or its content matches no layout.
    """
    return _open(path_or_name, split, RGB if decode else STORED, streaming, faults)


def decode_image(file: dict) -> PILImage.Image:
    """The RGB image, upright, of a stored ``{"bytes", "path"}``; raises one of `UNREADABLE` if it is none."""
    return RGB.decode_example(file)


def pack(directory: str | Path, out: str | Path, split: str = "train") -> int:
    """Writes the pairs of ``directory`` (any layout of `load_pairs`) into one Parquet file; returns their number.

    The image files are stored as they are, not encoded again. ``out`` appears only when it is complete.

    Raises:
        UserError: wrong layout, an unreadable image, or ``out`` cannot be written.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: there is no folder {out.parent}")
    partial_file = out.with_name(f".{out.name}.{os.getpid()}.partial")
    dataset = _open(directory, split, STORED)
    schema = Features({**dataset.features, "input": Image(), "references": List(Image())}).arrow_schema
    rows_per_group = 64
    try:
        with pq.ParquetWriter(partial_file, schema) as writer:
            rows = []
            for row in tqdm(dataset, desc=f"packing {out.name}", unit="pair", disable=None):
                rows.append({**row, **_embedded(row)})
                if len(rows) == rows_per_group:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))
        os.replace(partial_file, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        partial_file.unlink(missing_ok=True)
    return len(dataset)


@dataclass
class Report:
    """Result of `check`; ``str()`` is what ``frfsr data check`` prints, ``ok`` is false when anything is wrong.

    Attributes:
        sizes: smallest and largest (width, height) of the inputs, by area; None if none could be read.
        references: smallest and largest number of references per input.
    """

    kind: str
    count: int = 0
    references: tuple[int, int] = (0, 0)
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    unreadable: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.count > 0 and not self.unreadable and not self.faults

    def __str__(self) -> str:
        low, high = self.references
        lines = [
            f"layout      {self.kind}",
            f"pairs       {self.count}",
            f"references  {low}" + (f" to {high}" if high != low else "") + " per input",
        ]
        if self.sizes:
            lines.append("input size  " + " to ".join(f"{width}x{height}" for width, height in self.sizes))
        lines += [f"unreadable  {fault}" for fault in self.unreadable]
        lines += [f"unpaired    {fault}" for fault in self.faults]
        return "\n".join([*lines, "ok" if self.ok else f"{len(self.unreadable) + len(self.faults)} faults"])


def check(directory: str | Path, split: str = "train") -> Report:
    """Reads every image of ``directory`` (any local layout of `load_pairs`); reports what is there and what is wrong.

    Raises:
        UserError: the path does not exist, or its content matches no layout at all.
    """
    path = Path(directory)
    if _packs(path, split):
        report, dataset = Report("Parquet pack"), _open(path, split, STORED)
    else:
        layout = scan(path, split)
        report, dataset = Report(layout.kind, faults=layout.faults), _from_files(layout, STORED)
    sizes, counts = [], []
    for row in tqdm(dataset, desc="checking", unit="pair", disable=None):
        counts.append(len(row["references"]))
        for position, file in enumerate([row["input"], *row["references"]]):
            try:
                size = _decoded_size(file)
            except UNREADABLE as error:
                report.unreadable.append(f"{file['path'] or row['name']}: {error}")
            else:
                if position == 0:
                    sizes.append(size)
    report.count = len(counts)
    if counts:
        report.references = min(counts), max(counts)
    if sizes:
        sizes.sort(key=lambda size: size[0] * size[1])
        report.sizes = sizes[0], sizes[-1]
    return report


def _open(
    path_or_name: str | Path, split: str, image: Image, streaming: bool = False, faults: list[str] | None = None
) -> Dataset | IterableDataset:
    """`load_pairs`, with the images decoded as ``image`` says."""
    path = Path(path_or_name)
    if packs := _packs(path, split):
        dataset = _load(path, "parquet", data_files={split: packs}, split=split, streaming=streaming)
    elif path.exists():
        layout = scan(path, split)
        if faults is not None:
            faults += layout.faults
        elif layout.faults:
            more = f" (and {len(layout.faults) - 1} more; see `frfsr data check`)" if len(layout.faults) > 1 else ""
            raise UserError(f"{path}: {layout.faults[0]}{more}")
        dataset = _from_files(layout, image)
        return dataset.to_iterable_dataset() if streaming else dataset
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path_or_name)):
        dataset = _load(path_or_name, str(path_or_name), split=split, streaming=streaming)
    else:
        raise UserError(f"{path} does not exist")
    dataset = _named_columns(dataset, path_or_name)
    return dataset.cast_column("input", image).cast_column("references", List(image))


def _load(origin: str | Path, *arguments: str, **options: object) -> Dataset | IterableDataset:
    """`datasets.load_dataset` with its many errors turned into one."""
    try:
        return load_dataset(*arguments, **options)
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"cannot load {origin}, neither as a local path nor from the Hub: {reason}") from error


def _named_columns(dataset: Dataset | IterableDataset, origin: str | Path) -> Dataset | IterableDataset:
    """Brings packs and Hub datasets to the columns name, input, references."""
    columns = set(dataset.column_names or ())
    if "input" not in columns or not columns & {"reference", "references"}:
        raise UserError(f"{origin} has the columns {sorted(columns)}, needed are: input, reference (or references)")
    if "reference" in columns:
        features = Features(dataset.features)
        features["references"] = List(features.pop("reference"))
        dataset = dataset.with_format("arrow").map(_list_references, batched=True, features=features)
        dataset = dataset.with_format(None)
    if "name" not in columns:
        dataset = dataset.map(_number_rows, with_indices=True)
    return dataset


def _list_references(batch: pa.Table) -> pa.Table:
    """One reference per row becomes a list of one; on Arrow data, so that no image is decoded."""
    reference = batch["reference"].combine_chunks()
    offsets = pa.array(range(len(reference) + 1), pa.int32())
    return batch.drop_columns("reference").append_column("references", pa.ListArray.from_arrays(offsets, reference))


def _number_rows(_: dict, index: int) -> dict:
    return {"name": f"{index:06d}"}


def _packs(path: Path, split: str) -> list[str]:
    """The Parquet files that ``path`` is or holds."""
    if path.is_file() and path.suffix == ".parquet":
        return [str(path)]
    return [str(file) for file in sorted(split_folder(path, split).glob("*.parquet"))]


def _from_files(layout: Layout, image: Image) -> Dataset:
    features = Features({"name": Value("string"), "input": image, "references": List(image)})
    rows = [
        {"name": name, "input": str(file), "references": [str(reference) for reference in references]}
        for name, file, references in layout.pairs
    ]
    return Dataset.from_list(rows, features=features)


def _embedded(row: dict) -> dict:
    """The row's image files as bytes, each read once to make sure that it decodes."""

    def embed(file: dict) -> dict:
        try:
            _decoded_size(file)
        except UNREADABLE as error:
            raise UserError(f"cannot read {file['path'] or row['name']}: {error}") from error
        data = file["bytes"] if file["bytes"] is not None else Path(file["path"]).read_bytes()
        return {"bytes": data, "path": Path(file["path"] or row["name"]).name}

    return {"input": embed(row["input"]), "references": [embed(file) for file in row["references"]]}


def _decoded_size(file: dict) -> tuple[int, int]:
    source = BytesIO(file["bytes"]) if file["bytes"] is not None else file["path"]
    with PILImage.open(source) as image:
        image.load()
        return image.size
