"""The CPU path of :mod:`frfsr.kernels.match`: products of pixels, summed along diagonals, in blocks of the key."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import torch
from einops import rearrange
from torch import Tensor

from frfsr.kernels._constants import EPSILON, EXPONENT_LIMIT
from frfsr.kernels._tensors import accumulator_dtype

BLOCK_ELEMENTS = 2**18  # pixel products held at a time: 1 MB, so that they stay in a core's cache
SMALL_ELEMENTS = 2**20  # pixel products of maps that are multiplied at once
BLOCK_SIDE = 24  # rows and fewest columns of a block of the key; overlapping borders are multiplied twice


def prepare(feature: Tensor, patch_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute what the search needs of a feature map, at the cost of one copy of it.

    Args:
        feature: (B, C, H, W).
        patch_size: side of a patch in pixels.
        dtype: of the result.

    Returns:
        The pixels (B, H, W, C), with non-finite pixels zeroed and each image scaled by a power of two (exact) so that
        its squares stay in range; and 1 / (norm + epsilon) of every patch, (B, H - patch_size + 1,
        W - patch_size + 1), which is 0 where the patch may not be matched.
    """
    pixels = rearrange(feature, "b c h w -> b h w c").to(dtype, copy=True, memory_format=torch.contiguous_format)
    peak = torch.linalg.vector_norm(pixels, ord=torch.inf, dim=-1)
    finite = peak.isfinite()
    exponent = torch.frexp(peak.where(finite, 0).amax(dim=(1, 2))).exponent
    factor = torch.exp2(-exponent.clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT).to(dtype))
    pixels.masked_fill_(~finite[..., None], 0).mul_(factor[:, None, None, None])
    norm = _patch_sum(torch.linalg.vector_norm(pixels, dim=-1).square(), patch_size).sqrt()
    usable = _patch_sum((~finite).to(dtype), patch_size) == 0
    scale = 1 / (norm + EPSILON * factor[:, None, None])
    return pixels, scale.where(usable, 0)


def _patch_sum(image: Tensor, patch_size: int) -> Tensor:
    return image.unfold(1, patch_size, 1).unfold(2, patch_size, 1).sum(dim=(-2, -1))


@contextmanager
def _bfloat16_products(enabled: bool) -> Iterator[None]:
    """Let matrix products of float32 tensors round their operands to bfloat16, which is exact for widened bfloat16.

    It uses the processor's bfloat16 units while sums and results stay float32.
    """
    matmul = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = matmul.fp32_precision
    if enabled:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _sum(terms: list[Tensor], out: Tensor) -> None:
    torch.add(terms[0], terms[1] if len(terms) > 1 else 0, out=out)
    for term in terms[2:]:
        out += term


