"""The four operations as RefSR code bases do them, in plain PyTorch: the baselines of :mod:`frfsr.evals.speed`."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from frfsr import FRFSR, kernels
from frfsr.kernels.ddf import FilterNorm
from frfsr.kernels.deform import MatchPadding

CHUNK_ELEMENTS = 2**29  # similarities that the stock matching holds at a time


def patch_argmax(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Unfold the key into 3x3 patches and convolve the query with them, in chunks; (B, C, H, W) each."""
    scores, indices = zip(*(_match_image(q, k) for q, k in zip(query, key, strict=True)), strict=True)
    return torch.stack(scores), torch.stack(indices)


def _match_image(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    patches = rearrange(F.unfold(key[None], 3), "1 c k -> k c")
    patches = patches / (patches.norm(dim=1, keepdim=True) + 1e-5)
    filters = rearrange(patches, "k (c i j) -> k c i j", i=3, j=3)
    best = query.new_full((query.shape[1] - 2, query.shape[2] - 2), -torch.inf)
    index = torch.zeros_like(best, dtype=torch.int64)
    step = max(1, CHUNK_ELEMENTS // (query.shape[1] * query.shape[2]))
    for start in range(0, len(filters), step):
        score, position = F.conv2d(query[None], filters[start : start + step])[0].max(dim=0)
        better = score > best
        best, index = torch.where(better, score, best), torch.where(better, position + start, index)
    norm = rearrange(F.unfold(query[None], 3).norm(dim=1), "1 (h w) -> h w", h=best.shape[0])
    return best / (norm + 1e-5), index


def flow_warp(feature: Tensor, flow: Tensor) -> Tensor:
    """Build the sampling grid in [-1, 1] and call grid_sample; (B, C, Hr, Wr), (B, H, W, 2).

    In float32, as autocast has it: a half number cannot address a pixel.
    """
    rows, columns = (torch.arange(size, device=flow.device) for size in flow.shape[1:3])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    position = torch.stack([x, y], dim=-1) + flow
    height, width = feature.shape[-2:]
    grid = 2 * position / flow.new_tensor([max(width - 1, 1), max(height - 1, 1)]) - 1
    return F.grid_sample(feature.float(), grid, padding_mode="zeros", align_corners=True).to(feature.dtype)


def dynamic_filter(x: Tensor, channel: Tensor, spatial: Tensor, norm: FilterNorm | None = None) -> Tensor:
    """Normalise the filters if asked to, unfold, multiply, sum; arguments as for `frfsr.kernels.dynamic_filter`."""
    side = channel.shape[-1]
    channel, spatial = rearrange(channel, "b c i j -> b c (i j) 1 1"), rearrange(spatial, "b k h w -> b 1 k h w")
    if norm is not None:
        scale, shift = (rearrange(part, "c i j -> c (i j) 1 1") for part in norm[:2])
        channel = (channel - channel.mean(2, keepdim=True)) / channel.std(2, keepdim=True) * scale + shift
        scale, shift = (rearrange(part, "k -> k 1 1") for part in norm[2:])
        spatial = (spatial - spatial.mean(2, keepdim=True)) / spatial.std(2, keepdim=True) * scale + shift
    columns = F.unfold(x, side, padding=side // 2)
    columns = rearrange(columns, "b (c k) (h w) -> b c k h w", c=x.shape[1], h=x.shape[2])
    return (columns * (channel * spatial)).sum(dim=2)


def deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    flow: Tensor,
    flow_scale: int,
    match_padding: MatchPadding,
) -> Tensor:
    """Build the nine pre-offsets of every pixel, repeat them over the groups, call torchvision.

    Arguments as for `frfsr.kernels.deform_conv`. torchvision has no bfloat16, and positions need more than half
    precision: like its own autocast, this computes in float32.
    """
    fine = rearrange(flow_scale * flow, "b h w d -> b d h w")
    fine = fine.repeat_interleave(flow_scale, dim=2).repeat_interleave(flow_scale, dim=3)
    height, width = fine.shape[2:]
    if match_padding == "valid":
        padded = F.pad(fine, (2 * flow_scale, 0) * 2)
    else:
        padded = F.pad(fine, (flow_scale,) * 4, mode="replicate")
    starts = [(flow_scale * (2 - i), flow_scale * (2 - j)) for i in range(3) for j in range(3)]
    taps = torch.stack([padded[:, :, y : y + height, x : x + width] for y, x in starts], dim=1)
    groups = mask.shape[1] // 9
    pre_offset = repeat(taps.flip(2), "b k d h w -> b (g k d) h w", g=groups)
    offset = offset.float() + pre_offset
    return deform_conv2d(x.float(), offset, weight.float(), bias.float(), padding=(1, 1), mask=mask.float()).to(x.dtype)


OPERATIONS = {function.__name__: function for function in (patch_argmax, flow_warp, dynamic_filter, deform_conv)}


@contextmanager
def plain_pytorch() -> Iterator[None]:
    """Within it FRFSR networks run on the operations of this file, and new ones are contiguous (NCHW)."""
    layout, FRFSR.memory_format = FRFSR.memory_format, torch.contiguous_format
    try:
        with kernels.use(OPERATIONS):
            yield
    finally:
        FRFSR.memory_format = layout
