"""A faster search than the exact one, for large photos: at half the resolution first, then around what was found.

Each halving makes the search 16 times cheaper, so it is repeated until the exact search of what remains is cheap. Then,
level by level, a position looks at the places to which its own coarse match and those of its four neighbours point, and
one further in every direction. Not exact: what the pooled features do not show is not found.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from frfsr.kernels import patch_argmax

EXACT_PAIRS = 10**9  # pairs of positions that the exact search compares in seconds
SMALLEST = 8  # positions: sides below are not halved
BLOCK = 2048  # positions that are refined at a time: 13 MB for 64 channels
WINDOW = 5  # places along each axis whose pixels the nine patches around a candidate touch
EPSILON = 1e-5  # of the exact search's norms
NEIGHBOURS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


def coarse_to_fine(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Search as `frfsr.kernels.patch_argmax` does with patches of 3x3, but at half the resolution first.

    Args:
        query: features of unit length per pixel, (B, C, Hq, Wq).
        key: features to search, (B, C, Hk, Wk).

    Returns:
        Score and number of the best patch found, (B, Hq - 2, Wq - 2) each.
    """
    if min(*query.shape[-2:], *key.shape[-2:]) < 2 * SMALLEST:
        return patch_argmax(query, key)
    small_query, small_key = (F.normalize(F.avg_pool2d(feature, 2), dim=1) for feature in (query, key))
    pairs = small_query[0, 0].numel() * small_key[0, 0].numel()
    _, index = (patch_argmax if pairs <= EXACT_PAIRS else coarse_to_fine)(small_query, small_key)
    found = [
        around(features, keys, patches, small_key.shape[-1] - 2)
        for features, keys, patches in zip(query, key, index, strict=True)
    ]
    score, index = (torch.stack(parts) for parts in zip(*found, strict=True))
    return score, index


def around(query: Tensor, key: Tensor, coarse: Tensor, coarse_width: int) -> tuple[Tensor, Tensor]:
    """Refine the matches of one image at half the resolution.

    Args:
        query: (C, Hq, Wq).
        key: (C, Hk, Wk).
        coarse: numbers of the patches found, (Hq // 2 - 2, Wq // 2 - 2).
        coarse_width: of the grid on which they count, Wk // 2 - 2.

    Returns:
        Score and number of the best patch, (Hq - 2, Wq - 2) each.
    """
    height, width = (side - 2 for side in query.shape[-2:])
    rows, columns = (side - 2 for side in key.shape[-2:])
    step = torch.arange(WINDOW, device=query.device)
    pixels, keys = rearrange(query, "c h w -> (h w) c"), rearrange(key, "c h w -> (h w) c")
    scale = 1 / (patch_norms(key) + EPSILON)
    best = query.new_full((height, width), -torch.inf)
    index = torch.zeros_like(best, dtype=torch.int64)
    lookup = (step[:3, None, None, None] + step[:3, None]) * WINDOW + step[:3, None, None] + step[:3]
    lookup = rearrange(lookup, "i j u v -> (i j) (u v)")  # of tap (u, v) of the patch at (i, j) in the window
    corners = starts(coarse, coarse_width, (height, width), (rows, columns))
    for number, corner in enumerate(corners):
        new = (corner != corners[:number]).all(0)  # neighbours mostly point to one place, which is looked at once
        for block in new.nonzero()[:, 0].split(BLOCK):
            top, left = corner[block] // columns, corner[block] % columns
            patch = (block // width * query.shape[-1] + block % width)[:, None] + taps(3, query.shape[-1], block)
            window = (top * key.shape[-1] + left)[:, None] + taps(WINDOW, key.shape[-1], block)
            product = einsum(pixels[patch], keys[window], "n tap c, n place c -> n tap place")
            total = torch.stack([product[:, tap, lookup[:, tap]] for tap in range(9)]).sum(0)
            places = (top[:, None] + step[:3].repeat_interleave(3)) * columns + left[:, None] + step[:3].repeat(3)
            score, chosen = (total.float() * scale.flatten()[places]).max(dim=1)
            before = best.view(-1)[block]
            better = score > before
            best.view(-1)[block] = torch.where(better, score.to(best), before)
            places = places.gather(1, chosen[:, None])[:, 0]
            index.view(-1)[block] = torch.where(better, places, index.view(-1)[block])
    return best.float() / (patch_norms(query) + EPSILON), index


def starts(coarse: Tensor, coarse_width: int, size: tuple[int, int], key_size: tuple[int, int]) -> Tensor:
    """Where to look: around the place to which each neighbour's coarse match points.

    Args:
        coarse: numbers of the patches found, (h, w).
        coarse_width: of the grid on which they count.
        size: H, W of the grid of patches whose matches are refined.
        key_size: of the grid of patches in which they are searched, 3x3 at least.

    Returns:
        Numbers of the first of 3x3 patches, for each neighbour, (5, H * W).
    """
    numbers = []
    y, x = (torch.arange(side, device=coarse.device) for side in size)
    rows, columns = key_size
    for down, right in NEIGHBOURS:
        near_y = ((y - 1).div(2, rounding_mode="floor") + down).clamp(0, coarse.shape[0] - 1)
        near_x = ((x - 1).div(2, rounding_mode="floor") + right).clamp(0, coarse.shape[1] - 1)
        place = coarse[near_y[:, None], near_x]
        top = y[:, None] + 2 * (place // coarse_width - near_y[:, None])
        left = x + 2 * (place % coarse_width - near_x)
        numbers.append((top.clamp(1, rows - 2) - 1) * columns + left.clamp(1, columns - 2) - 1)
    return rearrange(numbers, "neighbour h w -> neighbour (h w)")


def patch_norms(feature: Tensor) -> Tensor:
    """Euclidean norms of all 3x3 patches of (C, H, W): (H - 2, W - 2) float32."""
    energy = feature.float().square().sum(0, keepdim=True)
    return F.avg_pool2d(energy, 3, stride=1, divisor_override=1)[0].clamp(min=0).sqrt()


def taps(side: int, width: int, like: Tensor) -> Tensor:
    """Distances of the side x side pixels of a window from its first one in an image of this width, row by row."""
    step = torch.arange(side, device=like.device)
    return (step[:, None] * width + step).flatten()
