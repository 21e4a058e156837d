"""Triton kernel and launcher of :mod:`frfsr.kernels.refine`, imported only where Triton runs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from frfsr.kernels._constants import BLOCK, FLAT, PENALTY, SCALE
from frfsr.kernels._dispatch import on_device_of_first

CONSTANTS = dict(BLOCK=BLOCK, SCALE=SCALE, FLAT=FLAT, PENALTY=PENALTY)
NUM_WARPS = 1  # eight pixels of a block per thread, and sums that need no shared memory


@triton.jit
def _standardised(image, x, y, a, b, right, down, height, width, BLOCK: tl.constexpr, FLAT: tl.constexpr):
    """The block around (right, down) from (x, y), turned by (a, b), borders replicated: (BLOCK * BLOCK,)."""
    pixel = tl.arange(0, BLOCK * BLOCK)
    across = pixel % BLOCK - (BLOCK - 1) / 2 + right
    along = pixel // BLOCK - (BLOCK - 1) / 2 + down
    column = tl.floor(x + (a * across - b * along) + 0.5)
    row = tl.floor(y + (b * across + a * along) + 0.5)
    # Clamped before conversion to integers, which would overflow.
    column = tl.minimum(tl.maximum(column, 0.0), width - 1.0).to(tl.int64)
    row = tl.minimum(tl.maximum(row, 0.0), height - 1.0).to(tl.int64)
    value = tl.load(image + row * width + column)
    value -= tl.sum(value, axis=0) / (BLOCK * BLOCK)  # of mean 0 and deviation 1
    return value / tl.maximum(tl.sqrt_rn(tl.sum(value * value, axis=0) / (BLOCK * BLOCK)), FLAT)


@triton.jit
def refine_kernel(
    flow,  # (B, h, w, 2) float32
    query,  # (B, SCALE * h, SCALE * w) float32
    key,  # (B, H, W) float32
    similarity,  # like flow
    refined,  # like flow
    height,
    width,
    key_height,
    key_width,
    radius,
    BLOCK: tl.constexpr,
    SCALE: tl.constexpr,
    FLAT: tl.constexpr,
    PENALTY: tl.constexpr,
):
    """One position of the flow."""
    place = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    row, column = place // width, place % width
    query += batch * SCALE * height * SCALE * width
    key += batch * key_height * key_width
    slot = 2 * (batch * height * width + place)
    a = tl.load(similarity + slot)
    b = tl.load(similarity + slot + 1)

    middle: tl.constexpr = (SCALE - 1) / 2
    own = _standardised(
        query,
        SCALE * column + middle,
        SCALE * row + middle,
        1.0,
        0.0,
        0,
        0,
        SCALE * height,
        SCALE * width,
        BLOCK,
        FLAT,
    )
    x = tl.minimum(tl.maximum(tl.floor(column + tl.load(flow + slot) + 0.5), 0.0), (key_width - 1) // SCALE)
    y = tl.minimum(tl.maximum(tl.floor(row + tl.load(flow + slot + 1) + 0.5), 0.0), (key_height - 1) // SCALE)

    best = -float("inf")
    step_x = 0.0
    step_y = 0.0
    side = 2 * radius + 1
    for step in range(0, side * side):
        down = step // side - radius
        right = step % side - radius
        other = _standardised(
            key, SCALE * x + middle, SCALE * y + middle, a, b, right, down, key_height, key_width, BLOCK, FLAT
        )
        score = tl.sum(own * other, axis=0) / (BLOCK * BLOCK) - PENALTY * tl.sqrt_rn(
            1.0 * (down * down + right * right)
        )
        better = score > best
        best = tl.where(better, score, best)
        step_x = tl.where(better, 1.0 * right, step_x)
        step_y = tl.where(better, 1.0 * down, step_y)
    tl.store(refined + slot, x + (a * step_x - b * step_y) / SCALE - column)
    tl.store(refined + slot + 1, y + (b * step_x + a * step_y) / SCALE - row)


@on_device_of_first
def refine_flow_triton(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> Tensor:
    """Launch the kernel; arguments as for :func:`frfsr.kernels.refine_flow`, query and key in float32."""
    refined = torch.empty_like(flow, dtype=torch.float32, memory_format=torch.contiguous_format)
    refine_kernel[(flow.shape[1] * flow.shape[2], len(flow))](
        flow.float().contiguous(),
        query.contiguous(),
        key.contiguous(),
        similarity.float().contiguous(),
        refined,
        *flow.shape[1:3],
        *key.shape[2:],
        radius,
        **CONSTANTS,
        num_warps=NUM_WARPS,
    )
    return refined.to(flow.dtype)
