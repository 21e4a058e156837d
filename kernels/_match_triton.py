"""Triton kernel of :mod:`frfsr.kernels.match`, imported only where Triton runs."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from frfsr.kernels._dispatch import on_device_of_first
from frfsr.kernels._match_prepare_triton import BORDER, LOWEST, patch_scales, prepare_triton, unpack

MANY_PROGRAMS = 4096  # beyond this, long walks keep a GPU busy; below, shorter ones spread the work


class Tile(NamedTuple):
    """A block of products: query pixels x key pixels, channels per step, and how Triton is to run it."""

    queries: int
    keys: int
    channels: int
    num_warps: int
    num_stages: int


# Three tiles of float32 sums live in registers, which sets the block sizes.
HOPPER_HALF = Tile(queries=128, keys=128, channels=64, num_warps=8, num_stages=4)
HOPPER_TF32 = Tile(queries=128, keys=128, channels=32, num_warps=8, num_stages=4)
TENSOR_CORE = Tile(queries=64, keys=128, channels=32, num_warps=8, num_stages=3)
FLOAT32 = Tile(queries=64, keys=64, channels=16, num_warps=8, num_stages=2)


@triton.jit
def match_kernel(
    query,  # (B, Hq, query_width, C): width padded to whole tiles + 2, C to whole steps, both with zeros
    key,  # (B, Hk, key_width, C)
    key_scale,  # (B, Hk - 2, key_width - 2) float32, 0 where no patch may be matched
    best,  # (B, Hq - 2, Wq - 2) int64: order-preserving bits of the score above the complement of the index
    query_rows,
    key_rows,
    query_width,
    key_width,
    query_patches,  # Wq - 2
    key_patches,  # Wk - 2
    segment,  # patch rows that one program walks
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    STEP: tl.constexpr,
    COPY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Walk down a diagonal of (query row, key row) pairs and keep the best key of every query met.

    Three neighbouring pixels of a row are 3C consecutive numbers, so the product of a query row with a key row, summed
    over three pixels along x, is a matrix product over 3C in which the rows of a tile overlap. The product of 3x3
    patches is the sum of the last three such products on the way down, so each of them serves three times.

    The merge between programs is a maximum of integers: independent of their order, and the lowest index wins ties.
    """
    tile = tl.program_id(1)
    query_tiles = (query_width - 2) // QUERIES
    x = tile % query_tiles * QUERIES + tl.arange(0, QUERIES)
    u = tile // query_tiles * KEYS + tl.arange(0, KEYS)
    batch = tl.program_id(2).to(tl.int64)
    query += batch * query_rows * query_width * CHANNELS
    key += batch * key_rows * key_width * CHANNELS
    key_scale += batch * (key_rows - 2) * (key_width - 2)
    best += batch * (query_rows - 2) * query_patches

    # A diagonal is named by its shift v - y. The middle one is the longest: it starts first, the shortest last.
    segments = tl.cdiv(tl.minimum(query_rows, key_rows) - 2, segment)
    number = tl.program_id(0) // segments
    shift = ((key_rows - query_rows) >> 1) + (number + 1) // 2 * tl.where(number % 2 == 1, 1, -1)
    first = tl.maximum(-shift, 0) + tl.program_id(0) % segments * segment
    rows = tl.minimum(segment + 2, tl.minimum(query_rows - first, key_rows - first - shift))
    rows = tl.where(rows < 3, 0, rows)

    query += tile % query_tiles * QUERIES * CHANNELS
    key += tile // query_tiles * KEYS * CHANNELS
    # What is said of their contiguity sets how much one load takes, see copy_length.
    query_offset = tl.max_contiguous(tl.arange(0, QUERIES)[:, None] * CHANNELS + tl.arange(0, STEP)[None, :], (1, COPY))
    key_offset = tl.max_contiguous(tl.arange(0, KEYS)[:, None] * CHANNELS + tl.arange(0, STEP)[None, :], (1, COPY))
    PARTS: tl.constexpr = CHANNELS // STEP
    product = tl.zeros((QUERIES, KEYS), tl.float32)
    last = tl.zeros((QUERIES, KEYS), tl.float32)  # the previous row pair
    last_two = tl.zeros((QUERIES, KEYS), tl.float32)  # the sum of the previous two
    # One flat loop over rows, channels and pixels, so that loads run ahead from one row pair into the next.
    for i in range(rows * PARTS * 3):
        y = first + i // (PARTS * 3)
        # The three pixels come one after the other for the same channels: they share most of their cache lines.
        part = (i % 3) * CHANNELS + (i // 3 % PARTS) * STEP
        a = tl.load(query + y.to(tl.int64) * query_width * CHANNELS + part + query_offset, cache_modifier=".ca")
        b = tl.load(key + (y + shift).to(tl.int64) * key_width * CHANNELS + part + key_offset, cache_modifier=".ca")
        product = tl.dot(a, tl.trans(b), product, input_precision=PRECISION)
        if i % (PARTS * 3) == PARTS * 3 - 1:
            y -= 2
            v = y + shift
            if y >= first:
                scale = tl.load(key_scale + v.to(tl.int64) * (key_width - 2) + u)
                similarity = tl.where(scale[None, :] > 0, (last_two + product) * scale[None, :], -float("inf"))
                score, column = tl.max(similarity, axis=1, return_indices=True)
                bits = (score + 0.0).to(tl.int32, bitcast=True)  # adding 0 turns -0 into 0, which is equal to it
                ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
                index = v.to(tl.int64) * key_patches + tile // query_tiles * KEYS + column
                packed = (ordered.to(tl.int64) << 32) | (0xFFFFFFFF - index)
                found = (x < query_patches) & (score > -float("inf"))
                tl.atomic_max(best + y.to(tl.int64) * query_patches + x, packed, mask=found, sem="relaxed")
            last_two = last + product
            last = product
            product = tl.zeros((QUERIES, KEYS), tl.float32)


def tile_for(dtype: torch.dtype, tf32: bool, hopper: bool) -> Tile:
    """The block shape for products of a dtype; ``tf32`` matters to float32 only."""
    if dtype == torch.float32 and not tf32:
        return FLOAT32
    if not hopper:
        return TENSOR_CORE
    return HOPPER_TF32 if dtype == torch.float32 else HOPPER_HALF


def copy_length(dtype: torch.dtype, hip: bool) -> int:
    """Neighbouring numbers that one load takes: 8 bytes on NVIDIA.

    There the copies into shared memory run asynchronously, and those of 16 bytes bypass the L1 cache, in which two of
    the three pixels' loads are to hit.
    """
    return (16 if hip else 8) // dtype.itemsize


def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device)[0] == 9


