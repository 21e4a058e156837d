"""Triton kernels of :mod:`frfsr.kernels.warp`, imported only where Triton runs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from frfsr.kernels._dispatch import on_device_of_first
from frfsr.kernels._tensors import memory_format

CHANNELS_LAST_BLOCK = (64, 16)  # (channels, pixels): rows of channels are what lies together in memory
CONTIGUOUS_BLOCK = (8, 128)  # twice as many pixels spill in the backward kernel under triton 3.8


@triton.jit
def _corners(flow, pixel, valid, out_width, height, width):
    """Left column, upper row and fractions of the positions sampled by ``pixel`` + flow; -2 and 0 if far outside."""
    fx = tl.load(flow + 2 * pixel.to(tl.int64), mask=valid, other=0.0) + (pixel % out_width).to(tl.float32)
    fy = tl.load(flow + 2 * pixel.to(tl.int64) + 1, mask=valid, other=0.0) + (pixel // out_width).to(tl.float32)
    left, upper = tl.floor(fx), tl.floor(fy)
    # Before conversion to integers, which would overflow.
    near = valid & (left >= -1) & (left < width) & (upper >= -1) & (upper < height)
    return (
        tl.where(near, left, -2.0).to(tl.int32),
        tl.where(near, upper, -2.0).to(tl.int32),
        tl.where(near, fx - left, 0.0),
        tl.where(near, fy - upper, 0.0),
    )


@triton.jit
def _channels_and_pixels(CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """Index tiles of this program's channels and pixels; the axis that is dense in memory comes last."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    if CHANNELS_LAST:
        return channel[None, :], pixel[:, None]
    else:
        return channel[:, None], pixel[None, :]


