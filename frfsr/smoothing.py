"""A flow that is continuous where matches agree (not in the paper).

A match is a displacement of a whole LR pixel (a quarter of one after `frfsr.kernels.refine_flow`), and repeated for all
the finer pixels it tears the reference's features at every border of an LR pixel, unless the reference shows the
content at just the photo's scale. Where neighbours follow the same piece of the reference, what lies between them does
so too. Neighbours are those that the taps of `frfsr.kernels.deform_conv` follow, and in their order.
"""

import torch
from einops import rearrange
from torch import Tensor

from frfsr.kernels._deform_geometry import tap_flows, tap_views

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
    step = torch.arange(1, -2, -1, device=flow.device, dtype=flow.dtype)
    share = (1 - (inside - step[:, None]).abs()).clamp(min=0)  # of each neighbour along one axis
    shares = rearrange(share, "down i -> down 1 i 1") * rearrange(share, "right j -> 1 right 1 j")
    fine = averaged(smooth, agreement(flow), rearrange(shares, "down right i j -> (down right) (i j)"))
    return scale * rearrange(fine, "b h w (i j) xy -> b (h i) (w j) xy", i=scale)


def agreement(flow: Tensor) -> Tensor:
    """Whether the neighbour that each tap follows agrees with a position: (B, 9, h, w); flow (B, h, w, 2)."""
    near = tap_flows(flow, "same")
    return (near - near[:, 4:5]).abs().amax(2) <= AGREEMENT


def averaged(flow: Tensor, agrees: Tensor, shares: Tensor) -> Tensor:
    """Weighted means of each displacement and those of its neighbours that agree with it.

    Args:
        flow: (B, h, w, 2).
        agrees: see `agreement`.
        shares: of the neighbours in each of n means, (9, n).

    Returns:
        (B, h, w, n, 2).
    """
    weights = agrees[..., None] * rearrange(shares, "near n -> near 1 1 n")
    # Not by einsum: autocast would compute it, and so the places in the reference, in half precision.
    total = (rearrange(tap_flows(flow, "same"), "b near yx h w -> b near h w 1 yx") * weights[..., None]).sum(1)
    return (total / weights.sum(1)[..., None]).flip(-1)


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
    height, width = flow.shape[1:3]
    repeated = rearrange(scale * tap_flows(flow, "same"), "b tap yx h w -> b tap yx h 1 w 1")
    agrees = rearrange(agreement(flow), "b tap h w -> b tap 1 h 1 w 1")
    changes = fine.new_empty(len(fine), 9, 2, height, scale, width, scale)
    for tap, smooth in enumerate(tap_views(fine, "same")):  # in place: copies take several times the memory
        smooth = rearrange(smooth, "b yx (h i) (w j) -> b yx h i w j", i=scale, j=scale)
        changes[:, tap].copy_(smooth).sub_(repeated[:, tap]).mul_(agrees[:, tap])
    return rearrange(changes, "b tap yx h i w j -> b (tap yx) (h i) (w j)")
