"""What the packaged network must reach, on photos that nobody tuned to: one table, measured beside its aims.

`python -m frfsr.evals.quality --data DIR` or `make quality`. DIR holds train_pairs.parquet, whose last 48 pairs the
recipes hold back, more/cid22_validation, and the benchmarks wrsr, cufed5_sample and urban100. References are used as
they are, one for each photo.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from frfsr.evals.benchmarks import TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.choices import ReferenceRule
from frfsr.evals.claims import print_table, table_parser
from frfsr.evals.evaluation import Evaluation, evaluate
from frfsr.evals.protocol import Protocol
from frfsr.evals.tables import Table, failures, number
from frfsr.evals.upscalers import Altered, Upscaler, load_upscaler, resized

HELD_BACK = "train[-48:]"
ZOOMS = (0.75, 1.33)


@dataclass(frozen=True)
class Target:
    """A row of the table: PSNR on Y in dB unless said otherwise.

    Attributes:
        title: what is measured.
        must: that it has to reach.
        aim: that it would like to reach.
        unit: of the three figures.
    """

    title: str
    must: float
    aim: float
    unit: str = "dB"


TARGETS = {
    "cid22": Target("CID22 validation crops, no reference", 29.30, 29.6),
    "none": Target("held-back 48, no reference", 30.40, 30.5),
    "true": Target("held-back 48, true reference", 31.80, 32.0),
    "wrsr": Target("WR-SR, visible 40", 28.00, 28.15),
    "cufed5": Target("cufed5_sample, reference 1", 28.20, 28.6),
    "urban100": Target("Urban100, visible 20, no reference", 25.70, 25.9),
    "zoom": Target("held-back 48, reference at zoom 0.75 or 1.33: share of the gain at zoom 1", 60, 80, "%"),
}


def measure(data: str | Path, upscaler: Upscaler, cache: ScoreCache | None = None) -> dict[str, Evaluation]:
    """Evaluate the upscaler on everything that the table needs.

    Args:
        data: the folder that the head of this file describes.
        upscaler: what is measured.
        cache: scores found here are not computed again.

    Returns:
        Results by key of `TARGETS`; for "zoom" one by each zoom instead, as "zoom 0.75".

    Raises:
        UserError: something of the data is missing.
    """
    root = Path(data)

    def held_back(rule: ReferenceRule) -> TestSet:
        return TestSet("held back", root / "train_pairs.parquet", rule, split=HELD_BACK)

    sets = {
        "cid22": TestSet("CID22 validation", root / "more" / "cid22_validation", "none"),
        "none": held_back("none"),
        "true": held_back("true"),
        "wrsr": TestSet("wrsr", root / "wrsr"),
        "cufed5": TestSet("cufed5", root / "cufed5_sample"),
        "urban100": TestSet("urban100", root / "urban100", "none"),
    }
    results = {key: evaluate(upscaler, test_set, Protocol(), cache) for key, test_set in sets.items()}
    for zoom in ZOOMS:
        altered = Altered(upscaler, f"x{zoom}", partial(resized, zoom=zoom))
        results[f"zoom {zoom}"] = evaluate(altered, sets["true"], Protocol(), cache)
    return results


def quality_table(results: dict[str, Evaluation]) -> Table:
    """Compare the results with the targets; what was missed says by how much."""
    psnr = {key: result.mean("psnr_y") for key, result in results.items()}
    shares = [share(psnr[f"zoom {zoom}"], psnr["none"], psnr["true"]) for zoom in ZOOMS]
    known = [value for value in shares if value is not None]
    measured = psnr | {"zoom": float(np.mean(known)) if len(known) == len(ZOOMS) else None}
    rows = []
    for key, target in TARGETS.items():
        value, digits = measured[key], 2 if target.unit == "dB" else 0
        verdict = "-"
        if value is not None:
            verdict = "reached" if value >= target.must else f"missed by {target.must - value:.{digits}f}"
        figures = [f"{number(figure, digits)} {target.unit}" for figure in (value, target.must, target.aim)]
        rows.append([target.title, *figures, verdict])
    single = ", ".join(f"zoom {zoom}: {number(value, 0)} %" for zoom, value in zip(ZOOMS, shares, strict=True))
    counts = ", ".join(f"{result.benchmark}: {len(result.scores)}" for result in results.values())
    notes = [f"shares: {single}", f"images: {counts}", *failures(list(results.values())), f"protocol: {Protocol()}"]
    return Table(f"Quality of {results['true'].model}", ["set", "measured", "must", "aim", "verdict"], rows, notes)


def share(zoomed: float | None, none: float | None, true: float | None) -> float | None:
    """What remains of a reference's gain when it is resized, in per cent; None where it gains nothing."""
    if zoomed is None or none is None or true is None or true <= none:
        return None
    return 100 * (zoomed - none) / (true - none)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: of the command line; by default those of the process.

    Returns:
        The exit code: 0, 1 if an image could not be measured, 2 for bad input.
    """
    parser = table_parser(__doc__, "folder of the test sets")
    parser.add_argument("--base", metavar="NAME", help="a single-image network whose image is refined")
    options = parser.parse_args(arguments)

    def measured(cache: ScoreCache | None) -> dict[str, Evaluation]:
        upscaler = load_upscaler(options.model, device=options.device, base=options.base)
        return measure(options.data, upscaler, cache)

    return print_table(options, measured, quality_table)


if __name__ == "__main__":
    sys.exit(main())
