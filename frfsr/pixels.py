"""Arrays of pixels <-> tensors, and what everyone must agree on about colour."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

BT601 = (0.299, 0.587, 0.114)
"""Weights of R, G, B in the luma of ITU-R BT.601: Pillow's grey, and before its studio swing the Y of the metrics."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def full_range(dtype: type[np.generic] | np.dtype) -> float:
    """The value of white: 1 for floating point, the largest one for integers."""
    return 1.0 if np.issubdtype(dtype, np.floating) else float(np.iinfo(dtype).max)


def rounded(values: np.ndarray, dtype: type[np.generic] | np.dtype) -> np.ndarray:
    """Values in 0 ... `full_range` of a type as that type, rounded for integers."""
    return (values if np.issubdtype(dtype, np.floating) else np.rint(values)).astype(dtype)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Bring colour pixels into the range and the order that networks take.

    Args:
        pixels: (H, W, 3) RGB or (H, W, 1) grey, uint8 or uint16 over its whole range, or floating point in [0, 1].

    Returns:
        (3, H, W) float32 RGB in [0, 1]; grey is repeated.
    """
    values = np.empty((3, *pixels.shape[:2]), np.float32)  # filled in place: photos may be large
    values[...] = rearrange(pixels, "h w c -> c h w")
    values /= full_range(pixels.dtype)
    return torch.from_numpy(values)


def to_pixels(image: Tensor, channels: int = 3, dtype: type[np.generic] | np.dtype = np.uint8) -> np.ndarray:
    """Bring an image of a network to pixels, rounded as they are saved.

    Args:
        image: (3, H, W) RGB in about [0, 1]; what lies outside is clipped.
        channels: 3 for RGB, 1 for grey (the luma of BT.601).
        dtype: an unsigned integer type, whose whole range is used, or a floating-point type, which is not rounded.

    Returns:
        (H, W, channels) of `dtype`.
    """
    values = rearrange(image.detach().float().clamp(0, 1).cpu().numpy(), "c h w -> h w c")
    if channels == 1:
        values = (values @ np.array(BT601, np.float32))[..., None]
    return rounded(values * full_range(dtype), dtype)


def luma(image: Tensor) -> Tensor:
    """Luma of BT.601, (B, 1, H, W) in [0, 1], of an RGB image (B, 3, H, W) in [0, 1]."""
    weights = rearrange(image.new_tensor(BT601), "c -> 1 c 1 1")
    return (image * weights).sum(1, keepdim=True)


def channel_constant(values: Sequence[float]) -> Tensor:
    """Constants of the colour channels as (1, C, 1, 1), for a buffer; they exist in modules without memory, too."""
    device = "cpu" if torch.get_default_device().type == "meta" else None
    return rearrange(torch.tensor(values, device=device), "c -> 1 c 1 1")


def pad_sides(image: Tensor, smallest: int, multiple: int) -> Tensor:
    """Replicate the right and bottom borders of (B, C, H, W) until both sides are at least `smallest` and multiples."""
    bottom, right = (-(-max(side, smallest) // multiple) * multiple - side for side in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def fit_sides(image: Tensor, size: Sequence[int], corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Cut (B, C, H, W) from a corner (row, column) on to the size (height, width), replicating borders beyond it."""
    top, left = (min(start, side - 1) for start, side in zip(corner, image.shape[-2:], strict=True))
    image = image[..., top : top + size[0], left : left + size[1]]
    bottom, right = (wanted - side for wanted, side in zip(size, image.shape[-2:], strict=True))
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
