"""MASA's matching from coarse to fine.

A place in the reference is found for each block of the LR image, then one for each pixel near that place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels import patch_argmax
from frfsr.network import Correspondence

DILATIONS = (1, 2, 3)  # of the 3x3 pixels around a block's centre that find its place
WINDOW = 1.5  # searched part of the reference, as a multiple of its share for a block


class BlockMatch(NamedTuple):
    """The matches of an LR image (h, w) in (y, x) blocks of (p, q) pixels.

    Attributes:
        block: (B, y, x), row-major place in the reference that matches a block's centre best.
        index: (B, y, x, p, q), row-major place of the best patch in its block's window of the reference.
        row: (B, y, x, p, q), of the patch's top-left pixel in the reference; below 0 it counts from the other end.
        column: likewise.
        score: (B, y, x, p, q), cosine of the two patches, with gradient.
    """

    block: Tensor
    index: Tensor
    row: Tensor
    column: Tensor
    score: Tensor


def correspondence_of(match: BlockMatch, reference: Sequence[int], size: Sequence[int]) -> Correspondence:
    """The matches by the centres of their patches.

    Args:
        match: of the LR image, its borders padded.
        reference: sides of the reduced reference.
        size: sides of the LR image.

    Returns:
        Score and flow of every pixel of the LR image.
    """
    row, column, score = (
        rearrange(value, "b y x p q -> b (y p) (x q)")[:, : size[0], : size[1]]
        for value in ((match.row + 1) % reference[0], (match.column + 1) % reference[1], match.score.detach())
    )
    across, down = (torch.arange(side, device=row.device) for side in (row.shape[2], row.shape[1]))
    flow = torch.stack([column - across, row - down[:, None]], -1)
    return Correspondence(score.float(), flow.float(), row * reference[1] + column)


def match_blocks(lr: Tensor, reference: Tensor, blocks: tuple[int, int]) -> BlockMatch:
    """Match every 3x3 patch of the LR features.

    Args:
        lr: features (B, C, h, w).
        reference: features (B, C, hr, wr) of the reduced reference.
        blocks: rows and columns of equal blocks, which divide (h, w).

    Returns:
        Where each patch was found.
    """
    rows, columns = blocks
    lr, reference = (feature.to(torch.promote_types(feature.dtype, torch.float32)) for feature in (lr, reference))
    padded = F.pad(lr, (1, 1, 1, 1), mode="replicate")
    height, width = lr.shape[-2] // rows, lr.shape[-1] // columns
    queries = padded.unfold(2, height + 2, height).unfold(3, width + 2, width)
    queries = rearrange(queries, "b c y x p q -> b (y x) c p q")
    with torch.no_grad():
        centre = coarse_search(queries, reference)
    sides = [2 * int(side // (2 * n) * WINDOW) + 3 for side, n in zip(reference.shape[-2:], blocks, strict=True)]
    top, left = (
        window_start(place, window, side)
        for place, window, side in zip(
            (centre // reference.shape[-1], centre % reference.shape[-1]), sides, reference.shape[-2:], strict=True
        )
    )
    windows = cut_windows(reference, top, left, sides)
    queries, windows = (rearrange(feature, "b n c p q -> (b n) c p q") for feature in (queries, windows))
    with torch.no_grad():
        index = patch_argmax(queries, windows)[1]
    score = cosine(queries, windows, index)
    across = sides[1] - 2
    index, score = (rearrange(value, "(b y x) p q -> b y x p q", y=rows, x=columns) for value in (index, score))
    top, left, centre = (rearrange(value, "b (y x) -> b y x", y=rows) for value in (top, left, centre))
    return BlockMatch(
        centre, index, top[..., None, None] + index // across, left[..., None, None] + index % across, score
    )


def coarse_search(queries: Tensor, reference: Tensor) -> Tensor:
    """The reference's place for the centre of each block.

    Args:
        queries: features of the blocks and a pixel around them, (B, n, C, p + 2, q + 2).
        reference: (B, C, hr, wr).

    Returns:
        (B, n), row-major numbers of its pixels.
    """
    row, column = queries.shape[-2] // 2, queries.shape[-1] // 2
    total = torch.zeros((), device=reference.device)
    for dilation in DILATIONS:
        rows, columns = (slice(at - dilation, at + dilation + 1, dilation) for at in (row, column))
        patches = F.normalize(rearrange(queries[..., rows, columns], "b n c i j -> b n (c i j)"), dim=-1)
        kernels = rearrange(patches, "b n (c i j) -> (b n) c i j", i=3, j=3)
        image = rearrange(reference, "b c h w -> 1 (b c) h w")
        product = F.conv2d(image, kernels, padding=dilation, dilation=dilation, groups=len(reference))
        product = rearrange(product, "1 (b n) h w -> b n h w", b=len(reference))
        energy = reference.square().sum(1, keepdim=True)
        norm = F.conv2d(energy, energy.new_ones(1, 1, 3, 3), padding=dilation, dilation=dilation).sqrt()
        total = total + product / norm.clamp_min(1e-12)
    return rearrange(total, "b n h w -> b n (h w)").argmax(-1)


def window_start(centre: Tensor, window: int, side: int) -> Tensor:
    """First row (or column) of windows around their centres, moved inside where they fit; else it is negative."""
    return (centre - window // 2).clamp_min(0).clamp_max(side - window)


def cut_windows(reference: Tensor, top: Tensor, left: Tensor, sides: list[int]) -> Tensor:
    """Cut windows; one that is larger than the reference goes round it.

    Args:
        reference: (B, C, hr, wr).
        top: (B, n), first rows.
        left: (B, n), first columns.
        sides: rows and columns of a window.

    Returns:
        (B, n, C, *sides).
    """
    rows, columns = (
        (start[..., None] + torch.arange(side, device=start.device)) % whole
        for start, side, whole in zip((top, left), sides, reference.shape[-2:], strict=True)
    )
    batch = torch.arange(len(reference), device=top.device)[:, None, None, None]
    windows = rearrange(reference, "b c h w -> b h w c")[batch, rows[..., :, None], columns[..., None, :]]
    return rearrange(windows, "b n p q c -> b n c p q")


def cosine(queries: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Cosine of each 3x3 patch of (N, C, p + 2, q + 2) and the key's patch of that number, (N, p, q); with gradient."""
    query, key = (F.normalize(F.unfold(feature, 3), dim=1) for feature in (queries, keys))
    key = key.gather(2, rearrange(index, "n p q -> n 1 (p q)").expand(-1, key.shape[1], -1))
    return rearrange((query * key).sum(1), "n (p q) -> n p q", p=index.shape[1])


