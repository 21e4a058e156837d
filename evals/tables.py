"""Tables of results as text, markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions

from frfsr.evals.evaluation import Evaluation
from frfsr.evals.manifests import load_manifests
from frfsr.evals.protocol import Protocol


@dataclass
class Table:
    """A table whose cells are text already.

    Attributes:
        title: above it.
        header: one cell per column.
        rows: as many cells each.
        notes: lines below it.

    Examples:
        >>> from frfsr import evals
        >>> print(evals.Table("Results", ["model", "PSNR"], [["bicubic", "25.53"]]).as_markdown())
        ## Results
        <BLANKLINE>
        | model | PSNR |
        | --- | --- |
        | bicubic | 25.53 |
        <BLANKLINE>
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """Align the columns for a terminal."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.header, *self.rows)
        ]
        return "\n".join([*lines, *self.notes])

    def as_markdown(self) -> str:
        """Write it as a section with a heading."""
        lines = [f"| {' | '.join(row)} |" for row in (self.header, ["---"] * len(self.header), *self.rows)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *lines, "", *notes]).rstrip() + "\n"

    def _repr_markdown_(self) -> str:
        """Show the table in a notebook."""
        return self.as_markdown()

    def as_csv(self) -> str:
        """Write header and rows."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()


def results_table(results: Sequence[Evaluation], protocol: Protocol | None = None) -> Table:
    """Show one row per evaluation, failures and the protocol below.

    Args:
        results: what `evaluate` returned.
        protocol: that it was given.

    Returns:
        The table.

    Examples:
        >>> from frfsr import evals
        >>> table = evals.results_table([evals.evaluate("bicubic", "set5")])
        >>> dict(zip(table.header, table.rows[0]))["benchmark"]
        'Set5 (2 of 5)'
    """
    protocol = protocol or Protocol()
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
    if protocol.lpips:
        header.append("LPIPS")
        for row, result in zip(rows, results, strict=True):
            row.append(number(result.mean("lpips"), 4))
    return Table("Results", header, rows, [*failures(results), f"protocol: {protocol}"])


def failures(results: Sequence[Evaluation]) -> list[str]:
    """List the images that could not be evaluated, one line each."""
    return [f"failed: {r.benchmark}, {r.model}: {f.name}: {f.reason}" for r in results for f in r.failures]


def number(value: float | None, digits: int) -> str:
    """Write a figure of a table; a dash for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def results_json(results: Sequence[Evaluation], protocol: Protocol, networks: str = "") -> str:
    """Write all figures, per image too, with versions and protocol.

    JSON has no infinite numbers: the PSNR of equal images is the string "Infinity", which Python's `float` and
    JavaScript's `Number` read. Null is what was not measured.

    Args:
        results: what `evaluate` returned.
        protocol: that it was given.
        networks: how the networks were run, in words.

    Returns:
        JSON.

    Examples:
        >>> import json
        >>> from frfsr import evals
        >>> protocol = evals.Protocol(border=0)
        >>> report = json.loads(evals.results_json([evals.evaluate("bicubic", "set5", protocol)], protocol))
        >>> report["results"][0]["count"]
        2
    """
    quantities = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lpips", "seconds")
    report = {
        "versions": _versions(),
        "protocol": str(protocol),
        "networks": networks,
        "results": [
            {"count": len(r.scores)} | {quantity: r.mean(quantity) for quantity in quantities} | asdict(r)
            for r in results
        ],
    }
    return json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"


def _versions() -> dict[str, str]:
    """Versions of everything that shapes a figure."""
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    packages = ("frfsr", "torch", "pillow", "numpy", "scikit-image", "lpips")
    return {name: installed[name] for name in packages if name in installed} | {
        "manifests": str(load_manifests().version)
    }


def _finite(value: object) -> object:
    """The same with strings for numbers that JSON does not have: "Infinity", "-Infinity", "NaN"."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value
