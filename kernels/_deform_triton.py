"""Triton kernel and launcher of :mod:`frfsr.kernels.deform`, imported only where Triton runs.

A program samples a tile of (pixels, groups, channels of a group) and multiplies it at once with the weights of its tap
on tensor cores: neither columns nor pre-offsets reach memory. Images are channels-last inside, so that a sample is the
sum of four contiguous rows.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from einops import rearrange
from torch import Tensor

from frfsr.kernels._deform_geometry import Geometry
from frfsr.kernels._deform_sampling_triton import sample_taps, tap_positions, weight_slots
from frfsr.kernels._dispatch import on_device_of_first

STAGES = 1  # gathers do not pipeline: prefetching them only costs registers


@triton.jit
def forward_kernel(
    x,  # (B, Hk, Wk, C)
    offset,  # (B, G*18, H, W) of any strides with one step per pixel
    offset_batch,
    offset_channel,
    offset_pixel,
    mask,  # (B, G*9, H, W) likewise
    mask_batch,
    mask_channel,
    mask_pixel,
    flow,  # (B, H/scale, W/scale, 2) float32
    weight,  # (9, G, C/G, O)
    bias,  # (O,)
    out,  # (B, H, W, O)
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
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """One block of output pixels and output channels."""
    batch = tl.program_id(2).to(tl.int64)
    pixels = height * width
    x += batch * x_height * x_width * ALL_GROUPS * GROUP_CHANNELS
    offset += batch * offset_batch
    mask += batch * mask_batch
    if HAS_FLOW:
        flow += batch * (pixels // (scale * scale)) * 2
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)

    total = tl.zeros((PIXELS, OUTPUTS), tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + o, mask=o < ALL_OUTPUTS, other=0.0).to(tl.float32)[None, :]
    for tap in range(9):
        for start_group in range(0, ALL_GROUPS, GROUPS):
            group = start_group + tl.arange(0, GROUPS)
            tap_y, tap_x, modulation = tap_positions(
                offset, offset_channel, offset_pixel, mask, mask_channel, mask_pixel, flow, pixel, group, tap,
                height, width, x_height, x_width, scale, ALL_GROUPS, HAS_FLOW, SAME,
            )  # fmt: skip
            for start_channel in range(0, GROUP_CHANNELS, CHANNELS):
                c = start_channel + tl.arange(0, CHANNELS)
                samples = sample_taps(
                    x, tap_y, tap_x, modulation, group, c, x_height, x_width, ALL_GROUPS, GROUP_CHANNELS
                )
                columns = tl.reshape(samples, (PIXELS, GROUPS * CHANNELS)).to(weight.dtype.element_ty)
                slots, real = weight_slots(
                    tap, start_group, start_channel, o, ALL_GROUPS, GROUP_CHANNELS, ALL_OUTPUTS, GROUPS, CHANNELS
                )
                kernel = tl.load(weight + slots, mask=real, other=0.0)
                total = tl.dot(columns, kernel, total, input_precision=PRECISION)
    slot = (batch * pixels + pixel)[:, None] * ALL_OUTPUTS + o[None, :]
    tl.store(out + slot, total.to(out.dtype.element_ty), mask=(pixel < pixels)[:, None] & (o < ALL_OUTPUTS)[None, :])


class Tile(NamedTuple):
    """Output pixels, groups, channels per group and output channels of one step of a program, all powers of two."""

    pixels: int
    groups: int
    channels: int
    outputs: int
    num_warps: int


def choose_tile(groups: int, group_channels: int, outputs: int, dtype: torch.dtype, tf32: bool) -> Tile:
    """Choose 64 pixels x 128 bytes of channels, or as few as 16 channels (the least for tensor cores) of thin features.

    Whole tiles need no masks: 48 channels are taken as 3 x 16 rather than as a part of 64. True float32 has no tensor
    cores and gets half the pixels: its products take more registers.

    Args:
        groups: deformable groups.
        group_channels: input channels of a group.
        outputs: output channels.
        dtype: of the features.
        tf32: products of float32 are taken in TensorFloat-32.

    Returns:
        The tile.
    """
    step = 32 if dtype == torch.float32 else 64
    divisor = group_channels & -group_channels  # the largest power of two in it
    whole = divisor >= 16 or divisor == group_channels
    channels = min(step, divisor if whole else triton.next_power_of_2(group_channels))
    group_block = min(step // channels, triton.next_power_of_2(groups))
    channels = max(channels, 16 // group_block)
    true_float32 = dtype == torch.float32 and not tf32
    thin_half = dtype != torch.float32 and group_block * channels == 16
    num_warps = 4 if true_float32 or thin_half else 8  # none of these spills
    pixels = 32 if true_float32 else 64
    return Tile(pixels, group_block, channels, max(16, min(64, triton.next_power_of_2(outputs))), num_warps)


class Operands(NamedTuple):
    """Inputs of a convolution in the layouts of the kernels."""

    x: Tensor  # (B, Hk, Wk, C)
    taps: tuple  # offset and mask, each followed by its strides over batch, channel and pixel, then the flow
    weight: Tensor  # (9, G, C/G, O)
    sizes: tuple[int, ...]  # H, W, Hk, Wk, flow scale
    constants: dict[str, bool | int | str]


def _strided_by_pixel(tensor: Tensor) -> Tensor:
    """``tensor`` (B, C, H, W), copied unless one stride steps through all its pixels."""
    return tensor if tensor.stride(2) == tensor.shape[3] * tensor.stride(3) else tensor.contiguous()


def operands_of(x: Tensor, geometry: Geometry, weight: Tensor) -> Operands:
    """Lay out the arguments of :func:`frfsr.kernels.deform_conv` for the kernels, and choose their tile."""
    groups, flow = geometry.groups, geometry.flow
    group_channels, outputs = x.shape[1] // groups, weight.shape[0]
    offset, mask = _strided_by_pixel(geometry.offset), _strided_by_pixel(geometry.mask)
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    tile = choose_tile(groups, group_channels, outputs, x.dtype, tf32)
    return Operands(
        x=rearrange(x, "b c h w -> b h w c").contiguous(),
        taps=(
            *(offset, offset.stride(0), offset.stride(1), offset.stride(3)),
            *(mask, mask.stride(0), mask.stride(1), mask.stride(3)),
            offset if flow is None else flow.float().contiguous(),  # a kernel argument must be a tensor, read or not
        ),
        weight=rearrange(weight.to(x.dtype), "o (g c) i j -> (i j) g c o", g=groups).contiguous(),
        sizes=(*offset.shape[-2:], *x.shape[-2:], geometry.flow_scale),
        constants=dict(
            ALL_GROUPS=groups,
            GROUP_CHANNELS=group_channels,
            ALL_OUTPUTS=outputs,
            HAS_FLOW=flow is not None,
            SAME=geometry.match_padding == "same",
            PRECISION="tf32" if tf32 else "ieee",
            PIXELS=tile.pixels,
            GROUPS=tile.groups,
            CHANNELS=tile.channels,
            OUTPUTS=tile.outputs,
            num_warps=tile.num_warps,
            num_stages=STAGES,
        ),
    )


@on_device_of_first
def deform_conv_triton(x: Tensor, geometry: Geometry, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Launch the kernel; arguments as for the CPU's form, the result in memory channels-last."""
    operands = operands_of(x, geometry, weight)
    batch, outputs, (height, width) = x.shape[0], weight.shape[0], geometry.offset.shape[-2:]
    out = x.new_empty(batch, height, width, outputs)
    tile = operands.constants
    grid = (triton.cdiv(height * width, tile["PIXELS"]), triton.cdiv(outputs, tile["OUTPUTS"]), batch)
    forward_kernel[grid](
        operands.x,
        *operands.taps,
        operands.weight,
        operands.weight if bias is None else bias.contiguous(),
        out,
        *operands.sizes,
        HAS_BIAS=bias is not None,
        **operands.constants,
    )
    return rearrange(out, "b h w o -> b o h w")
