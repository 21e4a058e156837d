"""Block matching around a matched position, to a quarter of an LR pixel (not in the paper).

The argmax of the correspondence is a whole LR pixel. The images hold more: the block of 16x16 pixels around an LR
position of the enlarged image is compared with the blocks around its match, a few pixels to each side, and moves to the
place of highest normalised cross-correlation.
"""

import torch
from torch import Tensor

from frfsr.kernels._constants import BLOCK, FLAT, MARGIN, PENALTY, SCALE
from frfsr.kernels._dispatch import form_for, operation
from frfsr.kernels._operator import operator
from frfsr.kernels._refine_cpu import matched_positions, pixel_grid, refine_flow_cpu, refine_scratch, steps_within
from frfsr.kernels._tensors import accumulator_dtype


def blocks_at(image: Tensor, corner: Tensor) -> Tensor:
    """Cut a block at every corner, with replicated borders, and standardise it.

    Args:
        image: (B, 1, H, W).
        corner: (B, h, w, 2) int64, top left pixel of each block as (x, y), anywhere.

    Returns:
        (B, h, w, 16, 16) of mean 0 and deviation 1 (less where a block is flat).
    """
    span = torch.arange(BLOCK, device=image.device)
    column = (corner[..., 0, None] + span).clamp(0, image.shape[3] - 1)
    row = (corner[..., 1, None] + span).clamp(0, image.shape[2] - 1)
    number = torch.arange(len(image), device=image.device)[:, None, None, None, None]
    block = image[number, 0, row[..., :, None], column[..., None, :]]
    block = block - block.mean((-2, -1), keepdim=True)
    return block / block.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(FLAT)


def step_scores(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    """Score every step of the search. Arguments as in :func:`refine_flow`.

    Returns:
        (B, steps, h, w): normalised cross-correlation in [-1, 1], less a penalty of 1e-4 per pixel of the step.
    """
    own = blocks_at(query, SCALE * pixel_grid(flow).expand_as(flow).long() - MARGIN)
    corner = SCALE * matched_positions(flow, key).long() - MARGIN
    scores = []
    for step in steps_within(radius, flow.device):
        correlation = (own * blocks_at(key, corner + step)).mean((-2, -1))
        scores.append(correlation - PENALTY * torch.linalg.vector_norm(step.to(query.dtype)))
    return torch.stack(scores, dim=1)


def refine_flow_reference(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    """The definition: the step of the highest score. Arguments and result as in :func:`refine_flow`."""
    best = step_scores(flow, query, key, radius).argmax(1)
    moved = steps_within(radius, flow.device)[best].to(flow.dtype) / SCALE
    return matched_positions(flow, key) + moved - pixel_grid(flow)


@operator("frfsr::refine_flow")
def _refine_flow(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    with torch.autocast(flow.device.type, enabled=False):  # an operator's dtypes are those of its arguments
        form = form_for("refine_flow", query)
        if form == "reference":
            return refine_flow_reference(flow, query, key, radius)
        if form == "triton":
            from frfsr.kernels._refine_triton import refine_flow_triton

            return refine_flow_triton(flow, query, key, radius)
        return refine_flow_cpu(flow, query, key, radius)


@_refine_flow.register_fake
def _(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    return torch.empty_like(flow, memory_format=torch.contiguous_format)


@_refine_flow.register_scratch
def _(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> tuple[Tensor, ...]:
    return refine_scratch(query, key, radius)


@operation
def refine_flow(flow: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    """Move every match to where the images around it agree best, by at most ``radius`` pixels a side.

    Args:
        flow: (B, h, w, 2) coarse flow as (x, y) in LR pixels, finite. It leads to whole positions of the key: what is
            between them is rounded (halves upwards), what is outside of the key is moved to its border.
        query: (B, 1, 4h, 4w) luma of the enlarged LR image, about [0, 1], finite.
        key: (B, 1, H, W) luma of the reference, blurred like the query, any size.
        radius: of the search, in pixels of the key, 0 or more.

    Returns:
        (B, h, w, 2) as (x, y) in LR pixels, a multiple of a quarter; float32 (float64 for a flow in float64). Blocks
        reach over the borders by replicated pixels; of equally good places the nearest wins. A choice has no gradient:
        the result is detached.

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
    compute = accumulator_dtype(query)
    flow = flow.detach().to(accumulator_dtype(flow))
    return _refine_flow(flow, query.detach().to(compute), key.detach().to(compute), radius)
