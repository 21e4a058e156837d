"""How sure a difference between two models is, from their results on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frfsr.errors import UserError

DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean over images of (first - second), and its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_bootstrap(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """Bootstrap the mean paired difference over images: which images are in the set is what chance decides.

    Args:
        first: a measure, image by image.
        second: the same measure on the same images in the same order.
        seed: of the drawn sets of images.

    Returns:
        The mean difference, and the interval of its percentiles.

    Raises:
        UserError: unequal or empty sequences, or scipy is not installed.

    Examples:
        >>> from frfsr import evals
        >>> difference = evals.paired_bootstrap([27.8, 28.1, 25.0], [27.5, 27.7, 25.1])  # dB of the same images
        >>> f"{difference.mean:.2f}", difference.low < 0 < difference.high
        ('0.20', True)
    """
    if len(first) != len(second) or not len(first):
        raise UserError(f"paired comparison of {len(first)} with {len(second)} images")
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        raise UserError("confidence intervals need scipy: pip install 'frfsr[eval]'") from error
    differences = np.subtract(first, second)
    mean = float(differences.mean())
    if len(differences) == 1:  # whatever is drawn, it is this image
        return Difference(mean, mean, mean, 1)
    found = bootstrap((differences,), np.mean, n_resamples=DRAWS, method="percentile", rng=seed)
    low, high = found.confidence_interval
    return Difference(mean, float(low), float(high), len(differences))
