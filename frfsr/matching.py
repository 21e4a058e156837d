"""CTW, correlation-based texture warp (section III-B): features -> correspondence -> flow."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels import patch_argmax

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Correspondence(NamedTuple):
    """For every LR position the best matching place in the reference.

    score: (B, h, w) float32, cosine of the two 3x3 patches, -1 ... 1 (eq. 6); 0 where nothing was matched.
    flow: (B, h, w, 2) float32, displacement (x, y) in LR pixels = reference pixels / 4 (eq. 9), whole numbers unless it
        is refined. With "same" padding it
        belongs to the patch centred on the pixel, with "valid" to the patch whose top-left corner is the pixel.
    index: (B, hq, wq) int64, row-major number of the matched patch in the reference's patch grid (eq. 7).
    """

    score: Tensor
    flow: Tensor
    index: Tensor


def index_to_flow(index: Tensor, reference_width: int) -> Tensor:
    """Eq. 8-9: patch numbers (B, h, w) on a grid `reference_width` wide -> displacements (B, h, w, 2) as (x, y)."""
    _, height, width = index.shape
    column = torch.arange(width, device=index.device)
    row = torch.arange(height, device=index.device)[:, None]
    x = index % reference_width - column
    y = index.div(reference_width, rounding_mode="floor") - row
    return torch.stack([x, y], dim=-1).float()


def correspond(query: Tensor, key: Tensor, padding: str) -> Correspondence:
    """Eq. 5-9: texture features of the LR image (B, C, h, w) and of the reference (B, C, hr, wr) -> Correspondence.

    Each pixel's feature is normalised first, as published. padding: "same" matches a patch around every pixel (borders
    replicated); "valid" matches only patches wholly inside, stores the flow at their top-left pixel, and gives zero
    flow to the last two rows and columns.
    """
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    if padding == "same":
        query, key = (F.pad(feature, (1, 1, 1, 1), mode="replicate") for feature in (query, key))
    score, index = patch_argmax(query, key)
    flow = index_to_flow(index, key.shape[-1] - 2)
    if padding == "valid":
        flow = F.pad(flow, (0, 0, 0, 2, 0, 2))
        score = F.pad(score, (1, 1, 1, 1))
    return Correspondence(score, flow, index)


def blurred_luma(image: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of an RGB image without what the LR image cannot hold: reduced to a quarter and enlarged
    again."""
    image = image.float()  # the CPU has no antialiased interpolation of half precision
    luma = (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    small = F.interpolate(luma, scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False)
    return F.interpolate(small, scale_factor=4, mode="bicubic", antialias=True, align_corners=False)


def enlarge_flow(flow: Tensor, scale: int) -> Tensor:
    """Flow (B, h, w, 2), coarse pixels -> (B, h*scale, w*scale, 2), fine pixels: nearest repeat, times the scale."""
    return scale * flow.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def enlarge_score(score: Tensor, scale: int) -> Tensor:
    """Score (B, h, w) -> (B, 1, h*scale, w*scale), nearest."""
    return rearrange(score, "b h w -> b 1 h w").repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
