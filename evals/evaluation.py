"""Run an upscaler over a test set and measure every image."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from frfsr.data.layouts import Fault
from frfsr.errors import UserError, one_line
from frfsr.evals import metrics
from frfsr.evals.benchmarks import Sample, TestSet, as_test_set
from frfsr.evals.cache import ScoreCache
from frfsr.evals.protocol import Protocol
from frfsr.evals.upscalers import Model, Upscaler, as_upscaler


@dataclass(frozen=True)
class Score:
    """The figures of one image.

    Attributes:
        name: of the image.
        psnr_y: on luma, dB; infinite for a result that equals the truth.
        ssim_y: on luma, -1 ... 1.
        psnr_rgb: on colour, dB.
        ssim_rgb: on colour, -1 ... 1.
        lpips: None if not measured.
        seconds: that the upscaler took.
    """

    name: str
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float
    lpips: float | None
    seconds: float


@dataclass
class Evaluation:
    """One upscaler on one test set.

    Attributes:
        model: its name.
        benchmark: title of the test set, with ``n of N`` if it is not complete.
        reference: which references were given.
        scores: of the images, in order of their names.
        failures: images that could not be evaluated, which are not in the means.
    """

    model: str
    benchmark: str
    reference: str
    scores: list[Score] = field(default_factory=list)
    failures: list[Fault] = field(default_factory=list)

    def mean(self, quantity: str) -> float | None:
        """Mean over the images of a field of `Score`; None if it was not measured."""
        values = [getattr(score, quantity) for score in self.scores]
        return float(np.mean(values)) if values and None not in values else None


def evaluate(
    model: Model,
    benchmark: TestSet | str | Path,
    protocol: Protocol | None = None,
    cache: ScoreCache | None = None,
    jobs: int = 1,
) -> Evaluation:
    """Super-resolve and measure every image; one that fails is kept as a failure and the rest goes on.

    Under ``accelerate launch`` the images are shared out among the processes, and every process gets the whole result.

    Args:
        model: an upscaler, a loaded network, the name or folder of one, or any function that takes an LR image
            (h, w, 3) and a list of references (H, W, 3), uint8 RGB arrays, and returns an image (4h, 4w, 3) of a kind
            that `frfsr.evals.metrics` takes, for example a uint8 array.
        benchmark: a test set, ``NAME=PATH``, or a folder that is named like a benchmark.
        protocol: how the LR is made and what is measured.
        cache: scores found here are not computed again; a plain function's are never kept.
        jobs: images in flight at a time in this process; more than one overlaps reading and measuring with a GPU.

    Returns:
        The scores image by image, and the failures.

    Raises:
        UserError: there is no such model or benchmark, or a package is missing that is measured with.

    Examples:
        >>> from frfsr import evals
        >>> def nearest(lr, references):  # uint8 RGB arrays: (h, w, 3), and a list of (H, W, 3)
        ...     return lr.repeat(4, axis=0).repeat(4, axis=1)
        >>> result = evals.evaluate(nearest, "set5")  # a folder of photos
        >>> result.model, len(result.scores), result.failures
        ('nearest', 2, [])
        >>> result.mean("psnr_y") < evals.evaluate("bicubic", "set5").mean("psnr_y")
        True
    """
    protocol = protocol or Protocol()
    metrics.require_extras(protocol.lpips is not None, protocol.alexnet_file)
    upscaler, test_set = as_upscaler(model, protocol.interpolation), as_test_set(benchmark)
    state = PartialState()
    mine = range(len(test_set))[state.process_index :: state.num_processes]

    def score(index: int) -> tuple[int, Score | Fault]:
        return index, _evaluate_item(upscaler, test_set, index, protocol, cache)

    with ThreadPoolExecutor(jobs) as pool:
        title = f"{upscaler.name} on {test_set.title} ({rule(test_set)})"
        disable = None if state.is_main_process else True
        outcomes = list(tqdm(pool.map(score, mine), total=len(mine), desc=title, unit="image", disable=disable))
    outcomes = sorted(gather_object(outcomes), key=lambda outcome: outcome[0])
    result = Evaluation(upscaler.name, test_set.label, rule(test_set))
    for _, outcome in outcomes:
        if isinstance(outcome, Score):
            result.scores.append(outcome)
        else:
            result.failures.append(outcome)
    result.failures += test_set.faults
    return result


def require_measurable(test_set: TestSet, protocol: Protocol) -> None:
    """Find out, before anything is computed, whether any image of a test set can be measured.

    Looks no further than the first that can; what is wrong with others is told when it is their turn.

    Args:
        test_set: with its rule for references.
        protocol: what is measured.

    Raises:
        UserError: none can: nothing is left of them inside the border, or they have no reference of that level.
    """
    first: Fault | None = None
    for index, name in enumerate(test_set.names):
        try:
            metrics.require_size(test_set[index].truth(), protocol.border, protocol.lpips is not None)
            return
        except UserError as error:
            first = first or Fault(name, str(error))
    if first is not None:
        raise UserError(f"{test_set.title}: not one image can be measured: {first}")


def rule(test_set: TestSet) -> str:
    """The rule for references in words, with the level if it is not the first."""
    return test_set.reference if test_set.level == 1 else f"{test_set.reference}, level {test_set.level}"


def _evaluate_item(
    upscaler: Upscaler, test_set: TestSet, index: int, protocol: Protocol, cache: ScoreCache | None
) -> Score | Fault:
    name = test_set.names[index]
    try:
        item = test_set[index]
        key = ""
        if upscaler.identity is None:
            cache = None
        if cache:
            fingerprint = item.fingerprint(upscaler.uses_references)
            key = ScoreCache.key(upscaler.identity or "", protocol.identity, fingerprint)
        known = cache.get(key) if cache else None
        if known and known.keys() == {each.name for each in fields(Score)}:
            return replace(Score(**known), name=name)
        score = measure(upscaler, item.load(protocol), protocol)
    except UserError as error:
        return Fault(name, one_line(error))
    if cache:
        cache.put(key, asdict(score))
    return score


def measure(upscaler: Upscaler, sample: Sample, protocol: Protocol) -> Score:
    """Super-resolve one sample and compare the result with the truth.

    Raises:
        UserError: the result has NaN or the wrong size, or the image is too small for the measures.
    """
    metrics.require_size(sample.hr, protocol.border, protocol.lpips is not None)
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
        lpips=metrics.lpips_alex(*pair, alexnet=protocol.alexnet_file) if protocol.lpips else None,
        seconds=seconds,
    )
