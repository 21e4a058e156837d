"""The CPU path of :mod:`frfsr.kernels.refine`: one grouped convolution for many blocks, each of which is a group."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels._constants import BLOCK, FLAT, MARGIN, PENALTY, SCALE

QUERIES_AT_ONCE = 1024  # bounds the memory to some 40 MB


def steps_within(radius: int, device: torch.device | str = "cpu") -> Tensor:
    """List the steps of a search, row by row.

    Args:
        radius: of the search, in pixels.
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


def pixels_around(side: int, like: Tensor) -> Tensor:
    """The pixels of a square, seen from its middle: (side, side, 2) as (x, y), in dtype and device of ``like``."""
    span = torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2
    return torch.stack(torch.meshgrid(span, span, indexing="xy"), dim=-1)


def transformed(step: Tensor, similarity: Tensor) -> Tensor:
    """Where steps (..., 2) as (x, y) from a position lead from its match: (a x - b y, b x + a y); (a, b) (..., 2)."""
    (x, y), (a, b) = step.unbind(-1), similarity.unbind(-1)
    return torch.stack([a * x - b * y, b * x + a * y], dim=-1)


def sampled(image: Tensor, places: Tensor) -> Tensor:
    """The pixels of an image (H, W) nearest to places (..., 2) as (x, y), borders replicated: (...)."""
    last = places.new_tensor([image.shape[1] - 1, image.shape[0] - 1])
    columns, rows = (places + 0.5).floor().clamp(min=0).minimum(last).long().unbind(-1)
    return image[rows, columns]


def refine_flow_cpu(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> Tensor:
    """Search by convolutions. Arguments and result as in :func:`frfsr.kernels.refine_flow`."""
    batch, height, width, _ = flow.shape
    key = key.contiguous()
    blocks = blocks_of(query)
    positions = matched_positions(flow, key)
    centres, similarities = (
        rearrange(each, "b h w xy -> b xy (h w) 1 1") for each in (SCALE * positions + (SCALE - 1) / 2, similarity)
    )
    steps = steps_within(radius, flow.device)
    penalty = PENALTY * torch.linalg.vector_norm(steps.to(key.dtype), dim=1)
    chosen = torch.empty(batch, height * width, 2, dtype=flow.dtype, device=flow.device)
    for b in range(batch):
        for first in range(0, height * width, QUERIES_AT_ONCE):
            part = slice(first, first + QUERIES_AT_ONCE)
            block = blocks[b, part]
            window = windows(key[b, 0], centres[b, :, part], similarities[b, :, part], BLOCK + 2 * radius)
            window -= window.mean((1, 2), keepdim=True)  # a block's sum is 0 only up to rounding
            product = F.conv2d(window[None], block[:, None], groups=len(block))[0]
            score = rearrange(product / deviations(window), "n i j -> n (i j)")
            norm = block.square().mean((1, 2)).sqrt().clamp_min(FLAT)[:, None] * BLOCK**2
            chosen[b, part] = steps[(score / norm - penalty).argmax(1)].to(flow.dtype)
    moved = transformed(rearrange(chosen, "b (h w) xy -> b h w xy", h=height), similarity) / SCALE
    return positions + moved - pixel_grid(flow)


def windows(image: Tensor, centres: Tensor, similarities: Tensor, side: int) -> Tensor:
    """`sampled` at `transformed` squares of image (H, W), axis by axis and in place: it is half of the time.

    Args:
        image: (H, W).
        centres: (2, n, 1, 1), of the squares, as (x, y).
        similarities: (2, n, 1, 1), theirs as (a, b).
        side: of the squares.

    Returns:
        (n, side, side).
    """
    right = pixels_around(side, centres)[0, :, 0]
    down = right[:, None]
    (x, y), (a, b) = centres, similarities
    columns = ((x + 0.5 + a * right) - b * down).clamp_(0, image.shape[1] - 1).int()
    rows = ((y + 0.5 + b * right) + a * down).clamp_(0, image.shape[0] - 1).int()
    numbers = rows.mul_(image.shape[1]).add_(columns)
    return image.reshape(-1).index_select(0, numbers.flatten()).reshape(numbers.shape)


def blocks_of(query: Tensor) -> Tensor:
    """The block around every position of the query (B, 1, 4h, 4w), of mean 0: (B, h*w, 16, 16)."""
    blocks = F.unfold(F.pad(query, (MARGIN,) * 4, mode="replicate"), BLOCK, stride=SCALE)
    blocks = rearrange(blocks, "b (i j) n -> b n i j", i=BLOCK)
    return blocks.sub_(blocks.mean((2, 3), keepdim=True))


def deviations(window: Tensor) -> Tensor:
    """The deviation of every block of windows (n, side, side), at least `FLAT`: (n, side - 15, side - 15)."""
    exact = window.double()  # the difference of two large numbers
    side = window.shape[-1]
    means = exact.new_ones(side - BLOCK + 1, side).triu_().tril_(BLOCK - 1) / BLOCK
    variance = means @ exact.square() @ means.T - (means @ exact @ means.T).square()
    return variance.to(window.dtype).clamp_min(FLAT**2).sqrt()


def refine_scratch(query: Tensor, radius: int) -> tuple[Tensor, ...]:
    """Make tensors like those that the search holds beside its arguments and result."""
    blocks = blocks_of(query)
    return blocks, query.new_empty(min(QUERIES_AT_ONCE, blocks.shape[1]), 16, *[BLOCK + 2 * radius] * 2)
