"""What a network does inside: which reference place each pixel was matched with, and where it attends."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from frfsr.aggregation import DFM, ESA
from frfsr.degrade import upscale_bicubic
from frfsr.evals.benchmarks import Sample
from frfsr.evals.upscalers import to_batch
from frfsr.kernels import flow_warp
from frfsr.matching import enlarge_flow
from frfsr.model import FRFSR

# Colours of the four corners of the reference: top left, top right, bottom left, bottom right.
CORNERS = np.array([[[230, 60, 60], [240, 200, 40]], [[60, 90, 230], [40, 190, 110]]], np.float64)


@dataclass(frozen=True)
class Insight:
    """Pictures as uint8 (height, width, 3), maps as float (height, width).

    Attributes:
        key: the reference, coloured by position.
        matched: the enlarged LR, each pixel in the colour of the reference place that it was matched with.
        warped: the reference's pixels at their matched places.
        confidence: cosine of the match at LR resolution, -1 ... 1.
        attention: by caption, what the network's last modules of a kind made, at their own resolution: ESA's mask (mean
            over channels, 0 ... 1) and the norm of the dynamic filters' nine spatial taps.
    """

    key: np.ndarray
    matched: np.ndarray
    warped: np.ndarray
    confidence: np.ndarray
    attention: dict[str, np.ndarray]


@torch.inference_mode()
def look_inside(model: FRFSR, sample: Sample) -> Insight:
    """Runs the network on a sample with its first reference and records what it does."""
    upsampled = upscale_bicubic(sample.lr, "pil")
    reference = sample.references[0]
    reference_batch = to_batch(reference, model)
    attention: dict[str, np.ndarray] = {}

    def record_mask(module: nn.Module, _: tuple, output: Tensor) -> None:
        attention["ESA mask"] = to_map(output.sigmoid().mean(1))

    def record_taps(module: nn.Module, _: tuple, output: Tensor) -> None:
        attention["dynamic filters"] = to_map(output.norm(dim=1))

    handles = [m.conv4.register_forward_hook(record_mask) for m in model.modules() if isinstance(m, ESA)]
    handles += [m.spatial.register_forward_hook(record_taps) for m in model.modules() if isinstance(m, DFM)]
    try:
        correspondence = model(to_batch(sample.lr, model), reference_batch, to_batch(upsampled, model)).correspondence
    finally:
        for handle in handles:
            handle.remove()
    height, width = sample.lr.shape[:2]
    colours = position_colours(*reference.shape[:2])
    flow = enlarge_flow(correspondence.flow[:, :height, :width], 4)
    warped, matched = (
        to_picture(flow_warp(image, flow)) for image in (reference_batch.float(), to_batch(colours, model).float())
    )
    return Insight(
        key=blend(reference, colours),
        matched=blend(upsampled, matched),
        warped=warped,
        confidence=to_map(correspondence.score)[:height, :width],
        attention=attention,
    )


def position_colours(height: int, width: int) -> np.ndarray:
    """A picture (height, width, 3), uint8, whose colour tells the position: `CORNERS`, interpolated."""
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top, bottom = ((1 - x) * left + x * right for left, right in CORNERS)
    return ((1 - y) * top + y * bottom).round().astype(np.uint8)


def blend(photo: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The brightness of a photo in the hues of another picture of its size."""
    grey = photo.mean(axis=2, keepdims=True) / 255
    return (colours * (0.35 + 0.65 * grey)).round().astype(np.uint8)


def to_picture(batch: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (rearrange(batch.clamp(0, 1), "1 c h w -> h w c") * 255).round().byte().cpu().numpy()


def to_map(batch: Tensor) -> np.ndarray:
    """(1, H, W) -> (H, W) float32."""
    return batch[0].float().cpu().numpy()
