"""CTW, correlation-based texture warp (section III-B): features -> correspondence -> flow."""

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from frfsr.coarse_to_fine import coarse_to_fine
from frfsr.kernels import patch_argmax
from frfsr.kernels.deform import MatchPadding
from frfsr.network import Correspondence
from frfsr.pixels import luma

DRIFT = 0.6  # LR pixels per pixel apart: more is not the same content, turned or at another scale
NO_CHANGE = 0.05  # of a position's four votes


def index_to_flow(index: Tensor, reference_width: int | Tensor) -> Tensor:
    """Eq. 8-9: patch numbers -> displacements.

    Args:
        index: (B, h, w), row-major.
        reference_width: of the grid that they count on, one or (B, h, w).

    Returns:
        (B, h, w, 2) as (x, y).
    """
    _, height, width = index.shape
    column = torch.arange(width, device=index.device)
    row = torch.arange(height, device=index.device)[:, None]
    x = index % reference_width - column
    y = index.div(reference_width, rounding_mode="floor") - row
    return torch.stack([x, y], dim=-1).float()


def correspond(query: Tensor, key: Tensor, match_padding: MatchPadding) -> Correspondence:
    """Eq. 5-9: match the LR image with one reference.

    Args:
        query: texture features of the LR image, (B, C, h, w).
        key: texture features of the reference, (B, C, hr, wr).
        match_padding: "same" matches a patch around every pixel (borders replicated); "valid" matches only patches
            wholly inside, stores the flow at their top-left pixel, and gives the last two rows and columns zero flow.

    Returns:
        Score and flow of every pixel of the LR image.
    """
    score, index = best_patch(query, key, match_padding)
    return from_patches(score, index, key.shape[-1] - (0 if match_padding == "same" else 2), match_padding)


def best_patch(query: Tensor, key: Tensor, match_padding: MatchPadding, *, fast: bool = False) -> tuple[Tensor, Tensor]:
    """Find the best matching patch, eq. 5-7. Each pixel's feature is normalised first, as published.

    Args:
        query: texture features of the LR image, (B, C, h, w).
        key: texture features of the reference, (B, C, hr, wr).
        match_padding: see `correspond`.
        fast: not exact, see `frfsr.coarse_to_fine`.

    Returns:
        Score and number of the patch, (B, hq, wq) each.
    """
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    if match_padding == "same":
        query, key = (F.pad(feature, (1, 1, 1, 1), mode="replicate") for feature in (query, key))
    return (coarse_to_fine if fast else patch_argmax)(query, key)


def from_patches(
    score: Tensor, index: Tensor, reference_width: int | Tensor, match_padding: MatchPadding
) -> Correspondence:
    """Bring what `best_patch` found to the pixels of the LR image, eq. 8-9.

    Args:
        score: (B, hq, wq), -1 ... 1.
        index: (B, hq, wq), number of the patch.
        reference_width: patches in a row of the reference.
        match_padding: see `correspond`.

    Returns:
        Score and flow of every pixel.
    """
    flow = index_to_flow(index, reference_width)
    if match_padding == "valid":
        flow = F.pad(flow, (0, 0, 0, 2, 0, 2))
        score = F.pad(score, (1, 1, 1, 1))
    return Correspondence(score, flow, index)


def blurred_luma(image: Tensor) -> Tensor:
    """Blur to what an LR image can hold: reduce the luma to a quarter and enlarge it again.

    Args:
        image: (B, 3, H, W), RGB in [0, 1].

    Returns:
        (B, 1, H, W).
    """
    image = image.float()  # the CPU has no antialiased interpolation of half precision
    small = F.interpolate(luma(image), scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False)
    return F.interpolate(small, scale_factor=4, mode="bicubic", antialias=True, align_corners=False)