def transfer(reference: Tensor, match: BlockMatch, scale: int) -> Tensor:
    """The reference's features at the matched places, weighted by the score.

    Every pixel is the mean of what the nine patches that cover it, inside its block, have at that pixel.

    Args:
        reference: (B, C, scale * hr, scale * wr).
        match: of the LR image.
        scale: 1, 2 or 4.

    Returns:
        (B, C, scale * h, scale * w).
    """
    height, width = (side // scale for side in reference.shape[-2:])
    source = rearrange(reference, "b c (h s) (w t) -> b (c s t) (h w)", s=scale, t=scale)
    row, column = (F.pad(place, (1, 1, 1, 1)) for place in (match.row, match.column))
    inside = F.pad(torch.ones_like(match.row), (1, 1, 1, 1))
    p, q = match.row.shape[-2:]
    total = covers = reference.new_zeros(())
    for i in range(3):
        for j in range(3):
            patch = (..., slice(2 - i, 2 - i + p), slice(2 - j, 2 - j + q))
            place = (row[patch] + i) % height * width + (column[patch] + j) % width
            place = rearrange(place, "b y x p q -> b 1 (y p x q)").expand(-1, source.shape[1], -1)
            taken = source.gather(2, place)
            covered = rearrange(inside[patch], "b y x p q -> b 1 (y p x q)").to(taken.dtype)
            total, covers = total + taken * covered, covers + covered
    mean = rearrange(
        total / covers,
        "b (c s t) (y p x q) -> b c (y p s) (x q t)",
        s=scale,
        t=scale,
        y=match.row.shape[1],
        x=match.row.shape[2],
        p=p,
        q=q,
    )
    weight = rearrange(match.score, "b y x p q -> b (y x) p q")
    weight = F.interpolate(weight, scale_factor=scale, mode="bilinear", align_corners=False)
    return mean * rearrange(weight, "b (y x) p q -> b 1 (y p) (x q)", y=match.row.shape[1]).to(mean.dtype)
