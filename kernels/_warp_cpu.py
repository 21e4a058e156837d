"""The CPU path of :mod:`frfsr.kernels.warp` for flows of whole numbers, which copy pixels."""

import torch
from einops import rearrange
from torch import Tensor

from frfsr.kernels._tensors import memory_format


def empty_warped(feature: Tensor, flow: Tensor) -> Tensor:
    shape = (feature.shape[0], feature.shape[1], flow.shape[1], flow.shape[2])
    return torch.empty(shape, dtype=feature.dtype, device=feature.device, memory_format=memory_format(feature))


def _pixel_rows(flow: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Index of each position's pixel in a flattened image (0 if outside) and whether it is inside; for whole flows."""
    y = torch.arange(flow.shape[1], dtype=flow.dtype, device=flow.device)
    x = torch.arange(flow.shape[2], dtype=flow.dtype, device=flow.device)
    column, row = flow[..., 0] + x, flow[..., 1] + y[:, None]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return (row * width + column).masked_fill(~inside, 0).long().flatten(1), inside.flatten(1)


def flow_gather_cpu(feature: Tensor, flow: Tensor) -> Tensor:
    """The warp by a flow of whole numbers, which copies pixels."""
    feature = feature.contiguous(memory_format=memory_format(feature))
    out = empty_warped(feature, flow)
    channels_last = memory_format(feature) == torch.channels_last
    for source, target, index, inside in zip(feature, out, *_pixel_rows(flow, *feature.shape[-2:]), strict=True):
        if channels_last:
            rows = rearrange(target, "c h w -> (h w) c")
            torch.index_select(rearrange(source, "c h w -> (h w) c"), 0, index, out=rows)
            rows[~inside] = 0
        else:
            torch.index_select(source.flatten(1), 1, index, out=target.flatten(1))
            target.flatten(1)[:, ~inside] = 0
    return out


def flow_scatter_cpu(grad: Tensor, feature: Tensor, flow: Tensor) -> Tensor:
    """The gradient of :func:`flow_gather_cpu` by the feature."""
    out = torch.zeros_like(feature, dtype=flow.dtype, memory_format=torch.channels_last)
    for source, target, index, inside in zip(grad, out, *_pixel_rows(flow, *feature.shape[-2:]), strict=True):
        pixels = rearrange(source, "c h w -> (h w) c").to(flow.dtype) * inside[:, None]
        rearrange(target, "c h w -> (h w) c").index_add_(0, index, pixels)
    return out.to(feature.dtype)
