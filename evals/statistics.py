"""How sure a difference between two models is, from their results on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frfsr.errors import UserError

DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean over images of (first - second) and its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_bootstrap(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """Percentile bootstrap over images: which images are in the set is what chance decides.

    Args:
        first, second: the same measure on the same images in the same order.

    Raises:
        UserError: unequal or empty sequences.
    """
    if len(first) != len(second) or not len(first):
        raise UserError(f"paired comparison of {len(first)} with {len(second)} images")
    differences = np.subtract(first, second)
    draws = np.random.default_rng(seed).integers(0, len(differences), (DRAWS, len(differences)))
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return Difference(float(differences.mean()), float(low), float(high), len(differences))
