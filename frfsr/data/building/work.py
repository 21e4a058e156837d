"""Finished pieces of a build, kept beside its output until all is done: the same command goes on where it stopped."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from frfsr.data.building.photos import Features
from frfsr.errors import UserError
from frfsr.files import whole_file, write_text

FORMAT = "1"  # changed when the same photos and settings would give other pieces
CELL = pa.schema(
    {
        "input": pa.binary(),
        "reference": pa.binary(),
        "x": pa.int32(),
        "y": pa.int32(),
        "input_square": pa.list_(pa.float64()),
        "reference_square": pa.list_(pa.float64()),
        "zoom": pa.float64(),
        "inliers": pa.int32(),
        "matched": pa.list_(pa.float64()),
        "hash": pa.string(),
    }
)
FIGURES = [name for name in CELL.names if name not in ("input", "reference")]


class Work:
    """A folder of pieces, each named by what it was made of, so that none of other photos or settings is taken.

    Args:
        output: the file for which the work is done.
    """

    def __init__(self, output: Path):
        self.folder = output.with_name(f".{output.name}.build")
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be made: {error.strerror or error}.") from error

    def remove(self) -> None:
        """Forget all pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, kind: str, *identity: Any) -> Path:
        """Where the piece of this kind and identity is or will be."""
        text = json.dumps([FORMAT, kind, *identity], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{kind}"

    def features(self, make: Callable[[], Features], *identity: Any) -> Features | str:
        """Features of a photo, or why it has none."""
        file = self.file("npz", *identity)
        if not file.exists():
            known: dict[str, Any]
            try:
                known = make()._asdict()
            except UserError as error:
                known = {"fault": np.array(str(error))}
            with whole_file(file) as partial, open(partial, "wb") as opened:
                np.savez(opened, **known)
        with np.load(file) as stored:
            return str(stored["fault"]) if "fault" in stored else Features(**stored)

    def value(self, make: Callable[[], Any], *identity: Any) -> Any:
        """Anything that JSON has."""
        file = self.file("json", *identity)
        if not file.exists():
            write_text(file, json.dumps(make()))
        return json.loads(file.read_text("utf-8"))

    def cells(self, make: Callable[[], tuple[list[dict], dict[str, int]]], *identity: Any) -> Path:
        """The file with the cells of two photos; `read_figures`, `read_dropped` and `read_images` open it."""
        file = self.file("cells", *identity)
        if not file.exists():
            rows, dropped = make()
            table = pa.Table.from_pylist(rows, CELL.with_metadata({"dropped": json.dumps(dropped)}))
            with whole_file(file) as partial:
                pq.write_table(table, partial)
        return file


def read_figures(file: Path) -> list[dict[str, Any]]:
    """The cells of a file without their images."""
    return pq.read_table(file, columns=FIGURES).to_pylist()


def read_dropped(file: Path) -> dict[str, int]:
    """How many cells were dropped for which reason."""
    return json.loads(pq.read_schema(file).metadata[b"dropped"])


def read_images(file: Path) -> list[dict[str, bytes]]:
    """Input and reference of each cell of a file, as PNG."""
    return pq.read_table(file, columns=["input", "reference"]).to_pylist()
