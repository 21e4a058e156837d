"""References too large for the memory: of each, what a tile of the photo needs, at its full size.

A coarse search of the whole photo in the whole reference tells where the content of each tile lies. That part is
encoded for the tile. Beside the parts lie the whole references, reduced: for tiles whose content is found nowhere.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frfsr.atlas import Atlas, lay_out, replaced, settled
from frfsr.matching import best_patch, coherence, index_to_flow
from frfsr.network import Correspondence, ReferenceFeatures
from frfsr.upscaling.matches import in_reference
from frfsr.upscaling.options import View
from frfsr.upscaling.references import encoder, resized, resized_pixels, turned
from frfsr.upscaling.tiles import Span

FINE = 256  # positions along the photo's longer side that are compared: finer than in the search for views
APART, AROUND = 2, 7  # of neighbours among these positions, and the side of the window in which they are counted
COHERENT = 0.5  # from which on a position is taken for found
FOUND = 0.1  # of a tile's positions that must be found
GRID = 32  # pixels on which parts begin, so that neighbouring tiles often share one

Size = tuple[int, int]


class Located(NamedTuple):
    """Where the photo's content lies in a view.

    Attributes:
        places: (h, w, 2) as (x, y), in pixels of the view.
        found: (h, w), whether it was.
        step: LR pixels between positions.
    """

    places: np.ndarray
    found: np.ndarray
    step: float

    def centre(self, row: Span, column: Span) -> np.ndarray | None:
        """Where most of a tile's content lies, (x, y); None if it was not found."""
        rows, columns = (slice(int(span.first / self.step), int(span.last / self.step) + 1) for span in (row, column))
        found = self.found[rows, columns]
        return np.median(self.places[rows, columns][found], axis=0) if found.mean() > FOUND else None


@torch.inference_mode()
def locate(lr: Tensor, pixels: np.ndarray, view: View, device: torch.device) -> Located:
    """Search the whole photo in a view of a reference.

    Args:
        lr: (1, 3, h, w), RGB in [0, 1].
        pixels: of the reference, (H, W, 3).
        view: of it.
        device: to compute on.

    Returns:
        What was found.
    """
    scale = min(1.0, 4 * FINE / max(lr.shape[-2:]))
    texture = encoder(device)
    query = texture(resized(lr.to(device), scale))
    key = texture(turned(resized_pixels(pixels, view.zoom * scale / 4), view.turn).to(device))
    _, index = best_patch(query, key, "same")
    flow = index_to_flow(index, key.shape[-1])
    places = torch.stack([index % key.shape[-1], index // key.shape[-1]], -1)[0]
    return Located(
        ((places + 0.5) * 16 / scale).cpu().numpy(),
        (coherence(flow, APART, AROUND)[0] > COHERENT).cpu().numpy(),
        4 / scale,
    )


class Nearby:
    """Encoded references of which every tile takes what lies near its content.

    All lie on one map, of which each tile's parts take the place of those before.

    Args:
        views: of which parts are taken; then the same ones reduced, which are `whole`.
        pixels: of the references, (H, W, 3) each.
        located: for each of the views of which parts are taken.
        whole: the reduced ones, (1, 3, H, W) each, one at a time.
        side: of a part, in pixels.
        encode: an image (1, 3, H, W) -> encoded.
    """

    def __init__(
        self,
        views: Sequence[View],
        pixels: Sequence[np.ndarray],
        located: Sequence[Located],
        *,
        whole: Iterable[Tensor],
        side: int,
        encode: Callable[[Tensor], ReferenceFeatures],
    ):
        self.views, self.pixels, self.located, self.side = views, pixels, located, side
        self.encode = encode
        self.corners = [(0, 0)] * len(located)
        parts = (self.part(number, *corner) for number, corner in enumerate(self.corners))
        self.atlas = settled(lay_out([encode(image) for image in (*parts, *whole)]))
        self.fast = False

    def sizes(self) -> list[Size]:
        """Heights and widths of all that is encoded at the same time."""
        whole = [(view.size[1], view.size[0]) for view in self.views[len(self.located) :]]
        return [part_size(view, self.side) for view in self.views[: len(self.located)]] + whole

    def near(self, row: Span, column: Span) -> tuple[Atlas, Tensor, Tensor]:
        """What a tile takes.

        Args:
            row: of the tile.
            column: of the tile.

        Returns:
            The references, until the next tile's are asked for; and of each the number of its view, and where it lies
            in it, (x, y) in LR pixels.
        """
        used = []
        for number, located in enumerate(self.located):
            centre = located.centre(row, column)
            if centre is not None:
                used.append(number)
                corner = self.corner(number, centre)
                if corner != self.corners[number]:
                    self.atlas = replaced(self.atlas, number, self.encode(self.part(number, *corner)))
                    self.corners[number] = corner
        shifts = [(self.corners[number][0] / 4, self.corners[number][1] / 4) for number in used]
        used += range(len(self.located), len(self.views))
        shifts += [(0.0, 0.0)] * (len(used) - len(shifts))
        references, places = (tuple(each[number] for number in used) for each in self.atlas[:2])
        atlas = self.atlas._replace(references=references, places=places, corner=(row.start, column.start))
        return atlas._replace(fast=self.fast), torch.tensor(used), torch.tensor(shifts)

    def corner(self, number: int, centre: np.ndarray) -> tuple[int, int]:
        """Where the part around a place (x, y) of a view begins."""
        height, width = part_size(self.views[number], self.side)
        most = np.array(self.views[number].size) - (width, height)
        x, y = np.clip((centre - (width / 2, height / 2)) // GRID * GRID, 0, most // 4 * 4).astype(int)
        return int(x), int(y)

    def part(self, number: int, x: int, y: int) -> Tensor:
        """The part of a view from a corner on, (1, 3, H, W)."""
        view = self.views[number]
        height, width = part_size(view, self.side)
        ends = np.array([in_reference(view, x, y), in_reference(view, x + width, y + height)])
        (left, top), (right, bottom) = ends.min(0).round().astype(int), ends.max(0).round().astype(int)
        pixels = self.pixels[view.reference][max(0, top) : bottom, max(0, left) : right]
        image = turned(resized_pixels(pixels, view.zoom), view.turn)[..., :height, :width]
        missing = width - image.shape[-1], height - image.shape[-2]  # by rounding
        return F.pad(image, (0, missing[0], 0, missing[1]), mode="replicate")


def part_size(view: View, side: int) -> Size:
    """Height and width of a part of a view."""
    return min(side, view.size[1]), min(side, view.size[0])


def in_views(found: Correspondence, numbers: Tensor, shifts: Tensor) -> Correspondence:
    """Matches in parts of views as matches in the views; see `Nearby.near`."""
    source = torch.zeros_like(found.score, dtype=torch.int64) if found.source is None else found.source
    numbers, shifts = numbers.to(source.device), shifts.to(source.device)
    return found._replace(flow=found.flow + shifts[source], source=numbers[source])
