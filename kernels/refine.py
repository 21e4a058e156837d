"""Block matching around a matched position, to a quarter of an LR pixel (not in the paper).

The argmax of the correspondence is a whole LR pixel. The images hold more: the block of 16x16 pixels around an LR
position of the enlarged image is compared with the blocks around its match, a few pixels to each side, and moves to the
place of highest normalised cross-correlation. Where the reference shows the content turned or at another scale, its
blocks are turned and scaled likewise.
"""

import torch
from einops import rearrange
from torch import Tensor

from frfsr.kernels._constants import BLOCK, FLAT, PENALTY, SCALE
from frfsr.kernels._dispatch import form_for, operation
from frfsr.kernels._operator import operator
from frfsr.kernels._refine_cpu import (
    matched_positions,
    pixel_grid,
    pixels_around,
    refine_flow_cpu,
    refine_scratch,
    sampled,
    steps_within,
    transformed,
)
from frfsr.kernels._tensors import accumulator_dtype


def blocks_at(image: Tensor, places: Tensor) -> Tensor:
    """Sample a block around every position and standardise it.

    Args:
        image: (B, 1, H, W).
        places: (B, h, w, 16, 16, 2), the pixels of each block as (x, y), anywhere.

    Returns:
        (B, h, w, 16, 16) of mean 0 and deviation 1 (less where a block is flat).
    """
    block = torch.stack([sampled(own[0], there) for own, there in zip(image, places, strict=True)])
    block = block - block.mean((-2, -1), keepdim=True)
    return block / block.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(FLAT)


def step_scores(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> Tensor:
    """Score every step of the search. Arguments as in :func:`refine_flow`.

    Returns:
        (B, steps, h, w): normalised cross-correlation in [-1, 1], less a penalty of 1e-4 per pixel of the step.
    """
    around = pixels_around(BLOCK, flow)
    own, matched = (
        rearrange(SCALE * position + (SCALE - 1) / 2, "b h w xy -> b h w 1 1 xy")
        for position in (pixel_grid(flow).expand_as(flow), matched_positions(flow, key))
    )
    block = blocks_at(query, own + around)
    similarity = rearrange(similarity, "b h w ab -> b h w 1 1 ab")
    scores = []
    for step in steps_within(radius, flow.device):
        other = blocks_at(key, matched + transformed(around + step, similarity))
        correlation = (block * other).mean((-2, -1))
        scores.append(correlation - PENALTY * torch.linalg.vector_norm(step.to(query.dtype)))
    return torch.stack(scores, dim=1)


def refine_flow_reference(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> Tensor:
    """The definition: the step of the highest score. Arguments and result as in :func:`refine_flow`."""
    best = step_scores(flow, query, key, radius, similarity).argmax(1)
    moved = transformed(steps_within(radius, flow.device)[best].to(flow.dtype), similarity) / SCALE
    return matched_positions(flow, key) + moved - pixel_grid(flow)


def identity(flow: Tensor) -> Tensor:
    """The similarity by which nothing changes, at every position of a flow (B, h, w, 2)."""
    return flow.new_tensor([1, 0]).expand(flow.shape)


@operator("frfsr::refine_flow")
def _refine_flow(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> Tensor:
    with torch.autocast(flow.device.type, enabled=False):  # an operator's dtypes are those of its arguments
        form = form_for("refine_flow", query)
        if form == "reference":
            return refine_flow_reference(flow, query, key, radius, similarity)
        if form == "triton":
            from frfsr.kernels._refine_triton import refine_flow_triton

            return refine_flow_triton(flow, query, key, radius, similarity)
        return refine_flow_cpu(flow, query, key, radius, similarity)


@_refine_flow.register_fake
def _(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> Tensor:
    return torch.empty_like(flow, memory_format=torch.contiguous_format)


@_refine_flow.register_scratch
def _(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor) -> tuple[Tensor, ...]:
    return refine_scratch(query, radius)


@operation
def refine_flow(flow: Tensor, query: Tensor, key: Tensor, radius: int, similarity: Tensor | None = None) -> Tensor:
    """Move every match to where the images around it agree best, by at most ``radius`` pixels a side.

    Args:
        flow: (B, h, w, 2) coarse flow as (x, y) in LR pixels, finite. It leads to whole positions of the key: what is
            between them is rounded (halves upwards), what is outside of the key is moved to its border.
        query: (B, 1, 4h, 4w) luma of the enlarged LR image, about [0, 1], finite.
        key: (B, 1, H, W) luma of the reference, blurred like the query, any size.
        radius: of the search, in pixels of the query, 0 or more.
        similarity: (B, h, w, 2) as (a, b), by which the key shows what the query shows, turned and at another scale:
            what lies (x, y) beside the position lies (a x - b y, b x + a y) beside its match. None: (1, 0).

    Returns:
        (B, h, w, 2) as (x, y) in LR pixels, moved by a multiple of a quarter (as the query has it); float32 (float64
        for a flow in float64). Blocks consist of the key's nearest pixels, and reach over the borders by replicated
        ones; of equally good places the nearest wins. A choice has no gradient: the result is detached.

    Raises:
        ValueError: if the shapes do not fit together or ``radius`` is negative.

    Examples:
        >>> import torch
        >>> from frfsr.kernels import refine_flow
        >>> query = torch.rand(1, 1, 32, 40)
        >>> key = query.roll(2, dims=-1)  # all lies two pixels further to the right
        >>> refine_flow(torch.zeros(1, 8, 10, 2), query, key, radius=3)[0, 4, 5]  # in LR pixels, a quarter of these
        tensor([0.5000, 0.0000])
    """
    batch, height, width = flow.shape[:3]
    if flow.shape[3:] != (2,) or query.shape != (batch, 1, SCALE * height, SCALE * width):
        raise ValueError(
            "refine_flow needs flow (B, h, w, 2) and query (B, 1, 4h, 4w), "
            f"not {tuple(flow.shape)} and {tuple(query.shape)}"
        )
    if key.ndim != 4 or key.shape[:2] != (batch, 1) or not key.numel():
        raise ValueError(f"refine_flow needs key ({batch}, 1, H, W), not {tuple(key.shape)}")
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, got {radius}")
    if similarity is not None and similarity.shape != flow.shape:
        raise ValueError(f"refine_flow needs similarity {tuple(flow.shape)}, not {tuple(similarity.shape)}")
    compute = accumulator_dtype(query)
    flow = flow.detach().to(accumulator_dtype(flow))
    similarity = identity(flow) if similarity is None else similarity.detach().to(flow.dtype)
    return _refine_flow(flow, query.detach().to(compute), key.detach().to(compute), radius, similarity)
