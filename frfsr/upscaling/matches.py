"""Where a result's textures were found: for every LR pixel, and for a person who points at one."""

from typing import NamedTuple, Self

import numpy as np

from frfsr.network import Correspondence
from frfsr.upscaling.options import Report, View
from frfsr.upscaling.tiles import Span


class Matches(NamedTuple):
    """Where every LR pixel's texture comes from; arrays over the photo.

    Attributes:
        score: (h, w) float32, -1 ... 1.
        flow: (h, w, 2) float32, displacement (x, y) in LR pixels to the place in its view, a quarter of the view's
            pixels.
        source: (h, w) int16, number in `Report.views`.
    """

    score: np.ndarray
    flow: np.ndarray
    source: np.ndarray

    @classmethod
    def none_yet(cls, height: int, width: int) -> Self:
        """Make room for those of a photo (height, width)."""
        return cls(
            np.zeros((height, width), np.float32),
            np.zeros((height, width, 2), np.float32),
            np.zeros((height, width), np.int16),
        )

    def keep(self, found: Correspondence, row: Span, column: Span) -> None:
        """Keep those of a tile, without what it sees beyond itself."""
        inside = (
            slice(row.first - row.start, row.last - row.start),
            slice(column.first - column.start, column.last - column.start),
        )
        there = (slice(row.first, row.last), slice(column.first, column.last))
        self.score[there] = found.score[0][inside].float().cpu().numpy()
        self.flow[there] = found.flow[0][inside].float().cpu().numpy()
        if found.source is not None:
            self.source[there] = found.source[0][inside].cpu().numpy()


class Place(NamedTuple):
    """Where a pixel's texture was found.

    Attributes:
        reference: its number, from 0.
        view: number in `Report.views`.
        x: in the reference's own pixels, as its file has them; it may lie beyond its border.
        y: likewise.
        score: of the match, -1 ... 1.
    """

    reference: int
    view: int
    x: float
    y: float
    score: float


def matched_place(report: Report, matches: Matches, x: float, y: float) -> Place:
    """Find where the texture at a pixel of a result came from.

    Args:
        report: of the run.
        matches: of the run.
        x: of the pixel.
        y: of the pixel.

    Returns:
        The place.
    """
    height, width = matches.score.shape
    column, row = (int(min(max(value // 4, 0), side - 1)) for value, side in ((x, width), (y, height)))
    source = int(matches.source[row, column])
    view = report.views[source]
    shift = 4 * matches.flow[row, column]
    there = in_reference(view, x + float(shift[0]), y + float(shift[1]))
    return Place(view.reference, source, *there, float(matches.score[row, column]))


def in_reference(view: View, x: float, y: float) -> tuple[float, float]:
    """The place (x, y) of a view in pixels of the reference, which the view shows resized and turned."""
    width, height = view.size
    x, y = {0: (x, y), 90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}[view.turn]
    return x / view.zoom, y / view.zoom
