"""The CPU path of :mod:`frfsr.kernels.refine`: one grouped convolution for many blocks, each of which is a group."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels._constants import BLOCK, FLAT, MARGIN, PENALTY, SCALE

QUERIES_AT_ONCE = 1024  # bounds the memory to some 10 MB
ROWS_AT_ONCE = 256  # of the key whose blocks' deviations are computed in double precision


def steps_within(radius: int, device: torch.device | str = "cpu") -> Tensor:
    """List the steps of a search, row by row.

    Args:
        radius: of the search, in pixels of the key.
        device: where the result lies.

    Returns:
        ((2 * radius + 1)^2, 2) int64, steps (x, y) in pixels.
    """
    step = torch.arange(-radius, radius + 1, device=device)
    return rearrange(torch.stack(torch.meshgrid(step, step, indexing="xy")), "xy i j -> (i j) xy")


def pixel_grid(flow: Tensor) -> Tensor:
    """Give every position's own coordinates: (h, w, 2) as (x, y), like ``flow`` (B, h, w, 2) in dtype and device."""
    rows, columns = (torch.arange(side, device=flow.device, dtype=flow.dtype) for side in flow.shape[1:3])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)


def matched_positions(flow: Tensor, key: Tensor) -> Tensor:
    """Find the whole position in ``key`` that a flow leads to.

    Args:
        flow: (B, h, w, 2) as (x, y) in units of ``SCALE`` pixels, any value.
        key: (B, 1, H, W).

    Returns:
        (B, h, w, 2) as (x, y) in the dtype and units of ``flow``: rounded, halves upwards, and inside the key.
    """
    last = flow.new_tensor([(side - 1) // SCALE for side in (key.shape[3], key.shape[2])])
    return (pixel_grid(flow) + flow + 0.5).floor().clamp(min=0).minimum(last)


def refine_flow_cpu(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    """Search by convolutions. Arguments and result as in :func:`frfsr.kernels.refine_flow`."""
    batch, height, width, _ = flow.shape
    blocks = blocks_of(query)
    positions = matched_positions(flow, key)
    corners = SCALE * rearrange(positions, "b h w xy -> b (h w) xy").long()
    key, deviation = searched(key, radius)
    steps, side = steps_within(radius, flow.device), 2 * radius + 1
    penalty = PENALTY * torch.linalg.vector_norm(steps.to(key.dtype), dim=1)
    span = torch.arange(BLOCK + 2 * radius, device=flow.device)
    chosen = torch.empty(batch, height * width, 2, dtype=flow.dtype, device=flow.device)
    for b in range(batch):
        for first in range(0, height * width, QUERIES_AT_ONCE):
            part = slice(first, first + QUERIES_AT_ONCE)
            block = blocks[b, part]
            columns, rows = (rearrange(corners[b, part], "n xy -> xy n 1") + span).unbind()
            window = key[b, 0, rows[:, :, None], columns[:, None]]
            window = window - window.mean((1, 2), keepdim=True)  # a block's sum is 0 only up to rounding
            product = F.conv2d(window[None], block[:, None], groups=len(block))[0]
            scale = deviation[b, 0, rows[:, :side, None], columns[:, None, :side]]
            score = rearrange(product / scale, "n i j -> n (i j)")
            norm = block.square().mean((1, 2)).sqrt().clamp_min(FLAT)[:, None] * BLOCK**2
            chosen[b, part] = steps[(score / norm - penalty).argmax(1)].to(flow.dtype)
    moved = rearrange(chosen, "b (h w) xy -> b h w xy", h=height) / SCALE
    return positions + moved - pixel_grid(flow)


def blocks_of(query: Tensor) -> Tensor:
    """The block around every position of the query (B, 1, 4h, 4w), of mean 0: (B, h*w, 16, 16)."""
    blocks = F.unfold(F.pad(query, (MARGIN,) * 4, mode="replicate"), BLOCK, stride=SCALE)
    blocks = rearrange(blocks, "b (i j) n -> b n i j", i=BLOCK)
    return blocks.sub_(blocks.mean((2, 3), keepdim=True))


def searched(key: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The key (B, 1, H, W) with so much around it that every window is whole, and the deviation of each of its blocks.

    Pixel 0 of the result is the corner of the first window; a block's deviation lies at its corner.
    """
    before, after = MARGIN + radius, BLOCK - MARGIN + radius
    key = F.pad(key, (before, after, before, after), mode="replicate")
    height, width = (side - BLOCK + 1 for side in key.shape[2:])
    deviation = key.new_empty(*key.shape[:2], height, width)
    for top in range(0, height, ROWS_AT_ONCE):
        exact = key[:, :, top : top + ROWS_AT_ONCE + BLOCK - 1].double()  # the difference of two large numbers
        variance = block_means(exact.square()) - block_means(exact).square()
        deviation[:, :, top : top + ROWS_AT_ONCE] = variance.to(key.dtype).clamp_min(FLAT**2).sqrt()
    return key, deviation


def block_means(image: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 1, H - 15, W - 15): the mean of the block at each corner, down and then across."""
    return F.avg_pool2d(F.avg_pool2d(image, (BLOCK, 1), 1), (1, BLOCK), 1)


def refine_scratch(query: Tensor, key: Tensor, radius: int) -> tuple[Tensor, ...]:
    """Make tensors like those that the search holds beside its arguments and result."""
    return blocks_of(query), *searched(key, radius)