@on_device_of_first
def patch_argmax_triton(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`frfsr.kernels.patch_argmax` for 3x3 patches."""
    tf32 = query.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    tile = tile_for(query.dtype, tf32, _is_hopper(query.device))
    batch, channels, query_rows, query_columns = query.shape
    key_rows, key_columns = key.shape[-2:]
    query_patches, key_patches = query_columns - BORDER, key_columns - BORDER
    query_tiles, key_tiles = triton.cdiv(query_patches, tile.queries), triton.cdiv(key_patches, tile.keys)
    query_width, key_width = query_tiles * tile.queries + BORDER, key_tiles * tile.keys + BORDER
    padded_channels = triton.cdiv(channels, tile.channels) * tile.channels

    queries = prepare_triton(query, query_width, padded_channels)
    keys = prepare_triton(key, key_width, padded_channels)
    best = torch.full((batch, query_rows - BORDER, query_patches), LOWEST, dtype=torch.int64, device=query.device)

    walk = min(query_rows, key_rows) - BORDER
    diagonals = query_rows + key_rows - 2 * BORDER - 1  # those with at least one patch of each
    segment = 128 if batch * diagonals * query_tiles * key_tiles > MANY_PROGRAMS else 32
    match_kernel[(diagonals * triton.cdiv(walk, segment), query_tiles * key_tiles, batch)](
        queries.pixels,
        keys.pixels,
        patch_scales(keys, key_width - BORDER),
        best,
        query_rows,
        key_rows,
        query_width,
        key_width,
        query_patches,
        key_patches,
        segment,
        CHANNELS=padded_channels,
        QUERIES=tile.queries,
        KEYS=tile.keys,
        STEP=tile.channels,
        COPY=copy_length(query.dtype, hip=torch.version.hip is not None),
        PRECISION="tf32" if tf32 else "ieee",
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return unpack(best, queries)
