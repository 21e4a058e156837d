"""Several encoded references as one: matched one by one, their features side by side on one map.

Whatever follows the matching sees one reference, the map; so the warp and the deformable convolution stay as they are.
Between two references lie zeros, as beyond the borders of a single one.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frfsr.kernels.deform import MatchPadding
from frfsr.matching import best_patch, coherence, correspond, from_patches, index_to_flow
from frfsr.network import Correspondence, ReferenceFeatures

GUARD = 16  # LR pixels of zeros around each reference: further than learned offsets reach
NOWHERE = -(2.0**20)  # LR pixels: a displacement that leaves every map
LUMA_BORDER = 32  # pixels of replicated luma around each reference: the refinement looks beyond the borders
APART = 4  # LR pixels between neighbours whose matches are compared
AROUND = 15  # LR pixels, side of the window in which these are counted

Place = tuple[int, int]


class Atlas(NamedTuple):
    """Encoded references and the map on which they lie.

    Attributes:
        references: in order.
        places: row and column of their top left corners on the map, in LR pixels (stride 4).
        pyramid: their features F_Ref on the map, (B, C_i, ...) at strides 1, 2 and 4.
        luma: likewise (B, 1, H, W), or None where the network has none.
        corner: row and column of the LR image's first pixel in the photo, of which it may be a tile: published networks
            also look at the *unwarped* reference at each position of the photo.
        fast: whether they are searched coarse to fine, see `frfsr.coarse_to_fine`, by networks that use `match`.
    """

    references: tuple[ReferenceFeatures, ...]
    places: tuple[Place, ...]
    pyramid: tuple[Tensor, Tensor, Tensor]
    luma: Tensor | None
    corner: Place = (0, 0)
    fast: bool = False


def lay_out(references: ReferenceFeatures | Sequence[ReferenceFeatures] | Atlas) -> Atlas:
    """Lay encoded references on one map; a single one becomes the map as it is, a map stays what it is."""
    if isinstance(references, Atlas):
        return references
    if isinstance(references, ReferenceFeatures):
        references = (references,)
    if len(references) == 1:
        return Atlas(tuple(references), ((0, 0),), references[0].pyramid, references[0].luma)
    (height, width), places = shelves([(r.matching.shape[-2], r.matching.shape[-1]) for r in references])
    maps = []
    for level, scale in enumerate((4, 2, 1)):
        tiles = [reference.pyramid[level] for reference in references]
        maps.append(paste(tiles, [at(place, scale) for place in places], scale, (height, width)))
    luma, lumas = None, [reference.luma for reference in references if reference.luma is not None]
    if lumas:
        corners = [at(place, 4, LUMA_BORDER) for place in places]
        luma = paste([bordered(image) for image in lumas], corners, 4, (height, width))
    return Atlas(tuple(references), tuple(places), tuple(maps), luma)


def shelves(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], list[Place]]:
    """Place rectangles on a map with a guard around each: the highest first, from left to right in shelves.

    Of the widths at which the first shelf holds one, two, ... of them the one with the smallest map is taken, and first
    the one that needs least where maps are continued to powers of two (`frfsr.kernels.deform_conv` on a CPU).

    Args:
        sizes: heights and widths.

    Returns:
        Height and width of the map, and the top left corner of each rectangle.
    """
    guarded = [(height + 2 * GUARD, width + 2 * GUARD) for height, width in sizes]
    order = sorted(range(len(sizes)), key=lambda number: -guarded[number][0])
    widest = max(width for _, width in guarded)

    def fill(limit: int) -> tuple[tuple[int, int], list[Place]]:
        places, top, left, shelf = {}, 0, 0, 0
        for number in order:
            height, width = guarded[number]
            if left + width > limit:
                top, left, shelf = top + shelf, 0, 0
            places[number] = (top + GUARD, left + GUARD)
            left, shelf = left + width, max(shelf, height)
        return (top + shelf, limit), [places[number] for number in range(len(sizes))]

    limits = {max(widest, width) for width in accumulate(guarded[number][1] for number in order)}

    def cost(filled: tuple[tuple[int, int], list[Place]]) -> tuple[int, int]:
        return prod(1 << (side - 1).bit_length() for side in filled[0]), prod(filled[0])

    return min((fill(limit) for limit in sorted(limits)), key=cost)


def paste(tiles: Sequence[Tensor], corners: Sequence[Place], scale: int, size: tuple[int, int]) -> Tensor:
    """Lay tiles on a map of zeros.

    Args:
        tiles: (B, C, H, W) each.
        corners: (row, column) of each on the map.
        scale: of the map.
        size: (h, w) of the map divided by `scale`.

    Returns:
        (B, C, scale * h, scale * w).
    """
    first = tiles[0]
    by_pixel = first.is_contiguous(memory_format=torch.channels_last)
    canvas = torch.empty(
        *first.shape[:2],
        *(scale * side for side in size),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last if by_pixel else torch.contiguous_format,
    ).zero_()
    for tile, corner in zip(tiles, corners, strict=True):
        window(canvas, corner, tile.shape).copy_(tile)
    return canvas


def window(canvas: Tensor, corner: Place, size: Sequence[int]) -> Tensor:
    """The part of a map (..., H, W) from a corner on, of the size (..., h, w): its memory, not a copy."""
    return canvas[..., corner[0] : corner[0] + size[-2], corner[1] : corner[1] + size[-1]]


def settled(atlas: Atlas) -> Atlas:
    """The same, its references' features being those on the map: what was laid there need not be kept."""
    return atlas._replace(references=tuple(map(partial(on_map, atlas), atlas.references, atlas.places)))


