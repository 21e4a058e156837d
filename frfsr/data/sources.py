"""Where pairs come from: folders, packs, patterns, saved datasets, dataset objects and the Hugging Face Hub."""

import re
from collections.abc import Callable, Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    List,
    ReadInstruction,
    Value,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from frfsr.data import packs
from frfsr.data.layouts import IMAGE_SUFFIXES, Fault, FilePair, Layout, scan
from frfsr.data.splits import named_split, of_split, split_folder
from frfsr.errors import UserError
from frfsr.names import HUB_NAME

Rows = Dataset | IterableDataset
Source = str | Path | Dataset | IterableDataset | DatasetDict | IterableDatasetDict
HUB_ID = rf"({HUB_NAME})(?:@([^@\s]+))?"  # name, revision; names without an owner are old, and hold no pairs


class Pairs(NamedTuple):
    """Pairs, and what is wrong with the source that they come from.

    Attributes:
        rows: the pairs without fault.
        faults: files that are missing or have no partner.
        kind: the layout of the source.
    """

    rows: Rows
    faults: list[Fault]
    kind: str


class Options(NamedTuple):
    """How a source is opened.

    Attributes:
        image: the feature of its images, which says how they are decoded.
        streaming: whether the rows are an ``IterableDataset``.
        revision: of a Hub dataset.
        token: for the Hub.
    """

    image: Image
    streaming: bool = False
    revision: str | None = None
    token: str | bool | None = None


def open_source(source: Source, split: str, options: Options) -> Pairs:
    """The pairs of one split of any source that `frfsr.data.load_pairs` names.

    Raises:
        UserError: there is no such source or split, or it has no known layout.
    """
    if isinstance(source, DatasetDict | IterableDatasetDict):
        if split not in source:
            raise UserError(f"the dataset has no split {split}, only {', '.join(map(str, source))}")
        source = source[split]
    if isinstance(source, Dataset | IterableDataset):
        _require_no_revision("a dataset object", options)
        return _from_dataset(source, "the dataset", options)
    path, text = Path(source).expanduser(), str(source)
    if not text:
        raise UserError("an empty name: give the pairs' folder, packs or Hub id")
    if "://" in text:
        return _from_url(text, split, options)
    if path.exists() or has_magic(text):
        _require_no_revision(text, options)
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        saved = _quietly(path, lambda: load_from_disk(str(path)))
        return open_source(saved, split, options)._replace(kind="saved dataset")
    if files := pack_files(path, split):
        return _from_packs(files, options)
    if path.is_dir():
        return _from_layout(scan(path, split), options)
    if path.exists():
        scan(path, split)  # which says what it is not
    if has_magic(text):
        return _from_pattern(path, split, options)
    if (named := re.fullmatch(HUB_ID, text)) and path.suffix != ".parquet":
        return _from_hub(named[1], split, _in_revision(named[2], options))
    raise UserError(f"{path} does not exist (on the Hub, datasets are named OWNER/NAME)")


def pack_files(path: Path, split: str) -> list[Path]:
    """The Parquet files of the split that `path` is or holds, itself, in data/ or in a folder of that name."""
    if path.is_file() and path.suffix == ".parquet":
        return [path]
    for folder in (path, path / "data", split_folder(path, split), split_folder(path / "data", split)):
        files = [file for file in sorted(folder.glob("*.parquet")) if file.name[0] != "."]
        if files:
            return of_split(files, split)
    return []


def slice_rows(rows: Rows, part: str) -> Rows:
    """The part of the rows that a slice such as ``[:100]`` or ``[10%:]`` means, as in `datasets`.

    Raises:
        UserError: it is no slice, reaches beyond the end, or needs the length of a stream.
    """
    if isinstance(rows, IterableDataset):
        raise UserError(f"a stream cannot be sliced by {part}: load it without streaming, or use take() and skip()")
    try:
        (part_of_all,) = ReadInstruction.from_spec(f"all{part}").to_absolute({"all": len(rows)})
    except (ValueError, AssertionError) as error:
        raise UserError(f"{part} is no slice of {len(rows)} rows; examples: [:100], [10%:], [-20:]") from error
    if part_of_all.to <= part_of_all.from_:
        raise UserError(f"{part} of {len(rows)} rows leaves none")
    return rows.select(range(part_of_all.from_, part_of_all.to))


def _from_packs(files: list[Path], options: Options) -> Pairs:
    features = packs.pack_features(files, options.image)
    if not packs.count_rows(files):
        raise UserError(f"{files[0]} holds no pairs")
    if options.streaming:
        rows = IterableDataset.from_generator(_pack_rows, features=features, gen_kwargs={"files": files})
        return Pairs(rows, [], "Parquet pack")
    return Pairs(*_without_absent(packs.pack_dataset(files, features), str(files[0]), "Parquet pack"))


def _pack_rows(files: list[Path]) -> Iterator[dict]:
    features = packs.pack_features(files, Image(decode=False))
    for batch in packs.pack_batches(files, features):
        yield from map(_whole_row, batch.to_pylist())


def _whole_row(row: dict) -> dict:
    if row["input"] is None:
        raise UserError(f"{row['name']}: no input image")
    return row


def _from_layout(layout: Layout, options: Options) -> Pairs:
    features = Features({"name": Value("string"), "input": options.image, "references": List(options.image)})
    columns = {
        "name": [pair.name for pair in layout.pairs],
        "input": [{"bytes": None, "path": str(pair.input)} for pair in layout.pairs],
        "references": [[{"bytes": None, "path": str(file)} for file in pair.references] for pair in layout.pairs],
    }
    rows = Dataset.from_dict(columns, features=features)
    return Pairs(rows.to_iterable_dataset() if options.streaming else rows, layout.faults, layout.kind)


