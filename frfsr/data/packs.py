"""Parquet packs of pairs: read in bounded batches, brought to the columns name, input, references; and written."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import datasets.config
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, Features, Image, List, Value

from frfsr.errors import UserError, one_line
from frfsr.files import whole_file

BATCH_BYTES = 2**26
"""About as much is in memory at a time: far below the 2 GiB that the 32-bit offsets of an Arrow array can reach."""
BATCH_ROWS = 64
FORMAT = "frfsr pairs 1"  # of the files in the cache; changed when the same pack would give other rows
FILE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def pair_features(columns: pa.Schema, origin: str | Path, image: Image) -> Features:
    """The features of the rows that `normalised` makes of a source with these columns.

    Args:
        columns: input, reference (or references), perhaps name, and any others, which are kept.
        origin: the source, for messages.
        image: the feature of its images, which says how they are decoded.

    Returns:
        name, input, references and the others.

    Raises:
        UserError: a column is missing or holds no images.
    """
    names = columns.names
    references = "references" if "references" in names else "reference"
    if "input" not in names or references not in names:
        raise UserError(f"{origin} has the columns {sorted(names)}, needed are: input, reference (or references)")
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{origin} has several columns of the name {min(twice)}: rename all but one")
    for column in ("input", references):
        kind, needed = columns.field(column).type, "images"
        if column == "references":
            kind, needed = (kind.value_type, needed) if hasattr(kind, "value_type") else (kind, "lists of images")
        if needed != "images" or not _holds_files(kind):
            raise UserError(
                f"{origin}: the column {column} holds {kind}, needed are {needed}: bytes, or bytes and path"
            )
    others = [columns.field(name) for name in names if name not in ("name", "input", "reference", "references")]
    kept = Features.from_arrow_schema(pa.schema(others, columns.metadata))
    return Features({"name": Value("string"), "input": image, "references": List(image), **kept})


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 or kind.get_field_index("path") >= 0
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)


def normalised(batch: pa.Table, features: Features, first_row: int) -> pa.Table:
    """A batch of a source as a table with these features; its images stay as they are stored.

    Args:
        batch: any number of rows. One reference a row becomes a list of one, or of none where it is null.
        features: of `pair_features`.
        first_row: number of the first row, by which rows without a name are numbered.

    Returns:
        The rows.
    """
    columns = {name: batch[name].combine_chunks() for name in batch.column_names}
    numbers = pa.array([f"{first_row + row:06d}" for row in range(len(batch))])
    named = columns["name"].cast(pa.string()) if "name" in columns else pa.nulls(len(batch), pa.string())
    columns["name"] = pc.call_function("coalesce", [named, numbers])
    columns["input"] = _as_files(columns["input"])
    if "references" in columns:
        lists = columns["references"]
        lengths = pc.call_function("list_value_length", [lists]).fill_null(0).to_numpy(zero_copy_only=False)
        files, offsets = _as_files(lists.flatten()), np.concatenate([[0], np.cumsum(lengths)])
    else:
        files, offsets = _as_files(columns["reference"]), np.arange(len(batch) + 1)
    is_file = files.is_valid()
    counted = np.concatenate([[0], np.cumsum(is_file.to_numpy(zero_copy_only=False))])
    offsets = pa.array(counted[offsets.astype(int)], pa.int32())
    columns["references"] = pa.ListArray.from_arrays(offsets, files.filter(is_file))
    schema = features.arrow_schema
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema)


def _as_files(images: pa.Array) -> pa.Array:
    """Bytes, paths or structs of them -> structs {bytes, path}, null where both are."""
    kind = images.type
    if pa.types.is_struct(kind):
        parts = {field: images.field(field) for field in ("bytes", "path") if kind.get_field_index(field) >= 0}
    else:
        is_path = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        parts = {"path" if is_path else "bytes": images}
    data, path = (
        parts[field.name].cast(field.type) if field.name in parts else pa.nulls(len(images), field.type)
        for field in FILE_TYPE
    )
    null, no_data, no_path = (part.is_null().to_numpy(zero_copy_only=False) for part in (images, data, path))
    absent = pa.array(null | (no_data & no_path))
    return pa.StructArray.from_arrays([data, path], fields=list(FILE_TYPE), mask=absent)


def pack_features(files: Sequence[Path], image: Image) -> Features:
    """`pair_features` of a pack, from the columns of its first file."""
    with _opened(files[0]) as parquet:
        return pair_features(parquet.schema_arrow, files[0], image)


def count_rows(files: Sequence[Path]) -> int:
    """Rows of Parquet files, by what their ends say."""
    count = 0
    for file in files:
        with _opened(file) as parquet:
            count += parquet.metadata.num_rows
    return count


def pack_batches(files: Sequence[Path], features: Features) -> Iterator[pa.Table]:
    """The rows of Parquet files in their order, in tables of at most about `BATCH_BYTES`.

    Raises:
        UserError: a file cannot be read, or has other columns than the first.
    """
    first_row = 0
    for file in files:
        with _opened(file) as parquet:
            metadata = parquet.metadata
            size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            try:
                for batch in parquet.iter_batches(bounded_rows(size, metadata.num_rows)):
                    yield normalised(pa.Table.from_batches([batch]), features, first_row)
                    first_row += len(batch)
            except KeyError as error:
                raise UserError(f"{file} has no column {error}, which {files[0]} has") from error
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"cannot load {file}: {one_line(error)}") from error


def bounded_rows(size: int, rows: int) -> int:
    """How many of `rows`, together `size` bytes, make a batch."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)  # or whole row groups lie in memory
    except (pa.ArrowException, OSError) as error:
        reason = one_line(error)
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            reason = "it is a Git LFS pointer; run `git lfs pull`"
        raise UserError(f"cannot load {file}: {reason}") from error