def on_map(atlas: Atlas, reference: ReferenceFeatures, place: Place) -> ReferenceFeatures:
    """A reference whose features are parts of the map."""
    layers = zip(atlas.pyramid, reference.pyramid, (4, 2, 1), strict=True)
    large, medium, small = (window(layer, at(place, scale), own.shape) for layer, own, scale in layers)
    luma = reference.luma
    if atlas.luma is not None and luma is not None:
        luma = window(atlas.luma, at(place, 4), luma.shape)
    return reference._replace(pyramid=(large, medium, small), luma=luma)


def replaced(atlas: Atlas, number: int, reference: ReferenceFeatures) -> Atlas:
    """Lay a reference over one of the same size, on the map itself.

    Args:
        atlas: whose map changes.
        number: of the reference that is given up.
        reference: that is laid there.

    Returns:
        The map with it.
    """
    place = atlas.places[number]
    for layer, own, scale in zip(atlas.pyramid, reference.pyramid, (4, 2, 1), strict=True):
        window(layer, at(place, scale), own.shape).copy_(own)
    if atlas.luma is not None and reference.luma is not None:
        image = bordered(reference.luma)
        window(atlas.luma, at(place, 4, LUMA_BORDER), image.shape).copy_(image)
    references = list(atlas.references)
    references[number] = on_map(atlas, reference, place)
    return atlas._replace(references=tuple(references))


def at(place: Place, scale: int, border: int = 0) -> Place:
    """The corner on a map of this scale."""
    return scale * place[0] - border, scale * place[1] - border


def bordered(luma: Tensor) -> Tensor:
    """Luma with its borders replicated."""
    return F.pad(luma, (LUMA_BORDER,) * 4, mode="replicate")


def match(query: Tensor, atlas: Atlas, match_padding: MatchPadding) -> Correspondence:
    """Match with every reference alone and keep the match that stands out most; of equal ones the first reference's.

    Args:
        query: texture features of the LR image, (B, C, h, w).
        atlas: of the references.
        match_padding: see `frfsr.matching.correspond`.

    Returns:
        Places on the map; `index` counts within the reference that `source` names.
    """
    if atlas.places == ((0, 0),) and atlas.corner == (0, 0) and not atlas.fast:
        return correspond(query, atlas.references[0].matching, match_padding)
    scores, indices, evidence = [], [], []
    for reference in atlas.references:
        score, index = best_patch(query, reference.matching, match_padding, fast=atlas.fast)
        width = reference.matching.shape[-1] - (0 if match_padding == "same" else 2)
        evidence.append(prominence(score, index_to_flow(index, width)))
        scores.append(score)
        indices.append(index)
    source = torch.stack(evidence).argmax(0)
    score, index = (torch.stack(found).gather(0, source[None])[0] for found in (scores, indices))
    sizes = torch.tensor([reference.matching.shape[-2:] for reference in atlas.references], device=query.device)
    places = torch.tensor(atlas.places, device=query.device)
    widths = sizes[:, 1] if match_padding == "same" else sizes[:, 1] - 2
    correspondence = from_patches(score, index, widths[source], match_padding)
    if match_padding == "valid":  # as the flow, it hangs at the patch's top left pixel
        source = F.pad(source[:, None].float(), (0, 2, 0, 2), mode="replicate")[:, 0].long()
    flow = correspondence.flow + places[source].flip(-1)
    return correspondence._replace(flow=flow, source=source, still=still(source, places, sizes, atlas.corner))


def prominence(score: Tensor, flow: Tensor) -> Tensor:
    """How well matches stand out, where several references compete: cosine + coherence.

    The cosine alone prefers smooth and enlarged textures. What shows the photo's content is matched as a piece: beside
    a position's match lies its neighbour's.

    Args:
        score: of a reference's matches, (B, h, w).
        flow: their displacements (x, y), (B, h, w, 2).

    Returns:
        (B, h, w), -1 ... 2.
    """
    return score + coherence(flow, APART, AROUND)


def still(source: Tensor, places: Tensor, sizes: Tensor, corner: Place) -> Tensor:
    """Displacement from each LR position to the same position of its reference, not warped; `NOWHERE` outside of it.

    Args:
        source: (B, h, w), number of the reference.
        places: (n, 2), row and column of the references on the map.
        sizes: (n, 2), their heights and widths in LR pixels.
        corner: of the LR image in the photo.

    Returns:
        (B, h, w, 2) float32 as (x, y), LR pixels.
    """
    row = torch.arange(source.shape[1], device=source.device)[:, None] + corner[0]
    column = torch.arange(source.shape[2], device=source.device) + corner[1]
    outside = (row >= sizes[source][..., 0]) | (column >= sizes[source][..., 1])
    displacement = (places[source] + torch.tensor(corner, device=source.device)).flip(-1).float()
    return displacement.masked_fill(outside[..., None], NOWHERE)


def relative(correspondence: Correspondence, atlas: Atlas) -> Correspondence:
    """The matches in coordinates of the photo and of each reference alone, for people."""
    if correspondence.source is None:
        return correspondence
    places = torch.tensor(atlas.places, device=correspondence.flow.device)
    shift = (places[correspondence.source] + torch.tensor(atlas.corner, device=places.device)).flip(-1)
    return correspondence._replace(flow=correspondence.flow - shift, still=None, smooth=None)