def _from_pattern(pattern: Path, split: str, options: Options) -> Pairs:
    files = [Path(name) for name in sorted(glob(str(pattern), recursive=True))]
    found = [file for file in files if file.suffix == ".parquet"]
    if found:
        one_split = len({named_split(file.name) for file in found}) == 1
        return _from_packs(found if one_split else of_split(found, split), options)
    photos = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise UserError(f"{pattern}: neither a Parquet pack nor an image matches")
    return _from_layout(Layout("photos", [FilePair(file.stem, file, []) for file in photos]), options)


def _from_url(url: str, split: str, options: Options) -> Pairs:
    """A file or pattern of packs anywhere, or ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]``."""
    folder = re.fullmatch(r"hf://datasets/([^/]+/[^/@]+)(?:@([^/]+))?(?:/([^*?\[]*))?", url)
    if folder and not url.endswith(".parquet"):
        name, revision, data_dir = folder.groups()
        return _from_hub(name, split, _in_revision(revision, options), data_dir or None)
    if named := re.match(r"(hf://datasets/[^/]+/[^/@]+)(?:@([^/]+))?(?=/)", url):
        revision = _in_revision(named[2], options).revision
        url = url if named[2] or revision is None else f"{named[1]}@{revision}{url[named.end() :]}"
    else:
        _require_no_revision(url, options)
    return _load(url, "parquet", options, data_files={split: url}, split=split)


def _require_no_revision(source: str, options: Options) -> None:
    """Refuse a revision of what has none, instead of silently reading another one."""
    if options.revision is not None:
        raise UserError(f"{source} is no dataset of the Hub, which alone has revisions: leave it out")


def _in_revision(named: str | None, options: Options) -> Options:
    """The options with the revision that stands in a source's name, or that was given."""
    if named and options.revision not in (None, named):
        raise UserError(f"two revisions are given, {named} and {options.revision}: leave one out")
    return options._replace(revision=named or options.revision)


def _from_hub(name: str, split: str, options: Options, data_dir: str | None = None) -> Pairs:
    return _load(name, name, options, split=split, data_dir=data_dir, revision=options.revision)


def _load(origin: str, name: str, options: Options, **arguments: Any) -> Pairs:
    rows = _quietly(origin, lambda: load_dataset(name, streaming=options.streaming, token=options.token, **arguments))
    return _from_dataset(rows, origin, options)


def _quietly(origin: str | Path, load: Callable[[], Any]) -> Any:
    """The many errors of `datasets`, of file systems and of their clients, perhaps not installed, as one."""
    try:
        return load()
    except (DatasetsError, OSError, ValueError, ImportError, NotImplementedError, RuntimeError) as error:
        telling = error if isinstance(error, DatasetNotFoundError) else error.__cause__ or error
        reason = (str(telling).splitlines() or [type(telling).__name__])[0].rstrip(".")
        raise UserError(f"cannot load {origin}, neither as a local path nor from the Hub: {reason}") from error


def _from_dataset(rows: Rows, origin: str, options: Options) -> Pairs:
    if isinstance(rows, IterableDataset):
        return Pairs(_from_iterable(rows, origin, options.image), [], "stream")
    features = packs.pair_features(rows.features.arrow_schema, origin, options.image)
    size = packs.bounded_rows(rows.data.nbytes, len(rows.data))
    tables = rows.with_format("arrow").iter(size)
    batches = (packs.normalised(table, features, number * size) for number, table in enumerate(tables))
    found, faults, kind = _without_absent(packs.stored_dataset(batches, features, rows._fingerprint), origin, "dataset")
    return Pairs(found.to_iterable_dataset() if options.streaming else found, faults, kind)


def _from_iterable(rows: IterableDataset, origin: str, image: Image) -> IterableDataset:
    if rows.features is None:
        rows = rows._resolve_features()
    assert rows.features is not None
    stored = Image(decode=False)  # until all is done: no decoding and encoding on the way
    features = packs.pair_features(rows.features.arrow_schema, origin, image)
    surplus = ["reference"] if "reference" in rows.features else None
    rows = rows.cast_column("input", stored)
    rows = rows.cast_column("reference", stored) if surplus else rows.cast_column("references", List(stored))

    def pair(row: dict, number: int) -> dict:
        references = row["references"] if "references" in row else [row["reference"]]
        found = [file for file in references or () if file is not None]
        return _whole_row({"name": row.get("name", f"{number:06d}"), "input": row["input"], "references": found})

    return rows.map(pair, with_indices=True, remove_columns=surplus).cast(features)


def _without_absent(rows: Dataset, origin: str, kind: str) -> tuple[Dataset, list[Fault], str]:
    """Leaves out rows without an input, and those without a reference where others have one, and names them."""
    if not len(rows):
        raise UserError(f"{origin} holds no pairs")
    table = rows.data.table
    no_input = table["input"].is_null().to_numpy()
    counts = pc.call_function("list_value_length", [table["references"]]).to_numpy()
    no_reference = counts < min(counts.max(), 1)
    absent = no_input | no_reference
    if not absent.any():
        return rows, [], kind
    names = table["name"].to_pylist()
    faults = [
        Fault(names[row] or "", "no input image" if no_input[row] else "no reference") for row in np.flatnonzero(absent)
    ]
    return rows.select(np.flatnonzero(~absent)), faults, kind
