"""A flow that is continuous where matches agree (not in the paper).

A match is a displacement of a whole LR pixel (a quarter of one after `frfsr.kernels.refine_flow`), and repeated for all
the finer pixels it tears the reference's features at every border of an LR pixel, unless the reference shows the
content at just the photo's scale. Where neighbours follow the same piece of the reference, what lies between them does
so too.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels._deform_geometry import tap_views

AGREEMENT = 1.5  # LR pixels along each axis: a zoom of 0.4 to 2.5 parts neighbours by no more
ROUNDS = 4  # of averaging: what is left of the rounding to quarter pixels is small


def smooth_flow(flow: Tensor) -> Tensor:
    """Average each displacement with those of its eight neighbours that agree with it, four times.

    Args:
        flow: (B, h, w, 2) as (x, y), LR pixels.

    Returns:
        The same shape; displacements with which no neighbour agrees stay what they are.
    """
    agrees, smooth, evenly = agreement(flow), flow, flow.new_ones(9, 1)
    for _ in range(ROUNDS):
        smooth = averaged(smooth, agrees, evenly)[..., 0, :]
    return smooth


def interpolate_flow(smooth: Tensor, flow: Tensor, scale: int) -> Tensor:
    """Enlarge a smooth flow: bilinear between neighbours that agree, repeated between others.

    Args:
        smooth: what `smooth_flow` makes of `flow`.
        flow: (B, h, w, 2) as (x, y), LR pixels.
        scale: how many finer pixels an LR pixel has along each axis.

    Returns:
        (B, h*scale, w*scale, 2), finer pixels.
    """
    inside = (torch.arange(scale, device=flow.device, dtype=flow.dtype) + 0.5) / scale - 0.5
    step = torch.arange(-1, 2, device=flow.device, dtype=flow.dtype)
    share = (1 - (inside - step[:, None]).abs()).clamp(min=0)  # of each neighbour along one axis
    shares = rearrange(share, "down i -> down 1 i 1") * rearrange(share, "right j -> 1 right 1 j")
    fine = averaged(smooth, agreement(flow), rearrange(shares, "down right i j -> (down right) (i j)"))
    return scale * rearrange(fine, "b h w (i j) xy -> b (h i) (w j) xy", i=scale)


def agreement(flow: Tensor) -> Tensor:
    """Which of the 3x3 neighbours of each position agree with it, 1 or 0: (B, 9, h, w), row by row; of (B, h, w, 2)."""
    return ((neighbours(flow) - flow[:, None]).abs().amax(-1) <= AGREEMENT).to(flow.dtype)


def averaged(flow: Tensor, agrees: Tensor, shares: Tensor) -> Tensor:
    """Weighted means of each displacement and those of its neighbours that agree with it.

    Args:
        flow: (B, h, w, 2).
        agrees: see `agreement`.
        shares: of the 3x3 neighbours, row by row, in each of n means: (9, n).

    Returns:
        (B, h, w, n, 2).
    """
    weights = agrees[..., None] * rearrange(shares, "near n -> near 1 1 n")
    # Not by einsum: autocast would compute it, and so the places in the reference, in half precision.
    total = (rearrange(neighbours(flow), "b near h w xy -> b near h w 1 xy") * weights[..., None]).sum(1)
    return total / weights.sum(1)[..., None]


def neighbours(flow: Tensor) -> Tensor:
    """The 3x3 around each position of (B, h, w, 2), row by row, borders replicated: (B, 9, h, w, 2)."""
    height, width = flow.shape[1:3]
    padded = F.pad(rearrange(flow, "b h w xy -> b xy h w"), (1, 1, 1, 1), mode="replicate")
    near = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return rearrange(near, "near b xy h w -> b near h w xy")


def smooth_taps(flow: Tensor, fine: Tensor, scale: int) -> Tensor:
    """What brings the taps of `frfsr.kernels.deform_conv` from the repeated flow to the smooth one.

    A tap follows the match of a neighbouring LR pixel. If that agrees with the own one, it follows the neighbouring
    finer pixel's instead.

    Args:
        flow: (B, h, w, 2) as (x, y), LR pixels, which the operation is given, with "same" padding.
        fine: the smooth flow, (B, h*scale, w*scale, 2), finer pixels.
        scale: finer pixels of an LR pixel along each axis.

    Returns:
        To be added to the offsets: (B, 9*2, h*scale, w*scale), finer pixels, as [tap, (y, x)].
    """
    coarse = tap_views(flow, "same")
    height, width = flow.shape[1:3]
    changes = fine.new_empty(len(fine), len(coarse), 2, height, scale, width, scale)
    for tap, smooth in enumerate(tap_views(fine, "same")):  # all at once take several times the memory
        agrees = (coarse[tap] - coarse[4]).abs().amax(1, keepdim=True) <= AGREEMENT
        smooth = rearrange(smooth, "b yx (h i) (w j) -> b yx h i w j", i=scale, j=scale)
        repeated, agrees = (rearrange(of_tap, "b yx h w -> b yx h 1 w 1") for of_tap in (coarse[tap], agrees))
        changes[:, tap] = (smooth - scale * repeated) * agrees
    return rearrange(changes, "b tap yx h i w j -> b (tap yx) (h i) (w j)")
