"""CTW, correlation-based texture warp (section III-B): features -> correspondence -> flow."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels import patch_argmax

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
BLOCK = 16  # pixels, side of the blocks of `refine`
QUERIES_AT_ONCE = 1024  # of `refine`: bounds its memory to some 10 MB


class Correspondence(NamedTuple):
    """For every LR position the best matching place in the reference.

    score: (B, h, w) float32, cosine of the two 3x3 patches, -1 ... 1 (eq. 6); 0 where nothing was matched.
    flow: (B, h, w, 2) float32, displacement (x, y) in LR pixels = reference pixels / 4 (eq. 9), whole numbers unless it
        is refined. With "same" padding it
        belongs to the patch centred on the pixel, with "valid" to the patch whose top-left corner is the pixel.
    index: (B, hq, wq) int64, row-major number of the matched patch in the reference's patch grid (eq. 7).
    """

    score: Tensor
    flow: Tensor
    index: Tensor


def index_to_flow(index: Tensor, reference_width: int) -> Tensor:
    """Eq. 8-9: patch numbers (B, h, w) on a grid `reference_width` wide -> displacements (B, h, w, 2) as (x, y)."""
    _, height, width = index.shape
    column = torch.arange(width, device=index.device)
    row = torch.arange(height, device=index.device)[:, None]
    x = index % reference_width - column
    y = index.div(reference_width, rounding_mode="floor") - row
    return torch.stack([x, y], dim=-1).float()


def correspond(query: Tensor, key: Tensor, padding: str) -> Correspondence:
    """Eq. 5-9: texture features of the LR image (B, C, h, w) and of the reference (B, C, hr, wr) -> Correspondence.

    Each pixel's feature is normalised first, as published. padding: "same" matches a patch around every pixel (borders
    replicated); "valid" matches only patches wholly inside, stores the flow at their top-left pixel, and gives zero
    flow to the last two rows and columns.
    """
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    if padding == "same":
        query, key = (F.pad(feature, (1, 1, 1, 1), mode="replicate") for feature in (query, key))
    score, index = patch_argmax(query, key)
    flow = index_to_flow(index, key.shape[-1] - 2)
    if padding == "valid":
        flow = F.pad(flow, (0, 0, 0, 2, 0, 2))
        score = F.pad(score, (1, 1, 1, 1))
    return Correspondence(score, flow, index)


def blurred_luma(image: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of an RGB image without what the LR image cannot hold: reduced to a quarter and enlarged
    again."""
    image = image.float()  # the CPU has no antialiased interpolation of half precision
    luma = (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    small = F.interpolate(luma, scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False)
    return F.interpolate(small, scale_factor=4, mode="bicubic", antialias=True, align_corners=False)


def refine(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    """Block matching around the matched position, to a quarter of an LR pixel (not in the paper).

    flow: (B, h, w, 2) in LR pixels; query, key: luma of the enlarged LR image (B, 1, 4h, 4w) and of the reference,
    blurred alike, (B, 1, Hr, Wr); radius: of the search, in pixels of the reference. The block of 16x16 pixels around
    every LR pixel moves to the place of highest normalised cross-correlation; among equal ones to the nearest.
    """
    batch, height, width, _ = flow.shape
    margin = (BLOCK - 4) // 2
    blocks = F.unfold(F.pad(query, (margin,) * 4, mode="replicate"), BLOCK, stride=4)
    blocks = rearrange(blocks, "b (i j) n -> b n i j", i=BLOCK)
    blocks = blocks - blocks.mean((2, 3), keepdim=True)
    position = rearrange(flow, "b h w xy -> b (h w) xy") + torch.stack(
        torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1
    ).to(flow).flatten(0, 1)
    # Around the key so much that every window of a position inside it is whole.
    before, after = margin + radius, BLOCK - margin + radius
    key = F.pad(key, (before, after, before, after), mode="replicate")
    variance = F.avg_pool2d(key.square(), BLOCK, 1) - F.avg_pool2d(key, BLOCK, 1).square()
    span = torch.arange(BLOCK + 2 * radius, device=flow.device)
    step = torch.arange(-radius, radius + 1, device=flow.device)
    steps = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).flatten(0, 1).flip(-1)
    penalty = 1e-4 * steps.float().norm(dim=1)
    refined = []
    for b in range(batch):
        for chunk in range(0, height * width, QUERIES_AT_ONCE):
            block = blocks[b, chunk : chunk + QUERIES_AT_ONCE]
            at = 4 * position[b, chunk : chunk + QUERIES_AT_ONCE].round().long()
            column, row = (rearrange(at, "n xy -> xy n 1") + span).unbind()
            window = key[b, 0, row[:, :, None], column[:, None]]
            spread = variance[b, 0, row[:, : len(step), None], column[:, None, : len(step)]]
            with torch.autocast(window.device.type, enabled=False):
                product = F.conv2d(window[None], block[:, None], groups=len(block))[0]
            score = rearrange(product * spread.clamp_min(1e-8).rsqrt(), "n i j -> n (i j)")
            norm = block.square().mean((1, 2)).clamp_min(1e-8).sqrt()[:, None] * BLOCK**2
            refined.append(steps[(score / norm - penalty).argmax(1)])
    return flow + rearrange(torch.cat(refined).to(flow) / 4, "(b h w) xy -> b h w xy", b=batch, h=height)


def enlarge_flow(flow: Tensor, scale: int) -> Tensor:
    """Flow (B, h, w, 2), coarse pixels -> (B, h*scale, w*scale, 2), fine pixels: nearest repeat, times the scale."""
    return scale * flow.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def enlarge_score(score: Tensor, scale: int) -> Tensor:
    """Score (B, h, w) -> (B, 1, h*scale, w*scale), nearest."""
    return rearrange(score, "b h w -> b 1 h w").repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
