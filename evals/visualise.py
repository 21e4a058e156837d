"""What a network does inside: which reference place each pixel was matched with, and where it attends."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from frfsr.aggregation import DFM, ESA
from frfsr.evals.benchmarks import Sample
from frfsr.evals.choices import PUBLISHED
from frfsr.imageio import Photo
from frfsr.network import Network
from frfsr.upscaling.explain import Explanation, explain_photo


@dataclass(frozen=True)
class Insight:
    """What `frfsr explain` shows of a sample, and where the network attends.

    Attributes:
        explanation: of the result with the first reference.
        attention: by caption, what the network's last modules of a kind made, float (height, width) at their own
            resolution: ESA's mask (mean over channels, 0 ... 1) and the norm of the dynamic filters' nine spatial taps.
    """

    explanation: Explanation
    attention: dict[str, np.ndarray]


def look_inside(model: Network, sample: Sample) -> Insight:
    """Run the network on a sample with its first reference and records what it does."""
    attention: dict[str, np.ndarray] = {}

    def record_mask(module: nn.Module, _: tuple, output: Tensor) -> None:
        attention["ESA mask"] = to_map(output.sigmoid().mean(1))

    def record_taps(module: nn.Module, _: tuple, output: Tensor) -> None:
        attention["dynamic filters"] = to_map(output.norm(dim=1))

    handles = [m.conv4.register_forward_hook(record_mask) for m in model.modules() if isinstance(m, ESA)]
    handles += [m.spatial.register_forward_hook(record_taps) for m in model.modules() if isinstance(m, DFM)]
    try:
        explanation = explain_photo(Photo(sample.lr), [Photo(sample.references[0])], model, PUBLISHED)
    finally:
        for handle in handles:
            handle.remove()
    return Insight(explanation, attention)


def to_map(values: Tensor) -> np.ndarray:
    """(1, H, W) -> (H, W) float32."""
    return values[0].float().cpu().numpy()
