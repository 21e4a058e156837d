"""Best match of every 3x3 patch by cosine similarity (equations 5-7), without ever holding the similarity matrix."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5  # added to the norm of every patch, so that an empty patch scores 0 instead of NaN
BLOCK_ELEMENTS = 2**20  # similarities held at a time on the CPU: small enough to stay in its cache


def patch_argmax_reference(query: Tensor, key: Tensor, patch_size: int = 3) -> tuple[Tensor, Tensor]:
    """The definition: unfold all patches, multiply them, take the maximum. Shapes as in :func:`patch_argmax`."""
    height, width = query.shape[-2] - patch_size + 1, query.shape[-1] - patch_size + 1
    query_patches, key_patches = F.unfold(query, patch_size), F.unfold(key, patch_size)
    query_patches = query_patches / (query_patches.norm(dim=1, keepdim=True) + EPSILON)
    key_patches = key_patches / (key_patches.norm(dim=1, keepdim=True) + EPSILON)
    similarity = torch.einsum("b c q, b c k -> b q k", query_patches, key_patches)
    similarity = similarity.masked_fill(similarity.isnan(), -torch.inf)
    score, index = similarity.max(dim=-1)
    score = score.masked_fill(score == -torch.inf, torch.nan)
    return tuple(rearrange(t, "b (h w) -> b h w", h=height, w=width) for t in (score, index))


def _patch_scale(feature: Tensor, patch_size: int) -> Tensor:
    """1 / (norm + epsilon) of every patch: (C, H, W) -> (H - patch_size + 1, W - patch_size + 1)."""
    energy = feature.square().sum(dim=0)
    energy = energy.unfold(0, patch_size, 1).unfold(1, patch_size, 1).sum(dim=(-2, -1))
    return 1 / (energy.sqrt() + EPSILON)


def _match_rows(query: Tensor, key: Tensor, key_scale: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Best key patch for the query patches of a few rows: (C, h, w), (C, H, W) -> score and index of h - 2 rows.

    The inner product of two patches is the sum of their nine pixels' inner products, so the pixels are multiplied once
    (a ninth of the work of multiplying patches) and the product is summed along its diagonal, first over x, then over y.
    """
    height, width = query.shape[1] - patch_size + 1, query.shape[2] - patch_size + 1
    key_height, key_width = key_scale.shape
    pixels = rearrange(query, "c h w -> (h w) c") @ rearrange(key, "c h w -> c (h w)")
    pixels = pixels.view(query.shape[1], query.shape[2], key.shape[1], key.shape[2])
    rows = pixels[:, :width, :, :key_width].clone()
    for x in range(1, patch_size):
        rows += pixels[:, x : x + width, :, x : x + key_width]
    similarity = rows[:height, :, :key_height].clone()
    for y in range(1, patch_size):
        similarity += rows[y : y + height, :, y : y + key_height]
    similarity = (similarity * key_scale).flatten(2)
    return similarity.max(dim=-1)


def _patch_argmax_blocked(query: Tensor, key: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """The exact search in blocks of rows; memory is linear in the image."""
    batch = query.shape[0]
    height, width = query.shape[-2] - patch_size + 1, query.shape[-1] - patch_size + 1
    score = query.new_full((batch, height, width), -torch.inf)
    index = torch.zeros_like(score, dtype=torch.int64)
    key_width = key.shape[-1] - patch_size + 1
    step = max(1, BLOCK_ELEMENTS // (patch_size * query.shape[-1] * key.shape[-1]) - patch_size + 1)
    for b in range(batch):
        key_scale = _patch_scale(key[b], patch_size)
        for top in range(height):
            rows = query[b, :, top : top + patch_size]
            for start in range(0, key_scale.shape[0], step):
                stop = min(start + step, key_scale.shape[0])
                block, position = _match_rows(
                    rows, key[b, :, start : stop + patch_size - 1], key_scale[start:stop], patch_size
                )
                better = block > score[b, top : top + 1]  # strictly: the lowest index keeps a tie
                score[b, top : top + 1] = torch.where(better, block, score[b, top : top + 1])
                index[b, top : top + 1] = torch.where(better, position + start * key_width, index[b, top : top + 1])
        score[b] *= _patch_scale(query[b], patch_size)
    return score, index


@torch.library.custom_op("frfsr::patch_argmax", mutates_args=())
def _patch_argmax(query: Tensor, key: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    return _patch_argmax_blocked(query.float(), key.float(), patch_size)


@_patch_argmax.register_fake
def _(query: Tensor, key: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], query.shape[2] - patch_size + 1, query.shape[3] - patch_size + 1)
    return query.new_empty(shape, dtype=torch.float32), query.new_empty(shape, dtype=torch.int64)


def patch_argmax(query: Tensor, key: Tensor, patch_size: int = 3) -> tuple[Tensor, Tensor]:
    """For every patch of ``query`` the most similar patch of ``key``.

    | argument   | shape              | meaning                                                                   |
    |------------|--------------------|---------------------------------------------------------------------------|
    | query      | (B, C, Hq, Wq)     | features, usually of unit length per pixel                                |
    | key        | (B, C, Hk, Wk)     | features to search, of any other size                                     |
    | patch_size |                    | side p of a patch, stride 1, only patches wholly inside                   |
    | score      | (B, Hq-p+1, Wq-p+1) | float32 in [-1, 1]: ``<q, k> / ((|q| + 1e-5) (|k| + 1e-5))``, maximal over k |
    | index      | (B, Hq-p+1, Wq-p+1) | int64, ``row * (Wk-p+1) + column`` of the best patch; the lowest on ties  |

    A choice has no gradient: both results are detached.

    Raises ``ValueError`` if the shapes do not fit each other or an image is smaller than a patch.
    """
    if query.ndim != 4 or key.ndim != 4 or query.shape[:2] != key.shape[:2]:
        raise ValueError(
            f"patch_argmax needs query (B, C, Hq, Wq) and key (B, C, Hk, Wk), not {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if min(*query.shape[2:], *key.shape[2:]) < patch_size:
        raise ValueError(f"patch_argmax with patches of {patch_size} needs sides of at least {patch_size} pixels")
    return _patch_argmax(query.detach(), key.detach(), patch_size)
