"""An image in overlapping tiles: where they lie, and how their results are joined into strips."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frfsr.degrade import SCALE

FADE = 8  # LR pixels over which neighbouring tiles fade into each other


class Span(NamedTuple):
    """A tile along one axis, in LR pixels.

    The network sees start ... stop; first ... last of it is kept; the first `fade` of these fade in over the last ones
    of the tile before.
    """

    start: int
    stop: int
    first: int
    last: int
    fade: int


def spans(size: int, tile: int, halo: int, step: int = 1) -> list[Span]:
    """Cut `size` pixels into evenly spread tiles.

    Args:
        size: of the image along the axis, at least 1.
        tile: what a tile keeps of itself, at most; more than FADE.
        halo: pixels that it sees beyond, where the image has them.
        step: what it sees begins at a multiple of this.

    Returns:
        The tiles from the first pixel to the last.
    """
    count = 1 if size <= tile else ceil((size - FADE) / (tile - FADE))
    firsts = [i * (size - FADE) // count for i in range(count)]
    lasts = [first + FADE for first in firsts[1:]] + [size]
    return [
        Span(max(0, first - halo) // step * step, min(size, last + halo), first, last, FADE if first else 0)
        for first, last in zip(firsts, lasts, strict=True)
    ]


def strips(rows: Sequence[Span], columns: Sequence[Span], render: Callable[[Span, Span], Tensor]) -> Iterator[Tensor]:
    """Join tiles.

    Args:
        rows: as `spans` makes them.
        columns: as `spans` makes them.
        render: (row, column) -> the result (C, 4h, 4w) for all that the tile sees.

    Yields:
        From top to bottom the joined image in strips (C, H', W), float32, on the CPU.
    """
    carry = None
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        pieces = (kept(render(row, column), row, column).float().cpu() * ramp(column, columns) for column in columns)
        first = next(pieces)
        strip = first.new_zeros(*first.shape[:2], SCALE * columns[-1].last)
        for column, piece in zip(columns, chain([first], pieces), strict=True):
            strip[..., SCALE * column.first : SCALE * column.last] += piece
        strip *= ramp(row, rows)[:, None]
        if carry is not None:
            strip[:, : carry.shape[1]] += carry
        done = strip.shape[1] - (SCALE * after.fade if after else 0)
        yield strip[:, :done]
        carry = strip[:, done:]


def kept(image: Tensor, row: Span, column: Span) -> Tensor:
    """The part of a tile's result (..., 4h, 4w) that is kept."""
    top, bottom = (SCALE * (edge - row.start) for edge in (row.first, row.last))
    left, right = (SCALE * (edge - column.start) for edge in (column.first, column.last))
    return image[..., top:bottom, left:right]


def ramp(span: Span, all_spans: Sequence[Span]) -> Tensor:
    """Weights (4 * kept,) of a tile along one axis; where two tiles overlap theirs add up to one."""
    weight = torch.ones(SCALE * (span.last - span.first))
    rise = (torch.arange(SCALE * FADE) + 0.5) / (SCALE * FADE)
    if span.fade:
        weight[: SCALE * FADE] = rise
    if span is not all_spans[-1]:
        weight[-SCALE * FADE :] = 1 - rise
    return weight


def cut(image: Tensor, row: Span, column: Span, scale: int = 1) -> Tensor:
    """Cut what a tile sees of an image.

    Args:
        image: (..., scale * h, scale * w).
        row: of the tile, in LR pixels.
        column: of the tile, in LR pixels.
        scale: of the image.

    Returns:
        The part of it.
    """
    return image[..., scale * row.start : scale * row.stop, scale * column.start : scale * column.stop]


def place(encoded: Any, row: Span, column: Span) -> Any:
    """Tell encoded references where the tile lies in the photo."""
    if "corner" in getattr(encoded, "_fields", ()):
        return encoded._replace(corner=(row.start, column.start))
    return encoded
