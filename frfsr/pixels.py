"""Arrays of pixels <-> tensors, and what everyone must agree on about colour."""

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

BT601 = (0.299, 0.587, 0.114)
"""Weights of R, G, B in the luma of ITU-R BT.601: Pillow's grey, and before its studio swing the Y of the metrics."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Bring colour pixels into the range and the order that networks take.

    Args:
        pixels: (H, W, 3) RGB or (H, W, 1) grey, uint8 or uint16 over its whole range.

    Returns:
        (3, H, W) float32 RGB in [0, 1]; grey is repeated.
    """
    values = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max)
    if pixels.shape[2] == 1:
        return repeat(values, "h w 1 -> c h w", c=3)
    return rearrange(values, "h w c -> c h w").contiguous()


def to_pixels(image: Tensor, channels: int = 3, dtype: type[np.integer] | np.dtype = np.uint8) -> np.ndarray:
    """Round an image of a network to pixels, as they are saved.

    Args:
        image: (3, H, W) RGB in about [0, 1]; what lies outside is clipped.
        channels: 3 for RGB, 1 for grey (the luma of BT.601).
        dtype: an unsigned integer type; its whole range is used.

    Returns:
        (H, W, channels) of `dtype`.
    """
    values = rearrange(image.detach().float().clamp(0, 1).cpu().numpy(), "c h w -> h w c")
    if channels == 1:
        values = (values @ np.array(BT601, np.float32))[..., None]
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)


def luma(image: Tensor) -> Tensor:
    """Luma of BT.601, (B, 1, H, W) in [0, 1], of an RGB image (B, 3, H, W) in [0, 1]."""
    weights = rearrange(image.new_tensor(BT601), "c -> 1 c 1 1")
    return (image * weights).sum(1, keepdim=True)