@triton.jit
def warp_kernel(
    feature,  # (B, C, h, w), or (B, h, w, C) with CHANNELS_LAST
    flow,  # (B, H, W, 2) float32
    out,  # (B, C, H, W) in the order of feature
    channels,
    height,
    width,
    out_width,
    out_pixels,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    batch = tl.program_id(2).to(tl.int64)
    feature += batch * channels * height * width
    out += batch * channels * out_pixels
    flow += batch * out_pixels * 2
    channel, pixel = _channels_and_pixels(CHANNELS_LAST, BLOCK_C, BLOCK_P)
    left, upper, dx, dy = _corners(flow, pixel, pixel < out_pixels, out_width, height, width)

    total = tl.zeros((channel + pixel).shape, tl.float32)
    for corner in tl.static_range(4):
        x, y = left + corner % 2, upper + corner // 2
        weight = (dx if corner % 2 else 1 - dx) * (dy if corner // 2 else 1 - dy)
        # A pixel of weight 0 is not read: a flow of whole numbers costs one read instead of four.
        read = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (weight > 0) & (channel < channels)
        position = y.to(tl.int64) * width + x
        offset = position * channels + channel if CHANNELS_LAST else channel.to(tl.int64) * height * width + position
        total += weight * tl.load(feature + offset, mask=read, other=0.0).to(tl.float32)
    offset = pixel.to(tl.int64) * channels + channel if CHANNELS_LAST else channel.to(tl.int64) * out_pixels + pixel
    tl.store(out + offset, total.to(out.dtype.element_ty), mask=(pixel < out_pixels) & (channel < channels))


@triton.jit
def warp_backward_kernel(
    grad,  # (B, C, H, W) in the order of feature
    feature,  # (B, C, h, w); read only with NEEDS_FLOW
    flow,  # (B, H, W, 2) float32
    grad_feature,  # like feature, float32 zeros
    grad_flow,  # like flow, zeros; written only with NEEDS_FLOW
    channels,
    height,
    width,
    out_width,
    out_pixels,
    CHANNELS_LAST: tl.constexpr,
    NEEDS_FLOW: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    batch = tl.program_id(2).to(tl.int64)
    feature += batch * channels * height * width
    grad_feature += batch * channels * height * width
    grad += batch * channels * out_pixels
    flow += batch * out_pixels * 2
    grad_flow += batch * out_pixels * 2
    channel, pixel = _channels_and_pixels(CHANNELS_LAST, BLOCK_C, BLOCK_P)
    inside = (pixel < out_pixels) & (channel < channels)
    left, upper, dx, dy = _corners(flow, pixel, pixel < out_pixels, out_width, height, width)
    offset = pixel.to(tl.int64) * channels + channel if CHANNELS_LAST else channel.to(tl.int64) * out_pixels + pixel
    g = tl.load(grad + offset, mask=inside, other=0.0).to(tl.float32)

    by_x = tl.zeros((channel + pixel).shape, tl.float32)
    by_y = tl.zeros((channel + pixel).shape, tl.float32)
    for corner in tl.static_range(4):
        x, y = left + corner % 2, upper + corner // 2
        along_x = dx if corner % 2 else 1 - dx
        along_y = dy if corner // 2 else 1 - dy
        hit = (x >= 0) & (x < width) & (y >= 0) & (y < height) & inside
        position = y.to(tl.int64) * width + x
        offset = position * channels + channel if CHANNELS_LAST else channel.to(tl.int64) * height * width + position
        weight = along_x * along_y
        tl.atomic_add(grad_feature + offset, weight * g, mask=hit & (weight > 0), sem="relaxed")
        if NEEDS_FLOW:
            value = tl.load(feature + offset, mask=hit, other=0.0).to(tl.float32) * g
            by_x += along_y * (value if corner % 2 else -value)
            by_y += along_x * (value if corner // 2 else -value)
    if NEEDS_FLOW:
        # The channels of a pixel may be spread over programs.
        CHANNEL_AXIS: tl.constexpr = 1 if CHANNELS_LAST else 0
        target = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
        tl.atomic_add(grad_flow + 2 * target, tl.sum(by_x, CHANNEL_AXIS), mask=target < out_pixels, sem="relaxed")
        tl.atomic_add(grad_flow + 2 * target + 1, tl.sum(by_y, CHANNEL_AXIS), mask=target < out_pixels, sem="relaxed")


def _grid_and_block(feature: Tensor, flow: Tensor) -> tuple[tuple[int, int, int], dict[str, int | bool]]:
    channels_last = memory_format(feature) == torch.channels_last
    block_channels, block_pixels = CHANNELS_LAST_BLOCK if channels_last else CONTIGUOUS_BLOCK
    pixels = flow.shape[1] * flow.shape[2]
    grid = (triton.cdiv(pixels, block_pixels), triton.cdiv(feature.shape[1], block_channels), feature.shape[0])
    return grid, {"CHANNELS_LAST": channels_last, "BLOCK_C": block_channels, "BLOCK_P": block_pixels}


@on_device_of_first
def flow_warp_triton(feature: Tensor, flow: Tensor, out: Tensor) -> Tensor:
    """:func:`frfsr.kernels.flow_warp` into ``out``, whose memory format is the one of ``feature``."""
    feature, flow = feature.contiguous(memory_format=memory_format(feature)), flow.contiguous()
    grid, block = _grid_and_block(feature, flow)
    _, channels, height, width = feature.shape
    out_pixels = flow.shape[1] * flow.shape[2]
    warp_kernel[grid](feature, flow, out, channels, height, width, flow.shape[2], out_pixels, **block)
    return out


@on_device_of_first
def flow_warp_backward_triton(grad: Tensor, feature: Tensor, flow: Tensor, needs_flow: bool) -> tuple[Tensor, Tensor]:
    """Launch the kernel.

    Args:
        grad: (B, C, H, W) of the output.
        feature: (B, C, h, w).
        flow: (B, H, W, 2).
        needs_flow: compute the gradient by the flow too.

    Returns:
        The gradients by feature and by flow, the latter empty if it is not needed.
    """
    order = memory_format(feature)
    grad, feature, flow = (
        grad.contiguous(memory_format=order),
        feature.contiguous(memory_format=order),
        flow.contiguous(),
    )
    grad_feature = torch.zeros_like(feature, dtype=torch.float32)
    grad_flow = torch.zeros_like(flow) if needs_flow else flow.new_empty(0)
    grid, block = _grid_and_block(feature, flow)
    _, channels, height, width = feature.shape
    out_pixels = flow.shape[1] * flow.shape[2]
    warp_backward_kernel[grid](
        grad,
        feature,
        flow,
        grad_feature,
        grad_flow,
        channels,
        height,
        width,
        flow.shape[2],
        out_pixels,
        NEEDS_FLOW=needs_flow,
        **block,
    )
    return grad_feature.to(feature.dtype), grad_flow
