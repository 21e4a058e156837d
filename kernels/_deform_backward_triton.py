"""Triton kernels and launcher of the gradients of :mod:`frfsr.kernels.deform`, imported only where Triton runs.

The samples are taken again instead of kept. Sums have one owner or are merged in a fixed order, except the gradient of
``x``: samples overlap there, and float32 atomics make its last bits depend on the order.
"""

import torch
import triton
import triton.language as tl
from einops import rearrange
from torch import Tensor

from frfsr.kernels._constants import TAPS
from frfsr.kernels._deform_geometry import Geometry
from frfsr.kernels._deform_operands_triton import STAGES, operands_of
from frfsr.kernels._deform_sampling_triton import corner_pixel, sample_taps, tap_positions, weight_slots
from frfsr.kernels._dispatch import on_device_of_first

PROGRAMS = 1024  # of the weights' gradient: several for each multiprocessor of a large GPU


@triton.jit
def data_gradient_kernel(
    grad,  # (B, H, W, O)
    operands,
    grad_x,  # (B, Hk, Wk, C) float32, zeros
    grad_offset,  # (B, G*18, H, W)
    grad_mask,  # (B, G*9, H, W)
    LAYER: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradients of x, offset and mask for one tap of one block of output pixels."""
    batch = tl.program_id(2).to(tl.int64)
    tap = tl.program_id(1)
    pixels = operands.height * operands.width
    channels = LAYER.groups * LAYER.group_channels
    x = operands.x + batch * operands.x_height * operands.x_width * channels
    grad_x += batch * operands.x_height * operands.x_width * channels
    grad_offset += batch * LAYER.groups * 18 * pixels
    grad_mask += batch * LAYER.groups * 9 * pixels
    pixel = tl.program_id(0) * TILE.pixels + tl.arange(0, TILE.pixels)
    grad_rows = grad + (batch * pixels + pixel)[:, None] * LAYER.outputs

    for start_group in range(0, LAYER.groups, TILE.groups):
        group = start_group + tl.arange(0, TILE.groups)
        tap_y, tap_x, modulation = tap_positions(operands, batch, pixel, group, tap, LAYER)
        by_mask = tl.full((TILE.pixels, TILE.groups), 0.0, tl.float32)
        by_y = tl.full((TILE.pixels, TILE.groups), 0.0, tl.float32)
        by_x = tl.full((TILE.pixels, TILE.groups), 0.0, tl.float32)
        for start_channel in range(0, LAYER.group_channels, TILE.channels):
            c = start_channel + tl.arange(0, TILE.channels)
            grad_columns = tl.full((TILE.pixels, TILE.groups * TILE.channels), 0.0, tl.float32)
            for start_output in range(0, LAYER.outputs, TILE.outputs):
                o = start_output + tl.arange(0, TILE.outputs)
                slots, real = weight_slots(tap, start_group, start_channel, o, LAYER, TILE)
                kernel = tl.load(operands.weight + slots, mask=real, other=0.0)
                present = (pixel < pixels)[:, None] & (o < LAYER.outputs)[None, :]
                rows = tl.load(grad_rows + o[None, :], mask=present, other=0.0)
                grad_columns = tl.dot(rows, tl.trans(kernel), grad_columns, input_precision=TILE.precision)
            grad_samples = tl.reshape(grad_columns, (TILE.pixels, TILE.groups, TILE.channels))
            channel = group[:, None] * LAYER.group_channels + c[None, :]
            real = (group < LAYER.groups)[:, None] & (c < LAYER.group_channels)[None, :]
            for corner in tl.static_range(4):
                index, exists, along_y, along_x = corner_pixel(tap_y, tap_x, operands, corner // 2, corner % 2)
                exists = exists & (pixel < pixels)[:, None]
                slot = (index.to(tl.int64) * channels)[:, :, None] + channel[None, :, :]
                hit = exists[:, :, None] & real[None, :, :]
                values = tl.load(x + slot, mask=hit, other=0.0).to(tl.float32)
                agreement = tl.sum(values * grad_samples, axis=2)
                by_mask += agreement * along_y * along_x
                by_y += agreement * along_x * (1 if corner // 2 else -1)
                by_x += agreement * along_y * (1 if corner % 2 else -1)
                share = along_y * along_x * modulation
                tl.atomic_add(grad_x + slot, grad_samples * share[:, :, None], mask=hit, sem="relaxed")
        entry = group[None, :] * 9 + tap
        inside = (pixel < pixels)[:, None] & (group < LAYER.groups)[None, :]
        grad_slot = grad_mask + entry.to(tl.int64) * pixels + pixel[:, None]
        tl.store(grad_slot, by_mask.to(grad_mask.dtype.element_ty), mask=inside)
        grad_slot = grad_offset + 2 * entry.to(tl.int64) * pixels + pixel[:, None]
        tl.store(grad_slot, (by_y * modulation).to(grad_offset.dtype.element_ty), mask=inside)
        tl.store(grad_slot + pixels, (by_x * modulation).to(grad_offset.dtype.element_ty), mask=inside)


@triton.jit
def weight_gradient_kernel(
    grad,  # (B, H, W, O)
    operands,
    partial,  # (splits, 9, G, C/G, O) float32
    batches,
    LAYER: tl.constexpr,
    TILE: tl.constexpr,
):
    """The weights' gradient of one tap, one block of channels and one of outputs, over every n-th block of pixels."""
    channel_blocks = tl.cdiv(LAYER.group_channels, TILE.channels)
    group_blocks = tl.cdiv(LAYER.groups, TILE.groups)
    place = tl.program_id(0)
    start_channel = place % channel_blocks * TILE.channels
    start_group = place // channel_blocks % group_blocks * TILE.groups
    tap = place // (channel_blocks * group_blocks)
    group = start_group + tl.arange(0, TILE.groups)
    c = start_channel + tl.arange(0, TILE.channels)
    o = tl.program_id(2) * TILE.outputs + tl.arange(0, TILE.outputs)
    pixels = operands.height * operands.width
    blocks = tl.cdiv(pixels, TILE.pixels)

    total = tl.full((TILE.groups * TILE.channels, TILE.outputs), 0.0, tl.float32)
    for block in range(tl.program_id(1), batches * blocks, tl.num_programs(1)):
        batch = (block // blocks).to(tl.int64)
        pixel = block % blocks * TILE.pixels + tl.arange(0, TILE.pixels)
        tap_y, tap_x, modulation = tap_positions(operands, batch, pixel, group, tap, LAYER)
        samples = sample_taps(operands, batch, tap_y, tap_x, modulation, group, c, LAYER)
        columns = tl.reshape(samples, (TILE.pixels, TILE.groups * TILE.channels)).to(grad.dtype.element_ty)
        present = (pixel < pixels)[:, None] & (o < LAYER.outputs)[None, :]
        rows = tl.load(grad + (batch * pixels + pixel)[:, None] * LAYER.outputs + o[None, :], mask=present, other=0.0)
        total = tl.dot(tl.trans(columns), rows, total, input_precision=TILE.precision)
    slots, real = weight_slots(tap, start_group, start_channel, o, LAYER, TILE)
    partial += tl.program_id(1).to(tl.int64) * 9 * LAYER.groups * LAYER.group_channels * LAYER.outputs
    tl.store(partial + slots, total, mask=real)


@on_device_of_first
def deform_conv_backward_triton(
    grad: Tensor, x: Tensor, geometry: Geometry, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launch both kernels: gradients of x, offset, mask and weight; arguments as for the CPU's form."""
    operands, layer, tile = operands_of(x, geometry, weight)
    options = dict(num_warps=tile.num_warps, num_stages=STAGES)
    grad_rows = rearrange(grad, "b o h w -> b h w o").contiguous()
    blocks = triton.cdiv(operands.height * operands.width, tile.pixels)

    grad_x = torch.zeros_like(operands.x, dtype=torch.float32)
    contiguous = dict(memory_format=torch.contiguous_format)
    grad_offset, grad_mask = (torch.empty_like(tensor, **contiguous) for tensor in geometry[:2])
    data_gradient_kernel[(blocks, TAPS, x.shape[0])](
        grad_rows, operands, grad_x, grad_offset, grad_mask, layer, tile, **options
    )

    places = TAPS * triton.cdiv(layer.groups, tile.groups) * triton.cdiv(layer.group_channels, tile.channels)
    output_blocks = triton.cdiv(layer.outputs, tile.outputs)
    splits = max(1, min(blocks * x.shape[0], PROGRAMS // (places * output_blocks)))
    partial = torch.empty(splits, *operands.weight.shape, dtype=torch.float32, device=x.device)
    weight_gradient_kernel[(places, splits, output_blocks)](
        grad_rows, operands, partial, x.shape[0], layer, tile, **options
    )
    grad_weight = rearrange(partial.sum(0), "(i j) g c o -> o (g c) i j", i=3)
    return rearrange(grad_x, "b h w c -> b c h w").to(x.dtype), grad_offset, grad_mask, grad_weight.to(weight.dtype)