def pack_dataset(files: Sequence[Path], features: Features) -> Dataset:
    """The rows of Parquet files, memory-mapped; the cache knows them by their content."""
    identity = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            identity.update(hashlib.file_digest(content, "sha256").digest())
    return stored_dataset(pack_batches(files, features), features, identity.hexdigest())


def stored_dataset(batches: Iterable[pa.Table], features: Features, identity: str) -> Dataset:
    """A memory-mapped dataset of tables, from the cache if it has one of this identity.

    Args:
        batches: taken only if the cache does not have them.
        features: of the tables.
        identity: changes whenever the rows do.

    Returns:
        The dataset.
    """
    name = hashlib.sha256(f"{FORMAT} {datasets.__version__} {identity}".encode()).hexdigest()
    file = _cache_place(f"{name}.arrow")
    if not file.exists():
        with whole_file(file) as partial, pa.ipc.new_stream(partial, features.arrow_schema) as writer:
            for batch in batches:
                writer.write_table(batch)
    return Dataset.from_file(str(file), info=DatasetInfo(features=features))


def _cache_place(name: str) -> Path:
    """Where a file of the cache is or can be: in a folder of this process if the cache cannot be written."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "frfsr"
    if (folder / name).exists():
        return folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder / name
    except OSError:
        return Path(_own_folder().name) / name


@cache
def _own_folder() -> tempfile.TemporaryDirectory:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="frfsr-", ignore_cleanup_errors=True)


def write_pack(rows: Iterable[dict], features: Features, out: str | Path) -> int:
    """Write rows into one Parquet file, which appears only when it is complete.

    Args:
        rows: their images as ``{"bytes", "path"}``, the bytes given.
        features: of the rows.
        out: the file; its row groups hold at most 64 rows and about 64 MiB, which viewers and `pack_batches` like.

    Returns:
        The number of rows.

    Raises:
        UserError: `out` cannot be written.
    """
    schema, count = features.arrow_schema, 0
    with whole_file(out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _groups(rows: Iterable[dict]) -> Iterator[list[dict]]:
    group, size = [], 0
    for row in rows:
        group.append(row)
        references = row["references"] if "references" in row else [row["reference"]]
        size += sum(len(file["bytes"]) for file in (row["input"], *references))
        if len(group) == BATCH_ROWS or size >= BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
