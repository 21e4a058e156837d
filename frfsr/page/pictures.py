"""What the page shows of the matches: where in the references a clicked place was found, and how sure that is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from frfsr.degrade import SCALE
from frfsr.page.work import Outcome, picture, thumbnail
from frfsr.upscaling.matches import Place, matched_place
from frfsr.upscaling.options import View
from frfsr.upscaling.pictures import SOURCES, heat

SIDE = 1000  # pixels, the largest picture here
AROUND = 3  # LR pixels on each side of the click whose matches are shown too
CLOSE = 48  # pixels of the result that a close-up shows
ENLARGED = 288  # pixels, its side on the screen
GAP = 8  # pixels between pictures


class MatchView(NamedTuple):
    """What a click shows.

    Attributes:
        result: with a ring at the click.
        references: each with its name, and with marks at the matched places.
        winner: the number of the reference in which the clicked place was found.
        closeups: the clicked place, and the matched place as the network saw it, side by side.
        text: the same in words.
    """

    result: Image.Image
    references: list[tuple[Image.Image, str]]
    winner: int
    closeups: Image.Image
    text: str


def match_view(outcome: Outcome, x: float, y: float) -> MatchView:
    """Show the matches of a place.

    Args:
        outcome: with matches.
        x: of the click, as share of the result's width, 0 ... 1.
        y: of the click, as share of the result's height, 0 ... 1.

    Returns:
        Pictures and text of the place.
    """
    assert outcome.matches is not None
    height, width = outcome.after.shape[:2]
    column, row = min(int(x * width), width - 1), min(int(y * height), height - 1)
    found = matched_place(outcome.report, outcome.matches, column, row)
    steps = range(-SCALE * AROUND, SCALE * AROUND + 1, SCALE)
    around = [
        matched_place(outcome.report, outcome.matches, near_x, near_y)
        for near_y in (row + step for step in steps)
        for near_x in (column + step for step in steps)
        if 0 <= near_x < width and 0 <= near_y < height
    ]
    view = outcome.report.views[found.view]
    references = []
    for number, reference in enumerate(outcome.references):
        image = thumbnail(reference.pixels, SIDE)
        scale = reference.scale * image.width / reference.pixels.shape[1]
        for near in around:
            if near.reference == number:
                dot(image, scale * near.x, scale * near.y, SOURCES[near.view % len(SOURCES)])
        if found.reference == number:
            ring(image, scale * found.x, scale * found.y)
        references.append((image, reference.name))
    result = thumbnail(outcome.after, SIDE).convert("RGB")
    ring(result, x * result.width, y * result.height)
    name = outcome.references[found.reference].name
    text = (
        f"Found in {name} at ({found.x:.0f}, {found.y:.0f}), seen {seen_as(view)}; confidence {found.score:.2f} of 1. "
        f"Dots: where its {2 * AROUND + 1}×{2 * AROUND + 1} neighbours were found."
    )
    return MatchView(result, references, found.reference, closeups(outcome, column, row, found), text)


def seen_as(view: View) -> str:
    """How the network saw the reference, in words."""
    turned = f", turned by {view.turn}°" if view.turn else ""
    return f"at ×{view.zoom:.2f}{turned}" if turned or view.zoom != 1 else "as it is"


def closeups(outcome: Outcome, column: int, row: int, found: Place) -> Image.Image:
    """Show the clicked and the matched place side by side.

    Args:
        outcome: with matches.
        column: of the click, in pixels of the result.
        row: of the click, in pixels of the result.
        found: the matched place.

    Returns:
        Two squares of `ENLARGED` pixels.
    """
    view = outcome.report.views[found.view]
    reference = outcome.references[found.reference]
    scale = reference.scale
    here = crop(outcome.after, column, row, CLOSE)
    there = crop(reference.pixels, scale * found.x, scale * found.y, CLOSE / view.zoom * scale).rotate(view.turn)
    return side_by_side([here, there], ENLARGED)


def crop(pixels: np.ndarray, x: float, y: float, side: float) -> Image.Image:
    """Cut a square, black outside of the image, enlarged to `ENLARGED`.

    Args:
        pixels: (H, W, C) uint8.
        x: of its centre, in pixels.
        y: of its centre, in pixels.
        side: of the square, in pixels.

    Returns:
        The square.
    """
    left, top = int(np.floor(x - side / 2)), int(np.floor(y - side / 2))
    whole = int(np.ceil(side)) + 1
    piece = picture(pixels).convert("RGB").crop((left, top, left + whole, top + whole))
    inside = (x - side / 2 - left, y - side / 2 - top, x + side / 2 - left, y + side / 2 - top)
    return piece.resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC, inside)


def confidence(outcome: Outcome) -> Image.Image | None:
    """The result, and beside it the scores of its matches."""
    if outcome.matches is None:
        return None
    scores = Image.fromarray(heat(outcome.matches.score))
    result = picture(outcome.after).convert("RGB")
    return side_by_side([result, scores.resize(result.size, Image.Resampling.NEAREST)], SIDE // 2)


def side_by_side(images: Sequence[Image.Image], height: int) -> Image.Image:
    """Pictures in a row on white, each `height` pixels high."""
    images = [
        image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.BICUBIC)
        for image in images
    ]
    row = Image.new("RGB", (sum(image.width for image in images) + GAP * (len(images) - 1), height), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + GAP
    return row


def ring(image: Image.Image, x: float, y: float) -> None:
    """Draw a ring that is seen on every background."""
    radius = max(8, max(image.size) / 50)
    draw = ImageDraw.Draw(image)
    for size, colour, width in ((radius + 2, "black", 6), (radius, "white", 2)):
        draw.ellipse((x - size, y - size, x + size, y + size), outline=colour, width=width)


def dot(image: Image.Image, x: float, y: float, colour: tuple[int, int, int]) -> None:
    """Draw a small dot.

    Args:
        image: gets it.
        x: in pixels.
        y: in pixels.
        colour: RGB, 0 ... 255.
    """
    radius = max(2, max(image.size) / 300)
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="black")
