"""What comes before and after the search of :mod:`frfsr.kernels._match_triton`, in a few launches.

Small operators one by one would cost more time to launch than the search takes on a large GPU.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from frfsr.kernels._constants import EPSILON, EXPONENT_LIMIT

BORDER = 2  # of a 3x3 patch
PIXELS = 32  # of a program
MOST_CHANNELS = 64  # of a step
BLOCK = 256  # patches of a program
LOWEST = torch.iinfo(torch.int64).min  # what `best` holds where no patch was met


@triton.jit
def _power_of_two(peak, LIMIT: tl.constexpr):
    """The factor that brings the largest magnitude, given by its bits, to about 1; 1 for an image of zeros."""
    bits = tl.load(peak)
    exponent = tl.minimum(tl.maximum((bits >> 23) - 126, -LIMIT), LIMIT)
    return tl.where(bits == 0, 1.0, ((127 - exponent) << 23).to(tl.float32, bitcast=True))


@triton.jit
def _patch_scale(energy, peak, batch, row, column, height, width, EPS: tl.constexpr, LIMIT: tl.constexpr):
    """1 / (norm + epsilon) of the patch at (row, column); 0 outside and if it holds a number that is not finite."""
    inside = (row < height - 2) & (column < width - 2)
    energy += batch * height * width
    total = tl.zeros(row.shape, tl.float32)
    for k in tl.static_range(9):
        total += tl.load(energy + (row + k // 3).to(tl.int64) * width + column + k % 3, mask=inside, other=0.0)
    scale = 1 / (tl.sqrt_rn(total) + EPS * _power_of_two(peak + batch, LIMIT))
    return tl.where(inside & (total == total), scale, 0.0)


@triton.jit
def peak_kernel(
    feature,  # (B, H, W, C)
    energy,  # (B, H, W) float32: NaN where a channel is not finite, else 0
    peak,  # (B,) int32, zeros: bits of the largest magnitude of the other pixels
    pixels,
    CHANNELS: tl.constexpr,
    STEP: tl.constexpr,
    PIXELS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < pixels
    image = feature + (batch * pixels + pixel)[:, None] * CHANNELS
    largest = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, CHANNELS, STEP):
        channel = start + tl.arange(0, STEP)[None, :]
        value = tl.load(image + channel, mask=inside[:, None] & (channel < CHANNELS), other=0.0).to(tl.float32)
        magnitude = tl.where(value == value, tl.abs(value), float("inf"))
        largest = tl.maximum(largest, tl.max(magnitude, axis=1))
    finite = largest < float("inf")
    tl.store(energy + batch * pixels + pixel, tl.where(finite, 0.0, float("nan")), mask=inside)
    tl.atomic_max(peak + batch, tl.max(tl.where(finite, largest, 0.0), axis=0).to(tl.int32, bitcast=True))


@triton.jit
def pack_kernel(
    feature,  # (B, H, W, C)
    peak,  # (B,)
    energy,  # (B, H, W): from NaN or 0 to NaN or the sum of the squares of the packed pixel
    packed,  # (B, H, packed width, packed channels)
    height,
    width,
    packed_width,
    CHANNELS: tl.constexpr,
    PACKED_CHANNELS: tl.constexpr,
    STEP: tl.constexpr,
    PIXELS: tl.constexpr,
    LIMIT: tl.constexpr,
):
    """Scale the pixels, with zeros for those that are not finite and for the padding."""
    batch = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // packed_width, pixel % packed_width
    real = (row < height) & (column < width)
    source = (batch * height + row) * width + column
    finite = tl.load(energy + source, mask=real, other=0.0) == 0
    factor = _power_of_two(peak + batch, LIMIT)
    target = packed + (batch * height * packed_width + pixel)[:, None] * PACKED_CHANNELS
    total = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, PACKED_CHANNELS, STEP):
        channel = start + tl.arange(0, STEP)[None, :]
        known = (real & finite)[:, None] & (channel < CHANNELS)
        value = tl.load(feature + source[:, None] * CHANNELS + channel, mask=known, other=0.0).to(tl.float32) * factor
        value = value.to(packed.dtype.element_ty)
        tl.store(target + channel, value, mask=(row < height)[:, None])
        total += tl.sum(value.to(tl.float32) * value.to(tl.float32), axis=1)
    tl.store(energy + source, tl.where(finite, total, float("nan")), mask=real)


@triton.jit
def scale_kernel(
    energy,  # (B, H, W)
    peak,  # (B,)
    scale,  # (B, H - 2, scale width)
    height,
    width,
    scale_width,
    EPS: tl.constexpr,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """1 / (norm + epsilon) of every patch; 0 where the patch may not be matched and in the padding."""
    batch = tl.program_id(1).to(tl.int64)
    patch = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = patch // scale_width, patch % scale_width
    value = _patch_scale(energy, peak, batch, row, column, height, width, EPS, LIMIT)
    tl.store(scale + batch * (height - 2) * scale_width + patch, value, mask=row < height - 2)


@triton.jit
def unpack_kernel(
    best,  # (B, H - 2, W - 2) int64, see match_kernel
    energy,  # (B, H, W) of the query
    peak,  # (B,)
    score,  # (B, H - 2, W - 2) float32
    index,  # (B, H - 2, W - 2) int64
    height,
    width,
    EPS: tl.constexpr,
    LIMIT: tl.constexpr,
    LOWEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scores from order-preserving bits, times the query's scale; NaN and 0 where nothing was or may be matched."""
    batch = tl.program_id(1).to(tl.int64)
    patch = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = patch // (width - 2), patch % (width - 2)
    inside = row < height - 2
    scale = _patch_scale(energy, peak, batch, row, column, height, width, EPS, LIMIT)
    slot = batch * (height - 2) * (width - 2) + patch
    packed = tl.load(best + slot, mask=inside, other=LOWEST)
    ordered = (packed >> 32).to(tl.int32)
    value = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    missing = (packed == LOWEST) | (scale == 0)
    tl.store(score + slot, tl.where(missing, float("nan"), value * scale), mask=inside)
    tl.store(index + slot, tl.where(missing, 0, 0xFFFFFFFF - (packed & 0xFFFFFFFF)), mask=inside)


