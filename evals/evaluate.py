"""Run an upscaler over a test set and measure every image."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from frfsr.degrade import LRProtocol
from frfsr.errors import UserError
from frfsr.evals import metrics
from frfsr.evals.benchmarks import Sample, TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.upscalers import Upscaler

MEASURES = 1  # raised when the same image would get other figures, so that cached ones are not used


@dataclass(frozen=True)
class Protocol:
    """How the LR is made and what is measured.

    Attributes:
        lr: whose bicubic interpolation makes the LR.
        border: pixels left out at each side.
        alexnet: measure LPIPS too, with the AlexNet of this file or, if it says ``torchvision``, of torchvision.
    """

    lr: LRProtocol = "pil"
    border: int = 4
    alexnet: str | None = None

    def __str__(self) -> str:
        maker = {"pil": "Pillow's bicubic", "matlab": "MATLAB's antialiased bicubic, rounded once"}[self.lr]
        return (
            f"truth cropped at the bottom and right to multiples of 4; LR = its quarter by {maker}, 8 bits; "
            "references at their own size, nothing padded; result rounded to 8 bits; "
            f"PSNR and SSIM on Y (BT.601, 16-235; RGB where said) without a border of {self.border} pixels; "
            "means over images"
        )

    @property
    def identity(self) -> str:
        """Changes whenever a figure may change."""
        weights = hashlib.sha256(self.alexnet_file.read_bytes()).hexdigest() if self.alexnet_file else self.alexnet
        return f"{MEASURES} {self.lr} {self.border} {weights}"

    @property
    def alexnet_file(self) -> Path | None:
        """The file with AlexNet, None for torchvision's."""
        return None if self.alexnet in (None, "torchvision") else Path(self.alexnet)


@dataclass(frozen=True)
class Score:
    """One image: PSNR in dB, SSIM, LPIPS (None if not measured) and the seconds that the upscaler took.

    ``psnr_y``, ``ssim_y`` on luma, ``psnr_rgb``, ``ssim_rgb`` on colour.
    """

    name: str
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float
    lpips: float | None
    seconds: float


@dataclass(frozen=True)
class Failure:
    """An image that could not be evaluated, and why, in one line."""

    name: str
    reason: str


@dataclass
class Evaluation:
    """One upscaler on one test set. What failed is not in the means."""

    model: str
    benchmark: str
    reference: str
    scores: list[Score] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def mean(self, quantity: str) -> float | None:
        """Mean over the images of a field of `Score`; None if it was not measured."""
        values = [getattr(score, quantity) for score in self.scores]
        return float(np.mean(values)) if values and None not in values else None


def evaluate(
    upscaler: Upscaler,
    test_set: TestSet,
    protocol: Protocol | None = None,
    cache: ScoreCache | None = None,
    jobs: int = 1,
) -> Evaluation:
    """Super-resolves and measures every image; one that fails is kept as a `Failure` and the rest goes on.

    Under ``accelerate launch`` the images are shared out among the processes, and every process gets the whole result.

    Args:
        cache: scores found here are not computed again.
        jobs: images in flight at a time in this process; more than one overlaps reading and measuring with a GPU.
    """
    protocol = protocol or Protocol()
    state = PartialState()
    mine = range(len(test_set))[state.process_index :: state.num_processes]

    def score(index: int) -> tuple[int, Score | Failure]:
        return index, _evaluate_item(upscaler, test_set, index, protocol, cache)

    with ThreadPoolExecutor(jobs) as pool:
        title = f"{upscaler.name} on {test_set.title} ({rule(test_set)})"
        disable = None if state.is_main_process else True
        outcomes = list(tqdm(pool.map(score, mine), total=len(mine), desc=title, unit="image", disable=disable))
    outcomes = sorted(gather_object(outcomes), key=lambda outcome: outcome[0])
    result = Evaluation(upscaler.name, test_set.label, rule(test_set))
    for _, outcome in outcomes:
        (result.scores if isinstance(outcome, Score) else result.failures).append(outcome)
    result.failures += [Failure(fault.name, fault.reason) for fault in test_set.faults]
    return result


def rule(test_set: TestSet) -> str:
    """The rule for references in words, with the level if it is not the first."""
    return test_set.reference if test_set.level == 1 else f"{test_set.reference}, level {test_set.level}"


def _evaluate_item(
    upscaler: Upscaler, test_set: TestSet, index: int, protocol: Protocol, cache: ScoreCache | None
) -> Score | Failure:
    name = test_set.names[index]
    try:
        item = test_set[index]
        key = ""
        if cache:
            fingerprint = item.fingerprint(upscaler.uses_references)
            key = ScoreCache.key(upscaler.identity, protocol.identity, fingerprint)
        if cache and (known := cache.get(key)):
            return Score(**(known | {"name": name}))
        score = measure(upscaler, item.load(protocol.lr), protocol)
    except UserError as error:
        return Failure(name, " ".join(str(error).split()))
    if cache:
        cache.put(key, asdict(score))
    return score


def measure(upscaler: Upscaler, sample: Sample, protocol: Protocol) -> Score:
    """Super-resolves one sample and compares the result with the truth.

    Raises:
        UserError: the result has NaN or the wrong size, or the image is too small for the measures.
    """
    start = time.perf_counter()
    sr = upscaler(sample.lr, sample.references)
    seconds = time.perf_counter() - start
    pair = sr, sample.hr, protocol.border
    return Score(
        name=sample.name,
        psnr_y=metrics.psnr_y(*pair),
        ssim_y=metrics.ssim_y(*pair),
        psnr_rgb=metrics.psnr_rgb(*pair),
        ssim_rgb=metrics.ssim_rgb(*pair),
        lpips=metrics.lpips_alex(*pair, alexnet=protocol.alexnet_file) if protocol.alexnet else None,
        seconds=seconds,
    )
