"""Side-by-side crops, error maps and views of the matching, as pictures with captions."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frfsr.errors import UserError
from frfsr.evals.benchmarks import Sample
from frfsr.evals.metrics import psnr_y, studio_luma
from frfsr.evals.visualise import Insight
from frfsr.upscaling.explain import Matched
from frfsr.upscaling.pictures import heat

TILE = 192
GAP = 8
CAPTION = 20
CROP = 64
ERROR_SCALE = 40.0
FRAME = (255, 200, 0)


class Box(NamedTuple):
    """A square window in HR pixels."""

    left: int
    top: int
    side: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Cut the box (side, side, 3) out of an HR image (H, W, 3)."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]


def choose_crop(results: Sequence[np.ndarray], side: int = CROP) -> Box:
    """Find the window in which some results differ most from one another.

    Args:
        results: (height, width, 3) uint8 each, of one size.
        side: of the window in pixels; less where the image is smaller.

    Returns:
        The window.
    """
    values = np.stack([studio_luma(image) for image in results])
    spread = values.max(axis=0) - values.min(axis=0)
    height, width = spread.shape
    side = min(side, height, width)
    sums = np.pad(spread.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(windows.argmax(), windows.shape)
    return Box(int(left), int(top), side)


def check_crop(box: Box, image: np.ndarray, name: str) -> None:
    """Refuse a box that does not lie in an image.

    Args:
        box: of pixels.
        image: (height, width, 3).
        name: of the image.

    Raises:
        UserError: a part of it lies outside.
    """
    height, width = image.shape[:2]
    if box.side < 1 or box.left < 0 or box.top < 0 or box.left + box.side > width or box.top + box.side > height:
        raise UserError(f"the crop {tuple(box)} does not lie in {name}, an image of {width}x{height} pixels")


def comparison(sample: Sample, results: Mapping[str, np.ndarray], box: Box) -> Image.Image:
    """The paper's figure 6: the truth with the window marked, then the window in every result, reference and truth."""
    whole = Image.fromarray(sample.hr)
    thickness = max(2, whole.width // 200)
    corners = (box.left, box.top, box.left + box.side - 1, box.top + box.side - 1)
    ImageDraw.Draw(whole).rectangle(corners, outline=FRAME, width=thickness)
    tiles = [("LR", box_of_lr(sample, box))]
    tiles += [(f"{name} {psnr_y(sr, sample.hr):.2f} dB", box.cut(sr)) for name, sr in results.items()]
    tiles += [(f"reference {n}" if n else "reference", image) for n, image in enumerate(sample.references)]
    tiles += [("truth", box.cut(sample.hr))]
    columns = math.ceil(len(tiles) / 2)
    grid = panel(tiles, columns)
    left = panel([(sample.name, np.asarray(whole))], 1, tile=grid.height - CAPTION - 2 * GAP)
    return beside([left, grid])


def box_of_lr(sample: Sample, box: Box) -> np.ndarray:
    """The window in the LR image: all LR pixels that it touches."""
    return sample.lr[box.top // 4 : -(-(box.top + box.side) // 4), box.left // 4 : -(-(box.left + box.side) // 4)]


def error_maps(sample: Sample, results: Mapping[str, np.ndarray]) -> Image.Image:
    """|result - truth| on luma, from black to yellow at `ERROR_SCALE` levels of 255 and more."""
    truth = studio_luma(sample.hr)
    tiles = [(f"error of {name}", heat(np.abs(studio_luma(sr) - truth) / ERROR_SCALE)) for name, sr in results.items()]
    return panel([("truth", sample.hr), *tiles], len(tiles) + 1, tile=2 * TILE)


def matching(matched: Matched) -> Image.Image:
    """Where every pixel was found: reference coloured by place, matches in its colours, confidence, warped pixels."""
    score = matched.matches.score
    low, high = np.percentile(score, [1, 99])
    tiles = [
        ("reference, coloured by place", matched.keys[0]),
        ("where each pixel was found", matched.hues),
        (f"cosine, {low:.2f} (dark) to {high:.2f}", heat(stretch(score))),
        ("reference, warped", matched.warped),
    ]
    return panel(tiles, 4, tile=2 * TILE)


def attention(insight: Insight) -> Image.Image:
    """The paper's figure 14: where ESA lets pass, and how strong the dynamic filters are, each over its own range."""
    tiles = [(caption, heat(stretch(values))) for caption, values in insight.attention.items()]
    return panel(tiles, len(tiles), 2 * TILE)


def stretch(values: np.ndarray) -> np.ndarray:
    """Linearly so that all but the lowest and highest hundredth lie in [0, 1]; zeros if all are equal."""
    low, high = np.percentile(values, [1, 99])
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def panel(tiles: Sequence[tuple[str, np.ndarray]], columns: int, tile: int = TILE) -> Image.Image:
    """Captioned pictures in rows of ``columns``, each scaled to fit a square of ``tile`` pixels, on white."""
    rows = math.ceil(len(tiles) / columns)
    fitted = [(caption, fit(image, tile)) for caption, image in tiles]
    cell_width = max(image.width for _, image in fitted)
    cell_height = max(image.height for _, image in fitted) + CAPTION
    sheet = Image.new("RGB", (columns * (cell_width + GAP) + GAP, rows * (cell_height + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for number, (caption, image) in enumerate(fitted):
        row, column = divmod(number, columns)
        left, top = GAP + column * (cell_width + GAP), GAP + row * (cell_height + GAP)
        draw.text((left, top), shorten(caption, font, cell_width), fill="black", font=font)
        sheet.paste(image, (left, top + CAPTION))
    return sheet


def fit(image: np.ndarray, tile: int) -> Image.Image:
    """Scaled to fit a square: small ones by repeating pixels, so that they can be judged, large ones smoothly."""
    height, width = image.shape[:2]
    scale = tile / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize(size, method)


def shorten(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The caption, cut with an ellipsis where it is wider than ``width`` pixels."""
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(caption + "...") > width:
        caption = caption[:-1]
    return caption + "..."


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one row on white."""
    sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet
