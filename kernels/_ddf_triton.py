"""Triton kernels of :mod:`frfsr.kernels.ddf`, imported only where Triton runs."""

import torch
import triton
import triton.language as tl
from einops import rearrange
from torch import Tensor

from frfsr.kernels._dispatch import on_device_of_first
from frfsr.kernels._tensors import memory_format

# Channels and pixels of a program, long in the direction in which memory runs; and its warps.
CHANNELS_LAST_BLOCK = (64, 16, 4)
CONTIGUOUS_BLOCK = (4, 256, 4)
CHANNELS_LAST_GRADIENT_BLOCK = (16, 32, 4)  # the tiles of the gradients have a third axis, the taps
CONTIGUOUS_GRADIENT_BLOCK = (4, 128, 8)


@triton.jit
def _slot(pixel, c, pixels, channels, CHANNELS_LAST: tl.constexpr):
    """Offset of (pixel, channel) within an image; images may exceed 2^31 elements, though not pixels."""
    if CHANNELS_LAST:
        return pixel.to(tl.int64) * channels + c
    return c.to(tl.int64) * pixels + pixel


@triton.jit
def _tap_statistics(spatial, pixel, inside, pixels, TAPS: tl.constexpr):
    """Mean and unbiased deviation + 1e-10 over the taps of each pixel's filter.

    The mean is taken of the differences to the first tap: an inexact division would leave a constant filter a deviation
    of rounding errors, by which they would be divided.
    """
    first = tl.load(spatial + pixel, mask=inside, other=0.0).to(tl.float32)
    mean = tl.zeros(pixel.shape, tl.float32)
    for k in tl.static_range(TAPS):
        mean += tl.load(spatial + k * pixels + pixel, mask=inside, other=0.0).to(tl.float32) - first
    mean = first + mean / TAPS
    variance = tl.zeros(pixel.shape, tl.float32)
    for k in tl.static_range(TAPS):
        centred = tl.load(spatial + k * pixels + pixel, mask=inside, other=0.0).to(tl.float32) - mean
        variance += centred * centred
    return mean, tl.sqrt(variance / (TAPS - 1)) + 1e-10


@triton.jit
def filter_kernel(
    x,  # (B, C, H, W), contiguous or channels-last
    channel,  # (B, k*k, C)
    spatial,  # (B, k*k, H*W)
    scale,  # (k*k,) of the filter normalisation, or None
    shift,  # (k*k,) likewise
    out,  # like x
    height,
    width,
    ALL_CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One block of channels of one block of pixels.

    ``TRANSPOSED`` spreads where the forward gathers, written as a gather too: tap d reads value and filter at p - d.
    """
    TAPS: tl.constexpr = SIDE * SIDE
    batch = tl.program_id(2).to(tl.int64)
    pixels = height * width
    x += batch * ALL_CHANNELS * pixels
    out += batch * ALL_CHANNELS * pixels
    channel += batch * ALL_CHANNELS * TAPS
    spatial += batch * TAPS * pixels

    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = pixel // width
    column = pixel % width
    inside = pixel < pixels
    if scale is not None:
        mean, deviation = _tap_statistics(spatial, pixel, inside, pixels, TAPS)

    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for k in tl.static_range(TAPS):
        down = k // SIDE - SIDE // 2
        right = k % SIDE - SIDE // 2
        if TRANSPOSED:
            down = -down
            right = -right
        valid = inside & (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        neighbour = pixel + down * width + right
        values = tl.load(
            x + _slot(neighbour[:, None], c[None, :], pixels, ALL_CHANNELS, CHANNELS_LAST),
            mask=valid[:, None] & (c < ALL_CHANNELS)[None, :],
            other=0.0,
        )
        pixel_filter = tl.load(spatial + k * pixels + (neighbour if TRANSPOSED else pixel), mask=valid, other=0.0).to(
            tl.float32
        )
        if scale is not None:
            pixel_filter = (pixel_filter - mean) / deviation * tl.load(scale + k) + tl.load(shift + k)
        channel_filter = tl.load(channel + k * ALL_CHANNELS + c, mask=c < ALL_CHANNELS, other=0.0).to(tl.float32)
        total += values.to(tl.float32) * pixel_filter[:, None] * channel_filter[None, :]
    tl.store(
        out + _slot(pixel[:, None], c[None, :], pixels, ALL_CHANNELS, CHANNELS_LAST),
        total.to(out.dtype.element_ty),
        mask=inside[:, None] & (c < ALL_CHANNELS)[None, :],
    )


@triton.jit
def filter_gradient_kernel(
    grad,  # (B, C, H, W), contiguous or channels-last
    x,  # like grad
    channel,  # (B, C, k*k)
    spatial,  # (B, k*k, H*W)
    grad_channel,  # (B, pixel blocks, C, k*k) float32, one partial sum per program
    grad_spatial,  # (B, k*k, H*W)
    height,
    width,
    ALL_CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PADDED_TAPS: tl.constexpr,  # power of two
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Gradients of both filters for one block of pixels, looping over the channels: every sum has one owner."""
    TAPS: tl.constexpr = SIDE * SIDE
    batch = tl.program_id(1).to(tl.int64)
    pixels = height * width
    x += batch * ALL_CHANNELS * pixels
    grad += batch * ALL_CHANNELS * pixels
    channel += batch * ALL_CHANNELS * TAPS
    spatial += batch * TAPS * pixels
    grad_spatial += batch * TAPS * pixels
    grad_channel += (batch * tl.num_programs(0) + tl.program_id(0)) * ALL_CHANNELS * TAPS

    tap = tl.arange(0, PADDED_TAPS)
    down = tap // SIDE - SIDE // 2
    right = tap % SIDE - SIDE // 2
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    row = (pixel // width)[None, :] + down[:, None]
    column = (pixel % width)[None, :] + right[:, None]
    real = (tap < TAPS)[:, None] & (pixel < pixels)[None, :]
    valid = real & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    neighbour = row * width + column

    pixel_filter = tl.load(spatial + tap[:, None] * pixels + pixel[None, :], mask=real, other=0.0).to(tl.float32)
    spatial_total = tl.zeros((PADDED_TAPS, BLOCK_P), tl.float32)
    for start in range(0, ALL_CHANNELS, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        values = tl.load(
            x + _slot(neighbour[:, :, None], c[None, None, :], pixels, ALL_CHANNELS, CHANNELS_LAST),
            mask=valid[:, :, None] & (c < ALL_CHANNELS)[None, None, :],
            other=0.0,
        )
        gradient = tl.load(
            grad + _slot(pixel[:, None], c[None, :], pixels, ALL_CHANNELS, CHANNELS_LAST),
            mask=(pixel < pixels)[:, None] & (c < ALL_CHANNELS)[None, :],
            other=0.0,
        )
        product = values.to(tl.float32) * gradient.to(tl.float32)[None, :, :]
        filter_slot = c[None, :] * TAPS + tap[:, None]
        filter_valid = (tap < TAPS)[:, None] & (c < ALL_CHANNELS)[None, :]
        channel_filter = tl.load(channel + filter_slot, mask=filter_valid, other=0.0).to(tl.float32)
        spatial_total += tl.sum(product * channel_filter[:, None, :], axis=2)
        channel_part = tl.sum(product * pixel_filter[:, :, None], axis=1)
        tl.store(grad_channel + filter_slot, channel_part, mask=filter_valid)
    tl.store(
        grad_spatial + tap[:, None] * pixels + pixel[None, :],
        spatial_total.to(grad_spatial.dtype.element_ty),
        mask=real,
    )


@on_device_of_first
def filter_pixels(
    x: Tensor,
    channel: Tensor,
    spatial: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    transposed: bool = False,
) -> Tensor:
    """Launch :func:`filter_kernel`; arguments as for :func:`frfsr.kernels.dynamic_filter`.

    `scale` and `shift` (k*k,) normalise the spatial filter on the way; `transposed` gives the gradient of the input.
    """
    layout = memory_format(x)
    channels_last = layout == torch.channels_last
    x = x.contiguous(memory_format=layout)
    batch, channels, height, width = x.shape
    out = torch.empty_like(x)
    block_c, block_p, num_warps = CHANNELS_LAST_BLOCK if channels_last else CONTIGUOUS_BLOCK
    grid = (triton.cdiv(height * width, block_p), triton.cdiv(channels, block_c), batch)
    filter_kernel[grid](
        x,
        rearrange(channel, "b c i j -> b (i j) c").contiguous(),  # neighbouring channels in one load
        spatial.contiguous(),
        scale,
        shift,
        out,
        height,
        width,
        ALL_CHANNELS=channels,
        SIDE=channel.shape[-1],
        CHANNELS_LAST=channels_last,
        TRANSPOSED=transposed,
        BLOCK_C=block_c,
        BLOCK_P=block_p,
        num_warps=num_warps,
    )
    return out


@on_device_of_first
def filter_gradients(grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor]:
    """Launch :func:`filter_gradient_kernel`: gradients of channel and spatial; arguments as for the CPU's form."""
    layout = memory_format(x)
    channels_last = layout == torch.channels_last
    x, grad = x.contiguous(memory_format=layout), grad.contiguous(memory_format=layout)
    batch, channels, height, width = x.shape
    taps = channel.shape[-1] ** 2
    block_c, block_p, num_warps = CHANNELS_LAST_GRADIENT_BLOCK if channels_last else CONTIGUOUS_GRADIENT_BLOCK
    blocks = triton.cdiv(height * width, block_p)
    grad_channel = torch.empty(batch, blocks, channels, taps, dtype=torch.float32, device=x.device)
    grad_spatial = torch.empty_like(spatial, memory_format=torch.contiguous_format)
    filter_gradient_kernel[(blocks, batch)](
        grad,
        x,
        channel.contiguous(),
        spatial.contiguous(),
        grad_channel,
        grad_spatial,
        height,
        width,
        ALL_CHANNELS=channels,
        SIDE=channel.shape[-1],
        CHANNELS_LAST=channels_last,
        PADDED_TAPS=triton.next_power_of_2(taps),
        BLOCK_C=block_c,
        BLOCK_P=block_p,
        num_warps=num_warps,
    )
    return grad_channel.sum(1).view_as(channel).to(channel.dtype), grad_spatial