class Prepared(NamedTuple):
    """An image as the search takes it."""

    pixels: Tensor  # (B, H, width, channels): padded with zeros, each image scaled by a power of two
    energy: Tensor  # (B, H, W) float32: of the scaled pixels, NaN where a channel was not finite
    peak: Tensor  # (B,) int32: bits of the largest magnitude, which gives the power of two


def prepare_triton(feature: Tensor, width: int, channels: int) -> Prepared:
    """Pack (B, C, H, W) into (B, H, width, channels); ``channels`` is a multiple of 16."""
    feature = feature.contiguous(memory_format=torch.channels_last)
    batch, own_channels, height, own_width = feature.shape
    pixels = feature.new_empty(batch, height, width, channels)
    energy = torch.empty(batch, height, own_width, dtype=torch.float32, device=feature.device)
    peak = torch.zeros(batch, dtype=torch.int32, device=feature.device)
    step = min(MOST_CHANNELS, channels & -channels)
    common = dict(CHANNELS=own_channels, STEP=step, PIXELS=PIXELS)
    peak_kernel[(triton.cdiv(height * own_width, PIXELS), batch)](feature, energy, peak, height * own_width, **common)
    pack_kernel[(triton.cdiv(height * width, PIXELS), batch)](
        *(feature, peak, energy, pixels, height, own_width, width),
        PACKED_CHANNELS=channels,
        LIMIT=EXPONENT_LIMIT,
        **common,
    )
    return Prepared(pixels, energy, peak)


def patch_scales(prepared: Prepared, width: int) -> Tensor:
    """1 / (norm + epsilon) of every patch, (B, H - 2, width): 0 beyond the last patch and where none may be matched."""
    batch, height, own_width = prepared.energy.shape
    scale = torch.empty(batch, height - BORDER, width, dtype=torch.float32, device=prepared.energy.device)
    scale_kernel[(triton.cdiv((height - BORDER) * width, BLOCK), batch)](
        *(prepared.energy, prepared.peak, scale, height, own_width, width),
        EPS=EPSILON,
        LIMIT=EXPONENT_LIMIT,
        BLOCK=BLOCK,
    )
    return scale


def unpack(best: Tensor, query: Prepared) -> tuple[Tensor, Tensor]:
    """Score and index as documented for :func:`frfsr.kernels.patch_argmax`."""
    batch, height, width = query.energy.shape
    score, index = torch.empty_like(best, dtype=torch.float32), torch.empty_like(best)
    unpack_kernel[(triton.cdiv(best[0].numel(), BLOCK), batch)](
        *(best, query.energy, query.peak, score, index, height, width),
        EPS=EPSILON,
        LIMIT=EXPONENT_LIMIT,
        LOWEST=LOWEST,
        BLOCK=BLOCK,
    )
    return score, index