def drifts(flow: Tensor, apart: int) -> tuple[Tensor, Tensor]:
    """By how much the displacements of neighbours differ: 0 where what shows the photo's content is matched as a piece.

    Args:
        flow: (B, h, w, 2) as (x, y).
        apart: positions between neighbours.

    Returns:
        Those of the neighbour on the right minus the own ones, (B, h, w - apart, 2), and of the one below,
        (B, h - apart, w, 2); empty where there are none.
    """
    down, right = (max(0, side - apart) for side in flow.shape[1:3])
    return flow[:, :, apart:] - flow[:, :, :right], flow[:, apart:] - flow[:, :down]


def coherence(flow: Tensor, apart: int, around: int) -> Tensor:
    """The share of neighbours around each position whose displacements are the same to a pixel.

    Args:
        flow: (B, h, w, 2) as (x, y).
        apart: positions between neighbours.
        around: odd, side of the window in which they are counted.

    Returns:
        (B, h, w), 0 ... 1.
    """
    right, below = (
        torch.stack([(drift.abs().amax(-1) <= 1).float(), drift.new_ones(drift.shape[:-1])], dim=1)
        for drift in drifts(flow, apart)
    )
    agreeing, pairs = around_each(flow, right, below, around).unbind(1)
    return agreeing / pairs.clamp(min=1e-6)


def similarity(flow: Tensor, apart: int, around: int) -> Tensor:
    """By which similarity the reference shows what the photo shows, turned and at another scale, as the matches tell.

    Neighbours whose displacements are about the same, which may drift apart by the change of scale, vote around each
    position; a few votes for no change keep it where there is little else. In 64ths: so places are exact, and the same
    wherever on a map the reference lies.

    Args:
        flow: (B, h, w, 2) as (x, y).
        apart: positions between neighbours.
        around: odd, side of the window in which they vote.

    Returns:
        (B, h, w, 2) as (a, b): what lies (x, y) beside the position lies (a x - b y, b x + a y) beside its match.
    """

    def votes(drift: Tensor, along: Tensor, across: Tensor) -> Tensor:
        near = (drift.abs().amax(-1) <= DRIFT * apart).float()
        return torch.stack([near, near * along, near * across], dim=1)

    right, below = drifts(flow, apart)
    right, below = votes(right, right[..., 0], right[..., 1]), votes(below, below[..., 1], -below[..., 0])
    count, along, across = around_each(flow, right, below, around).unbind(1)
    change = torch.stack([along, across], dim=-1) / (apart * (count + NO_CHANGE))[..., None]
    return (change * 64).round() / 64 + flow.new_tensor([1, 0])


def around_each(flow: Tensor, right: Tensor, below: Tensor, around: int) -> Tensor:
    """Means over the window around each position of what pairs of neighbours have, which counts at both of them.

    Args:
        flow: (B, h, w, 2), whose positions they are.
        right: (B, n, h, w - apart), of each position and the neighbour on the right.
        below: (B, n, h - apart, w), of each position and the one below.
        around: odd, side of the window.

    Returns:
        (B, n, h, w), means per position.
    """
    total = right.new_zeros(*right.shape[:2], *flow.shape[1:3])
    for pairs in (right, below):
        height, width = pairs.shape[2:]
        total[..., :height, :width] += pairs
        total[..., flow.shape[1] - height :, flow.shape[2] - width :] += pairs
    return F.avg_pool2d(total, around, stride=1, padding=around // 2)


def enlarge_flow(flow: Tensor, scale: int) -> Tensor:
    """Flow (B, h, w, 2), coarse pixels -> (B, h*scale, w*scale, 2), fine pixels: nearest repeat, times the scale."""
    return scale * repeat(flow, "b h w xy -> b (h i) (w j) xy", i=scale, j=scale)


def enlarge_score(score: Tensor, scale: int) -> Tensor:
    """Score (B, h, w) -> (B, 1, h*scale, w*scale), nearest."""
    return repeat(score, "b h w -> b 1 (h i) (w j)", i=scale, j=scale)
