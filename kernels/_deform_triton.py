"""Triton kernel and launcher of :mod:`frfsr.kernels.deform`, imported only where Triton runs.

A program samples a tile of (pixels, groups, channels of a group) and multiplies it at once with the weights of its tap
on tensor cores: neither columns nor pre-offsets reach memory. Images are channels-last inside, so that a sample is the
sum of four contiguous rows.
"""

import triton
import triton.language as tl
from einops import rearrange
from torch import Tensor

from frfsr.kernels._deform_geometry import Geometry
from frfsr.kernels._deform_operands_triton import STAGES, operands_of
from frfsr.kernels._deform_sampling_triton import sample_taps, tap_positions, weight_slots
from frfsr.kernels._dispatch import on_device_of_first


@triton.jit
def forward_kernel(
    operands,
    bias,  # (O,) or None
    out,  # (B, H, W, O)
    LAYER: tl.constexpr,
    TILE: tl.constexpr,
):
    """One block of output pixels and output channels."""
    batch = tl.program_id(2).to(tl.int64)
    pixels = operands.height * operands.width
    pixel = tl.program_id(0) * TILE.pixels + tl.arange(0, TILE.pixels)
    o = tl.program_id(1) * TILE.outputs + tl.arange(0, TILE.outputs)

    total = tl.full((TILE.pixels, TILE.outputs), 0.0, tl.float32)
    if bias is not None:
        total += tl.load(bias + o, mask=o < LAYER.outputs, other=0.0).to(tl.float32)[None, :]
    for tap in range(9):
        for start_group in range(0, LAYER.groups, TILE.groups):
            group = start_group + tl.arange(0, TILE.groups)
            tap_y, tap_x, modulation = tap_positions(operands, batch, pixel, group, tap, LAYER)
            for start_channel in range(0, LAYER.group_channels, TILE.channels):
                c = start_channel + tl.arange(0, TILE.channels)
                samples = sample_taps(operands, batch, tap_y, tap_x, modulation, group, c, LAYER)
                columns = tl.reshape(samples, (TILE.pixels, TILE.groups * TILE.channels))
                slots, real = weight_slots(tap, start_group, start_channel, o, LAYER, TILE)
                kernel = tl.load(operands.weight + slots, mask=real, other=0.0)
                total = tl.dot(columns.to(kernel.dtype), kernel, total, input_precision=TILE.precision)
    slot = (batch * pixels + pixel)[:, None] * LAYER.outputs + o[None, :]
    present = (pixel < pixels)[:, None] & (o < LAYER.outputs)[None, :]
    tl.store(out + slot, total.to(out.dtype.element_ty), mask=present)


@on_device_of_first
def deform_conv_triton(x: Tensor, geometry: Geometry, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Launch the kernel; arguments as for the CPU's form, the result in memory channels-last."""
    operands, layer, tile = operands_of(x, geometry, weight)
    batch, height, width = x.shape[0], operands.height, operands.width
    out = x.new_empty(batch, height, width, layer.outputs)
    grid = (triton.cdiv(height * width, tile.pixels), triton.cdiv(layer.outputs, tile.outputs), batch)
    bias = None if bias is None else bias.contiguous()
    forward_kernel[grid](operands, bias, out, layer, tile, num_warps=tile.num_warps, num_stages=STAGES)
    return rearrange(out, "b h w o -> b o h w")
