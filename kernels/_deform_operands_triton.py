"""What the Triton kernels of :mod:`frfsr.kernels.deform` are launched with, imported only where Triton runs.

Three named tuples, which Triton takes as arguments whole: tensors and sizes; what a layer fixes; how a program divides
it. The last two are constants of the compiled kernel (whose fields Triton 3.7 takes as a shape in tl.full only, not in
tl.zeros).
"""

from typing import NamedTuple

import torch
import triton
from einops import rearrange
from torch import Tensor

from frfsr.kernels._deform_geometry import Geometry, MatchPadding

STAGES = 1  # gathers do not pipeline: prefetching them only costs registers


class Operands(NamedTuple):
    """Inputs of a convolution as the kernels take them. Flat: Triton 3.6 loses strides of 1 in nested tuples."""

    x: Tensor  # (B, Hk, Wk, C)
    offset: Tensor  # (B, G*18, H, W) of any strides with one step per pixel
    offset_batch: int
    offset_channel: int
    offset_pixel: int
    mask: Tensor  # (B, G*9, H, W) likewise
    mask_batch: int
    mask_channel: int
    mask_pixel: int
    flow: Tensor | None  # (B, H/scale, W/scale, 2) float32
    weight: Tensor  # (9, G, C/G, O)
    height: int
    width: int
    x_height: int
    x_width: int
    scale: int  # of the flow


class Layer(NamedTuple):
    """What a layer fixes."""

    groups: int
    group_channels: int
    outputs: int
    match_padding: MatchPadding | None


class Tile(NamedTuple):
    """Output pixels, groups, channels per group and output channels of one step of a program, all powers of two."""

    pixels: int
    groups: int
    channels: int
    outputs: int
    precision: str  # of products of float32, as tl.dot calls it
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
    return Tile(
        pixels=32 if true_float32 else 64,
        groups=group_block,
        channels=channels,
        outputs=max(16, min(64, triton.next_power_of_2(outputs))),
        precision="tf32" if tf32 else "ieee",
        num_warps=4 if true_float32 or thin_half else 8,  # none of these spills
    )


def _strided_by_pixel(tensor: Tensor) -> Tensor:
    """``tensor`` (B, C, H, W), copied unless one stride steps through all its pixels."""
    return tensor if tensor.stride(2) == tensor.shape[3] * tensor.stride(3) else tensor.contiguous()


def operands_of(x: Tensor, geometry: Geometry, weight: Tensor) -> tuple[Operands, Layer, Tile]:
    """Lay out the arguments of :func:`frfsr.kernels.deform_conv` for the kernels, and choose their tile."""
    groups, flow = geometry.groups, geometry.flow
    offset, mask = _strided_by_pixel(geometry.offset), _strided_by_pixel(geometry.mask)
    layer = Layer(groups, x.shape[1] // groups, weight.shape[0], geometry.match_padding)
    operands = Operands(
        x=rearrange(x, "b c h w -> b h w c").contiguous(),
        offset=offset,
        offset_batch=offset.stride(0),
        offset_channel=offset.stride(1),
        offset_pixel=offset.stride(3),
        mask=mask,
        mask_batch=mask.stride(0),
        mask_channel=mask.stride(1),
        mask_pixel=mask.stride(3),
        flow=None if flow is None else flow.float().contiguous(),
        weight=rearrange(weight.to(x.dtype), "o (g c) i j -> (i j) g c o", g=groups).contiguous(),
        height=offset.shape[2],
        width=offset.shape[3],
        x_height=x.shape[2],
        x_width=x.shape[3],
        scale=geometry.flow_scale,
    )
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return operands, layer, choose_tile(*layer[:3], x.dtype, tf32)
