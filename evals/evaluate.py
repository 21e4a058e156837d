"""Run an upscaler over a test set and measure every image."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import PIL
from tqdm import tqdm

from frfsr.errors import UserError
from frfsr.evals import metrics
from frfsr.evals.benchmarks import Failure, TestSet
from frfsr.evals.upscalers import Upscaler

PROTOCOL = (
    "truth cropped at the bottom and right to multiples of 4; LR = its quarter by Pillow's bicubic, 8 bits; "
    "references at their own size, nothing padded; result rounded to 8 bits; "
    "PSNR and SSIM on Y (BT.601, 16-235) without a border of 4 pixels; means over images"
)


@dataclass
class ImageScore:
    """psnr in dB, ssim in [-1, 1], seconds spent in the upscaler."""

    name: str
    psnr: float
    ssim: float
    seconds: float


@dataclass
class Evaluation:
    """One upscaler on one test set. ``failures`` are (image, reason); they are not in the means."""

    model: str
    benchmark: str
    reference: str
    scores: list[ImageScore] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def mean(self, quantity: str) -> float:
        """Mean of ``psnr``, ``ssim`` or ``seconds`` over the images; NaN without any."""
        values = [getattr(score, quantity) for score in self.scores]
        return sum(values) / len(values) if values else math.nan


def evaluate(upscaler: Upscaler, test_set: TestSet) -> Evaluation:
    """Super-resolves and measures every image; one that fails is kept as a failure and the rest goes on."""
    rule = test_set.reference if test_set.level == 1 else f"{test_set.reference}, level {test_set.level}"
    result = Evaluation(upscaler.name, test_set.label, rule)
    progress = tqdm(
        test_set,
        total=len(test_set) + len(test_set.faults),
        desc=f"{upscaler.name} on {test_set.title}",
        unit="image",
        disable=None,
    )
    for sample in progress:
        if isinstance(sample, Failure):
            result.failures.append(sample)
            continue
        start = time.perf_counter()
        try:
            sr = upscaler(sample.lr, sample.references)
            seconds = time.perf_counter() - start
            score = ImageScore(sample.name, metrics.psnr_y(sr, sample.hr), metrics.ssim_y(sr, sample.hr), seconds)
        except UserError as error:
            result.failures.append(Failure(sample.name, str(error)))
        else:
            result.scores.append(score)
    return result


def as_table(results: list[Evaluation]) -> str:
    """The results as lines of aligned columns, followed by the failures and the protocol."""
    rows = [("benchmark", "model", "reference", "count", "PSNR", "SSIM", "s/image")]
    rows += [
        (
            r.benchmark,
            r.model,
            r.reference,
            str(len(r.scores)),
            f"{r.mean('psnr'):.2f}",
            f"{r.mean('ssim'):.4f}",
            f"{r.mean('seconds'):.3f}",
        )
        for r in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"failed: {r.benchmark}, {r.model}: {f.name}: {f.reason}" for r in results for f in r.failures]
    return "\n".join([*lines, f"protocol: {PROTOCOL}"])


def write_json(results: list[Evaluation], file: str | Path) -> None:
    """All figures, per image too, with versions and protocol; the file appears only when complete.

    Infinite values (the PSNR of equal images) and means of nothing are written as null.

    Raises:
        UserError: the file cannot be written.
    """
    file = Path(file)
    report = {
        "versions": {"frfsr": version("frfsr"), "pillow": PIL.__version__, "torch": version("torch")},
        "protocol": PROTOCOL,
        "results": [
            {"count": len(r.scores), **{q: r.mean(q) for q in ("psnr", "ssim", "seconds")}, **asdict(r)}
            for r in results
        ],
    }
    text = json.dumps(_finite(report), indent=1, allow_nan=False)
    partial_file = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial_file.write_text(text + "\n")
        os.replace(partial_file, file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
