"""Best match of every 3x3 patch by cosine similarity (equations 5-7), without ever holding the similarity matrix."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from frfsr.kernels._constants import EPSILON
from frfsr.kernels._dispatch import form_for, operation
from frfsr.kernels._match_cpu import patch_argmax_cpu, prepare
from frfsr.kernels._operator import operator
from frfsr.kernels._tensors import accumulator_dtype


def patch_argmax_reference(query: Tensor, key: Tensor, patch_size: int = 3) -> tuple[Tensor, Tensor]:
    """The definition: unfold all patches, multiply them, take the maximum. Arguments as in :func:`patch_argmax`."""
    height, width = query.shape[-2] - patch_size + 1, query.shape[-1] - patch_size + 1
    compute = accumulator_dtype(query)
    query_patches, key_patches = (
        F.unfold(feature.to(compute).masked_fill(~feature.isfinite(), torch.nan), patch_size)
        for feature in (query, key)
    )
    query_patches = query_patches / (query_patches.norm(dim=1, keepdim=True) + EPSILON)
    key_patches = key_patches / (key_patches.norm(dim=1, keepdim=True) + EPSILON)
    similarity = torch.einsum("b c q, b c k -> b q k", query_patches, key_patches)
    score, index = similarity.masked_fill(similarity.isnan(), -torch.inf).max(dim=-1)
    score = score.masked_fill(score == -torch.inf, torch.nan).float()
    return rearrange(score, "b (h w) -> b h w", h=height, w=width), rearrange(index, "b (h w) -> b h w", h=height)


@operator("frfsr::patch_argmax")
def _patch_argmax(query: Tensor, key: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    form = form_for("patch_argmax", query)
    if form == "reference":
        return patch_argmax_reference(query, key, patch_size)
    if form == "triton" and patch_size == 3:
        from frfsr.kernels._match_triton import patch_argmax_triton

        return patch_argmax_triton(query, key)
    return patch_argmax_cpu(query, key, patch_size)


@_patch_argmax.register_fake
def _(query: Tensor, key: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], query.shape[2] - patch_size + 1, query.shape[3] - patch_size + 1)
    return query.new_empty(shape, dtype=torch.float32), query.new_empty(shape, dtype=torch.int64)


@_patch_argmax.register_scratch
def _(query: Tensor, key: Tensor, patch_size: int) -> tuple[Tensor, ...]:
    dtype = accumulator_dtype(query)
    return *prepare(query, patch_size, dtype), *prepare(key, patch_size, dtype)


@operation
def patch_argmax(query: Tensor, key: Tensor, patch_size: int = 3) -> tuple[Tensor, Tensor]:
    """Find for every patch of ``query`` the most similar patch of ``key``: exact, in memory linear in the images.

    Half-precision features are multiplied as they are and summed in float32; float32 ones follow PyTorch's setting
    ``torch.backends.cuda.matmul.fp32_precision`` on a GPU. Patches of ``key`` with a NaN or infinite value are never
    chosen; a patch of ``query`` with one, or without any patch to choose, gets score NaN and index 0.

    Args:
        query: (B, C, Hq, Wq) features, usually of unit length per pixel.
        key: (B, C, Hk, Wk) features to search, same dtype, any other size.
        patch_size: side p of a patch in pixels; stride 1; only patches wholly inside count.

    Returns:
        Score (B, Hq-p+1, Wq-p+1), float32: ``<q, k> / ((|q| + 1e-5) (|k| + 1e-5))`` in [-1, 1], maximal over k; and
        index, int64 of the same shape: ``row * (Wk-p+1) + column`` of the best patch, the lowest one on ties. A choice
        has no gradient: both are detached.

    Raises:
        ValueError: if shapes or dtypes do not fit each other or an image is smaller than a patch.

    Examples:
        >>> import torch
        >>> from frfsr.kernels import patch_argmax
        >>> key = torch.rand(1, 8, 6, 7)
        >>> score, index = patch_argmax(key[..., 1:5, 2:7], key)  # a part of the key, so that each patch finds itself
        >>> index  # row * 5 + column
        tensor([[[ 7,  8,  9],
                 [12, 13, 14]]])
    """
    if query.ndim != 4 or key.ndim != 4 or query.shape[:2] != key.shape[:2] or query.dtype != key.dtype:
        raise ValueError(
            "patch_argmax needs query (B, C, Hq, Wq) and key (B, C, Hk, Wk) of one dtype, "
            f"not {tuple(query.shape)} {query.dtype} and {tuple(key.shape)} {key.dtype}"
        )
    if min(*query.shape[2:], *key.shape[2:]) < patch_size:
        raise ValueError(f"patch_argmax with patches of side {patch_size} needs images of at least that side")
    return _patch_argmax(query.detach(), key.detach(), patch_size)
