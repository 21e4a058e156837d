"""Tables of results as text, markdown, CSV and JSON."""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from frfsr.errors import UserError
from frfsr.evals.evaluate import Evaluation, Protocol
from frfsr.evals.manifests import load_manifests


@dataclass
class Table:
    """Cells are text already; ``notes`` are lines below the table."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """Aligned columns for a terminal."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.header, *self.rows)
        ]
        return "\n".join([*lines, *self.notes])

    def as_markdown(self) -> str:
        """A section with a heading."""
        lines = [f"| {' | '.join(row)} |" for row in (self.header, ["---"] * len(self.header), *self.rows)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *lines, "", *notes]).rstrip() + "\n"

    def as_csv(self) -> str:
        """Header and rows."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()


def results_table(results: Sequence[Evaluation], protocol: Protocol) -> Table:
    """One row per evaluation; failures and the protocol below."""
    header = ["benchmark", "model", "reference", "count", "PSNR", "SSIM", "s/image"]
    rows = [
        [
            result.benchmark,
            result.model,
            result.reference,
            str(len(result.scores)),
            number(result.mean("psnr_y"), 2),
            number(result.mean("ssim_y"), 4),
            number(result.mean("seconds"), 3),
        ]
        for result in results
    ]
    if protocol.alexnet:
        header.append("LPIPS")
        for row, result in zip(rows, results, strict=True):
            row.append(number(result.mean("lpips"), 4))
    return Table("Results", header, rows, [*failures(results), f"protocol: {protocol}"])


def failures(results: Sequence[Evaluation]) -> list[str]:
    """One line per image that could not be evaluated."""
    return [f"failed: {r.benchmark}, {r.model}: {f.name}: {f.reason}" for r in results for f in r.failures]


def number(value: float | None, digits: int) -> str:
    """A figure of a table; a dash for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def results_json(results: Sequence[Evaluation], protocol: Protocol) -> str:
    """All figures, per image too, with versions and protocol. Infinite values (PSNR of equal images) become null."""
    quantities = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lpips", "seconds")
    report = {
        "versions": _versions(),
        "protocol": str(protocol),
        "results": [
            {"count": len(r.scores)} | {quantity: r.mean(quantity) for quantity in quantities} | asdict(r)
            for r in results
        ],
    }
    return json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"


def write_text(file: str | Path, text: str) -> None:
    """Writes a file that appears only when complete.

    Raises:
        UserError: the file cannot be written.
    """
    file = Path(file)
    partial_file = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial_file.write_text(text)
        os.replace(partial_file, file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error


def _versions() -> dict[str, str]:
    """Of everything that shapes a figure."""
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    packages = ("frfsr", "torch", "pillow", "numpy", "scikit-image", "lpips")
    return {name: installed[name] for name in packages if name in installed} | {
        "manifests": str(load_manifests().version)
    }


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
