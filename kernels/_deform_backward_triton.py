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
from frfsr.kernels._deform_sampling_triton import corner_pixel, sample_taps, tap_positions, weight_slots
from frfsr.kernels._deform_triton import operands_of
from frfsr.kernels._dispatch import on_device_of_first

PROGRAMS = 1024  # of the weights' gradient: several for each multiprocessor of a large GPU


@triton.jit
def data_gradient_kernel(
    grad,  # (B, H, W, O)
    x,  # (B, Hk, Wk, C)
    offset,  # as in forward_kernel
    offset_batch,
    offset_channel,
    offset_pixel,
    mask,
    mask_batch,
    mask_channel,
    mask_pixel,
    flow,
    weight,  # (9, G, C/G, O)
    grad_x,  # (B, Hk, Wk, C) float32, zeros
    grad_offset,  # (B, G*18, H, W)
    grad_mask,  # (B, G*9, H, W)
    height,
    width,
    x_height,
    x_width,
    scale,
    ALL_GROUPS: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    ALL_OUTPUTS: tl.constexpr,
    HAS_FLOW: tl.constexpr,
    SAME: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """Gradients of x, offset and mask for one tap of one block of output pixels."""
    batch = tl.program_id(2).to(tl.int64)
    tap = tl.program_id(1)
    pixels = height * width
    channels = ALL_GROUPS * GROUP_CHANNELS
    x += batch * x_height * x_width * channels
    grad_x += batch * x_height * x_width * channels
    offset += batch * offset_batch
    mask += batch * mask_batch
    grad_offset += batch * ALL_GROUPS * 18 * pixels
    grad_mask += batch * ALL_GROUPS * 9 * pixels
    if HAS_FLOW:
        flow += batch * (pixels // (scale * scale)) * 2
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    grad_rows = grad + (batch * pixels + pixel)[:, None] * ALL_OUTPUTS

    for start_group in range(0, ALL_GROUPS, GROUPS):
        group = start_group + tl.arange(0, GROUPS)
        tap_y, tap_x, modulation = tap_positions(
            offset, offset_channel, offset_pixel, mask, mask_channel, mask_pixel, flow, pixel, group, tap,
            height, width, x_height, x_width, scale, ALL_GROUPS, HAS_FLOW, SAME,
        )  # fmt: skip
        by_mask = tl.zeros((PIXELS, GROUPS), tl.float32)
        by_y = tl.zeros((PIXELS, GROUPS), tl.float32)
        by_x = tl.zeros((PIXELS, GROUPS), tl.float32)
        for start_channel in range(0, GROUP_CHANNELS, CHANNELS):
            c = start_channel + tl.arange(0, CHANNELS)
            grad_columns = tl.zeros((PIXELS, GROUPS * CHANNELS), tl.float32)
            for start_output in range(0, ALL_OUTPUTS, OUTPUTS):
                o = start_output + tl.arange(0, OUTPUTS)
                slots, real = weight_slots(
                    tap, start_group, start_channel, o, ALL_GROUPS, GROUP_CHANNELS, ALL_OUTPUTS, GROUPS, CHANNELS
                )
                kernel = tl.load(weight + slots, mask=real, other=0.0)
                present = (pixel < pixels)[:, None] & (o < ALL_OUTPUTS)[None, :]
                rows = tl.load(grad_rows + o[None, :], mask=present, other=0.0)
                grad_columns = tl.dot(rows, tl.trans(kernel), grad_columns, input_precision=PRECISION)
            grad_samples = tl.reshape(grad_columns, (PIXELS, GROUPS, CHANNELS))
            channel = group[:, None] * GROUP_CHANNELS + c[None, :]
            real = (group < ALL_GROUPS)[:, None] & (c < GROUP_CHANNELS)[None, :]
            for corner in tl.static_range(4):
                index, exists, along_y, along_x = corner_pixel(tap_y, tap_x, x_height, x_width, corner // 2, corner % 2)
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
        inside = (pixel < pixels)[:, None] & (group < ALL_GROUPS)[None, :]
        tl.store(
            grad_mask + entry.to(tl.int64) * pixels + pixel[:, None], by_mask.to(mask.dtype.element_ty), mask=inside
        )
        grad_entry = grad_offset + 2 * entry.to(tl.int64) * pixels + pixel[:, None]
        tl.store(grad_entry, (by_y * modulation).to(offset.dtype.element_ty), mask=inside)
        tl.store(grad_entry + pixels, (by_x * modulation).to(offset.dtype.element_ty), mask=inside)


@triton.jit
def weight_gradient_kernel(
    grad,  # (B, H, W, O)
    x,  # (B, Hk, Wk, C)
    offset,  # as in forward_kernel
    offset_batch,
    offset_channel,
    offset_pixel,
    mask,
    mask_batch,
    mask_channel,
    mask_pixel,
    flow,
    partial,  # (splits, 9, G, C/G, O) float32
    batches,
    height,
    width,
    x_height,
    x_width,
    scale,
    ALL_GROUPS: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    ALL_OUTPUTS: tl.constexpr,
    HAS_FLOW: tl.constexpr,
    SAME: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """The weights' gradient of one tap, one block of channels and one of outputs, over every n-th block of pixels."""
    channel_blocks = tl.cdiv(GROUP_CHANNELS, CHANNELS)
    group_blocks = tl.cdiv(ALL_GROUPS, GROUPS)
    place = tl.program_id(0)
    start_channel = place % channel_blocks * CHANNELS
    start_group = place // channel_blocks % group_blocks * GROUPS
    tap = place // (channel_blocks * group_blocks)
    group = start_group + tl.arange(0, GROUPS)
    c = start_channel + tl.arange(0, CHANNELS)
    o = tl.program_id(2) * OUTPUTS + tl.arange(0, OUTPUTS)
    pixels = height * width
    blocks = tl.cdiv(pixels, PIXELS)

    total = tl.zeros((GROUPS * CHANNELS, OUTPUTS), tl.float32)
    for block in range(tl.program_id(1), batches * blocks, tl.num_programs(1)):
        batch = (block // blocks).to(tl.int64)
        pixel = block % blocks * PIXELS + tl.arange(0, PIXELS)
        batch_flow = flow
        if HAS_FLOW:
            batch_flow += batch * (pixels // (scale * scale)) * 2
        tap_y, tap_x, modulation = tap_positions(
            offset + batch * offset_batch, offset_channel, offset_pixel, mask + batch * mask_batch, mask_channel,
            mask_pixel, batch_flow, pixel, group, tap, height, width, x_height, x_width, scale, ALL_GROUPS, HAS_FLOW,
            SAME,
        )  # fmt: skip
        image = x + batch * x_height * x_width * ALL_GROUPS * GROUP_CHANNELS
        samples = sample_taps(image, tap_y, tap_x, modulation, group, c, x_height, x_width, ALL_GROUPS, GROUP_CHANNELS)
        columns = tl.reshape(samples, (PIXELS, GROUPS * CHANNELS)).to(grad.dtype.element_ty)
        present = (pixel < pixels)[:, None] & (o < ALL_OUTPUTS)[None, :]
        rows = tl.load(grad + (batch * pixels + pixel)[:, None] * ALL_OUTPUTS + o[None, :], mask=present, other=0.0)
        total = tl.dot(tl.trans(columns), rows, total, input_precision=PRECISION)
    slots, real = weight_slots(
        tap, start_group, start_channel, o, ALL_GROUPS, GROUP_CHANNELS, ALL_OUTPUTS, GROUPS, CHANNELS
    )
    partial += tl.program_id(1).to(tl.int64) * 9 * ALL_GROUPS * GROUP_CHANNELS * ALL_OUTPUTS
    tl.store(partial + slots, total, mask=real)


@on_device_of_first
def deform_conv_backward_triton(
    grad: Tensor, x: Tensor, geometry: Geometry, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launch both kernels: gradients of x, offset, mask and weight; arguments as for the CPU's form."""
    operands, (offset, mask) = operands_of(x, geometry, weight), geometry[:2]
    tile = operands.constants
    groups, group_channels, outputs = operands.weight.shape[1:]
    height, width = offset.shape[-2:]
    grad_rows = rearrange(grad, "b o h w -> b h w o").contiguous()
    blocks = triton.cdiv(height * width, tile["PIXELS"])

    grad_x = torch.zeros_like(operands.x, dtype=torch.float32)
    grad_offset, grad_mask = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (offset, mask))
    data_gradient_kernel[(blocks, TAPS, x.shape[0])](
        grad_rows,
        operands.x,
        *operands.taps,
        operands.weight,
        grad_x,
        grad_offset,
        grad_mask,
        *operands.sizes,
        **operands.constants,
    )

    places = TAPS * triton.cdiv(groups, tile["GROUPS"]) * triton.cdiv(group_channels, tile["CHANNELS"])
    output_blocks = triton.cdiv(outputs, tile["OUTPUTS"])
    splits = max(1, min(blocks * x.shape[0], PROGRAMS // (places * output_blocks)))
    partial = torch.empty(splits, *operands.weight.shape, dtype=torch.float32, device=x.device)
    weight_gradient_kernel[(places, splits, output_blocks)](
        grad_rows,
        operands.x,
        *operands.taps,
        partial,
        x.shape[0],
        *operands.sizes,
        **operands.constants,
    )
    grad_weight = rearrange(partial.sum(0), "(i j) g c o -> o (g c) i j", i=3)
    return rearrange(grad_x, "b h w c -> b c h w").to(x.dtype), grad_offset, grad_mask, grad_weight.to(weight.dtype)