def _patch_products(query: Tensor, key: Tensor, patch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inner products of patches, for one row of the query after the other or, of small maps, for all at once.

    Args:
        query: (H, W, C).
        key: (h, w, C).
        patch_size: side.

    Yields:
        Bounds and products, valid until the next ones: (q, n), among whose n are those with every patch of the key, and
        (q, y', x'); q are the patches of one row of the query, or of all its rows.
    """
    if query.shape[0] * query.shape[1] * key.shape[0] * key.shape[1] <= SMALL_ELEMENTS:
        patches = _all_patch_products(query, key, patch_size)
        yield patches.flatten(1), patches
    else:
        yield from _row_patch_products(query, key, patch_size)


def _all_patch_products(query: Tensor, key: Tensor, patch_size: int) -> Tensor:
    """(q, y', x') of all patches of small maps: as `_row_patch_products`, without the cost of many small steps."""
    border = patch_size - 1
    products = query.new_empty(*query.shape[:2], *key.shape[:2])
    keys = rearrange(key, "h w c -> c (h w)")
    # Row by row, so that scores do not depend on how many rows there are; with `out`, which autocast leaves alone.
    torch.bmm(query, keys.expand(len(query), -1, -1), out=products.flatten(2))
    for side in (1, 0):  # along x, then along y
        length, key_length = products.shape[side] - border, products.shape[side + 2] - border
        steps = [products.narrow(side, i, length).narrow(side + 2, i, key_length) for i in range(patch_size)]
        products = steps[0] + steps[1] if patch_size > 1 else steps[0]
        for step in steps[2:]:
            products += step
    return products.flatten(0, 1)


def _row_patch_products(query: Tensor, key: Tensor, patch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """See `_patch_products`.

    The inner product of two patches is the sum of the inner products of their pixels. So pixels are multiplied once,
    a ninth of the work of multiplying patches, and the product is summed along its diagonal: over x inside the product
    of two rows, over y across the last few of them. A diagonal step in a flattened product of shape (x, y' x') is a
    constant stride; sums that run over the end of a row are garbage, and fall off when patches are cut out.
    """
    rows, columns, _ = key.shape
    border = patch_size - 1
    keys = rearrange(key, "h w c -> c (h w)")
    size, diagonal = query.shape[1] * keys.shape[1], keys.shape[1] + 1
    row_sums, sums = size - border * diagonal, size - border * (diagonal + columns)

    products = query.new_empty(size)
    window = query.new_zeros(patch_size, size)  # the last row sums, used in turn
    total = query.new_zeros(size)
    lines = rearrange(total, "(x v u) -> x (v u)", v=rows, u=columns)[: query.shape[1] - border]
    patches = rearrange(lines, "x (v u) -> x v u", u=columns)[:, : rows - border, : columns - border]
    for y in range(query.shape[0]):
        torch.mm(query[y], keys, out=products.view(query.shape[1], -1))
        _sum([products[x * diagonal :][:row_sums] for x in range(patch_size)], out=window[y % patch_size, :row_sums])
        top = y - border
        if top < 0:
            continue
        _sum([window[(top + i) % patch_size, i * columns :][:sums] for i in range(patch_size)], out=total[:sums])
        yield lines, patches


def patch_argmax_cpu(query: Tensor, key: Tensor, patch_size: int = 3) -> tuple[Tensor, Tensor]:
    """The exact search by PyTorch operators in blocks of the key. Arguments as in :func:`frfsr.kernels.patch_argmax`.

    Blocks overlap by a patch and all have the same size, so that equal patches get bit-equal scores wherever they lie.
    """
    compute, border = accumulator_dtype(query), patch_size - 1
    queries, query_scale = prepare(query, patch_size, compute)
    keys, key_scale = prepare(key, patch_size, compute)
    best = torch.full_like(query_scale, -torch.inf).flatten(1)
    index = torch.zeros_like(best, dtype=torch.int64)
    height, width = key_scale.shape[1:]
    rows = _even(height, BLOCK_SIDE - border)
    columns = _even(width, max(BLOCK_SIDE, BLOCK_ELEMENTS // ((rows + border) * query.shape[3])) - border)
    with _bfloat16_products(query.dtype == torch.bfloat16):
        for b, row, column in product(range(query.shape[0]), _starts(height, rows), _starts(width, columns)):
            block = keys[b, row : row + rows + border, column : column + columns + border]
            scale = key_scale[b, row : row + rows, column : column + columns]
            unusable = scale == 0
            if unusable.all():
                continue
            usable = scale[~unusable]
            extremes = torch.stack([usable.min(), usable.max()])
            first = 0
            for lines, patches in _patch_products(queries[b], block, patch_size):
                here = slice(first, first := first + len(lines))
                # Few blocks improve a query: only where a bound on the score allows it are scores and places computed.
                bound = (lines.amax(dim=1, keepdim=True) * extremes).amax(dim=1)
                candidates = (bound >= best[b, here]).nonzero()[:, 0]
                if not len(candidates):
                    continue
                similarity = (patches[candidates] * scale).masked_fill_(unusable, -torch.inf)
                score, place = similarity.flatten(1).max(dim=1)
                place = (row + place // columns) * width + column + place % columns
                before, before_index = best[b, here][candidates], index[b, here][candidates]
                better = (score > before) | ((score == before) & (place < before_index))
                best[b, here][candidates] = torch.where(better, score, before)
                index[b, here][candidates] = torch.where(better, place, before_index)
    best, index = best.view_as(query_scale), index.view_as(query_scale)
    missing = (best == -torch.inf) | (query_scale == 0)
    return (best * query_scale).float().masked_fill(missing, torch.nan), index.masked_fill(missing, 0)


def _even(size: int, most: int) -> int:
    """The size of equal blocks of at most ``most`` that cover ``size``."""
    blocks = -(-size // max(1, most))
    return -(-size // blocks)


def _starts(size: int, block: int) -> list[int]:
    """Where blocks begin that cover ``size``; the last one moves back instead of shrinking."""
    return [min(start, size - block) for start in range(0, size, block)]
