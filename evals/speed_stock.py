"""The four operations as RefSR code bases do them, in plain PyTorch: the baselines of :mod:`frfsr.evals.speed`."""

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

CHUNK_ELEMENTS = 2**29  # similarities that the stock matching holds at a time


def patch_argmax(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Unfold the key into 3x3 patches and convolve the query with them, in chunks; (B, C, H, W) each."""
    scores, indices = zip(*(_match_image(q, k) for q, k in zip(query, key, strict=True)), strict=True)
    return torch.stack(scores), torch.stack(indices)


def _match_image(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    patches = rearrange(F.unfold(key[None], 3), "1 c k -> k c")
    patches = patches / (patches.norm(dim=1, keepdim=True) + 1e-5)
    filters = rearrange(patches, "k (c i j) -> k c i j", i=3, j=3)
    best = index = None
    step = max(1, CHUNK_ELEMENTS // (query.shape[1] * query.shape[2]))
    for start in range(0, len(filters), step):
        score, position = F.conv2d(query[None], filters[start : start + step])[0].max(dim=0)
        if best is None:
            best, index = score, position
        else:
            better = score > best
            best, index = torch.where(better, score, best), torch.where(better, position + start, index)
    norm = rearrange(F.unfold(query[None], 3).norm(dim=1), "1 (h w) -> h w", h=best.shape[0])
    return best / (norm + 1e-5), index


def flow_warp(feature: Tensor, flow: Tensor) -> Tensor:
    """Build the sampling grid in [-1, 1] and call grid_sample; (B, C, H, W), (B, H, W, 2)."""
    height, width = feature.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position = torch.stack([x, y], dim=-1).to(flow) + flow
    grid = 2 * position / flow.new_tensor([max(width - 1, 1), max(height - 1, 1)]) - 1
    return F.grid_sample(feature, grid.to(feature.dtype), padding_mode="zeros", align_corners=True)


def dynamic_filter(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Unfold, multiply by both filters, sum; (B, C, H, W), (B, C, k, k), (B, k*k, H, W)."""
    side = channel.shape[-1]
    columns = F.unfold(x, side, padding=side // 2)
    columns = rearrange(columns, "b (c k) (h w) -> b c k h w", c=x.shape[1], h=x.shape[2])
    filters = rearrange(channel, "b c i j -> b c (i j) 1 1") * rearrange(spatial, "b k h w -> b 1 k h w")
    return (columns * filters).sum(dim=2)


def deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, flow: Tensor, flow_scale: int
) -> Tensor:
    """Build the nine pre-offsets of every pixel, repeat them over the groups, call torchvision.

    x (B, C, H, W), offset (B, 2*9*G, H, W), mask (B, 9*G, H, W), flow (B, H/s, W/s, 2) as (x, y).
    """
    fine = flow_scale * flow.repeat_interleave(flow_scale, dim=1).repeat_interleave(flow_scale, dim=2)
    height, width = fine.shape[1:3]
    shifts = [(i * flow_scale, j * flow_scale) for i in range(3) for j in range(3)]
    taps = torch.stack([F.pad(fine, (0, 0, j, 0, i, 0))[:, :height, :width] for i, j in shifts], dim=1)
    groups = mask.shape[1] // 9
    pre_offset = repeat(taps.flip(-1), "b k h w d -> b (g k d) h w", g=groups)
    return deform_conv2d(x, offset + pre_offset.to(offset.dtype), weight, bias, padding=1, mask=mask)
