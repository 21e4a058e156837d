"""Cells of one photo, each with a reference cut from another photo around what it shows; and which are good enough."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from frfsr.data.building.matches import apply, local_map
from frfsr.data.building.options import BuildOptions
from frfsr.data.building.patches import as_png, bicubic_psnr, fault_of, perceptual_hash
from frfsr.data.building.photos import FILTER, Features

FEWEST = 14  # inliers in a cell
FEWEST_INSIDE = 12  # of them that one affine map explains and the reference shows
SPREAD = 6  # of 4 x 4 parts of the cell that hold such places
TOLERANCE = 1 / 32  # of the cell: what the affine map may miss, as scenes are not flat
LARGEST_SHIFT = 0.1  # of the cell: by which references are cut off centre
EASY = 33.0  # dB that bicubic interpolation reaches
SAME = 0.98  # correlation of what shows the same pixels, at a quarter of the size
NO_TURN = 0.002  # by which the map of a copy is more than a shift and a zoom
OVERLAP = 0.25  # of the area that two cells of a photo may share
RETRY = 0.6  # of the area that a cell may share with one that was left out
COPY = "the photos are copies of each other"


class View(NamedTuple):
    """A square of a photo, enlarged or reduced to a cell.

    Attributes:
        left: edge in pixels of the photo.
        top: edge in pixels of the photo.
        side: in pixels of the photo.
    """

    left: float
    top: float
    side: float


class Cell(NamedTuple):
    """An input, and the affine map (2, 3) from working pixels of its photo to those of the reference's.

    Attributes:
        left: of the input, in whole working pixels.
        top: of the input, in whole working pixels.
        mapping: (2, 3).
        places: (K, 2, 2) what it explains, as of `frfsr.data.building.matches.inliers`.
    """

    left: int
    top: int
    mapping: np.ndarray
    places: np.ndarray


class Side(NamedTuple):
    """One of two photos: its pixels (H, W, 3) uint8 and what is known of it."""

    pixels: np.ndarray
    features: Features


def cells_of(
    first: Side, second: Side, places: np.ndarray, options: BuildOptions, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], Counter]:
    """Cut inputs from the first photo and their references from the second.

    Args:
        first: photo of the inputs.
        second: photo of the references.
        places: (K, 2, 2) as of `frfsr.data.building.matches.inliers`.
        options: size, zooms and caps.
        rng: of zooms and shifts.

    Returns:
        Rows with input and reference as PNG, the numbers that `frfsr.data.building.build` names, best first; and how
        many cells were dropped for which reason.
    """
    rows: list[dict[str, Any]] = []
    dropped: Counter = Counter()
    tried: list[tuple[int, int, float]] = []
    for left, top in windows(places[:, 0], first.features.working_size, options.cell):
        if len(rows) == options.per_pair or dropped[COPY]:
            break
        if any(shared(left - x, top - y, options.cell) > most for x, y, most in tried):
            continue
        cell = fitted(left, top, places, options.cell)
        row = cut_pair(cell, first, second, options, rng) if cell else "matches of no one surface"
        if isinstance(row, str):
            dropped[row] += 1
            tried.append((left, top, RETRY))
        else:
            rows.append(row)
            tried.append((left, top, OVERLAP))
    return ([], dropped) if dropped[COPY] else (rows, +dropped)


def windows(places: np.ndarray, size: tuple[float, float], cell: int) -> Iterator[tuple[int, int]]:
    """(left, top) of cells with enough of the places (K, 2) inside, most first; eight steps to a cell."""
    step = cell / 8
    rows, columns = (int((side - cell) / step) + 1 for side in size)
    bins = np.floor(places / step).astype(int)
    counts = np.zeros((rows + 8, columns + 8), int)
    inside = (bins[:, 1] < rows + 7) & (bins[:, 0] < columns + 7) & (bins >= 0).all(axis=1)
    np.add.at(counts, (bins[inside, 1] + 1, bins[inside, 0] + 1), 1)
    total = counts.cumsum(0).cumsum(1)
    found = total[8:, 8:] - total[:-8, 8:] - total[8:, :-8] + total[:-8, :-8]
    for flat in np.argsort(-found, axis=None, kind="stable"):
        row, column = np.unravel_index(flat, found.shape)
        if found[row, column] < FEWEST:
            return
        yield int(column * step), int(row * step)


def shared(right: int, down: int, cell: int) -> float:
    """Share of its area that a cell has in common with one so far away."""
    return max(cell - abs(right), 0) * max(cell - abs(down), 0) / cell**2


def fitted(left: int, top: int, places: np.ndarray, cell: int) -> Cell | None:
    """Fit a map to what a cell shows, if one explains enough of it, all over it.

    Args:
        left: of the cell, in pixels of the first photo's features.
        top: of the cell, likewise.
        places: (N, 2, 2), (x, y) in the first photo and in the second.
        cell: its side, likewise.

    Returns:
        The cell with its map, or None.
    """
    offsets = places[:, 0] - (left, top)
    places = places[((offsets >= 0) & (offsets < cell)).all(axis=1)]
    mapping, explained = local_map(places, cell * TOLERANCE)
    places = places[explained]
    parts = np.floor((places[:, 0] - (left, top)) / (cell / 4)).astype(int)
    if len(places) < FEWEST_INSIDE or len({tuple(part) for part in parts}) < SPREAD:
        return None
    if np.linalg.det(mapping[:, :2]) <= 0:  # mirrored: no two photos of one place are
        return None
    return Cell(left, top, mapping, places)


def cut_pair(
    cell: Cell, first: Side, second: Side, options: BuildOptions, rng: np.random.Generator
) -> dict[str, Any] | str:
    """Make the row of a cell.

    Args:
        cell: with its map.
        first: has the input.
        second: has the reference.
        options: sizes.
        rng: draws the reference's zoom.

    Returns:
        The row, or why there is none.
    """
    side = options.cell
    scale = float(first.features.scale)
    view = View(cell.left / scale, cell.top / scale, side / scale)
    patch = cut(first.pixels, view, side)
    if reason := fault_of(patch):
        return f"input {reason}"
    if bicubic_psnr(patch) > EASY:
        return "input easy for bicubic interpolation"
    found = reference_view(cell, second.features, options, rng)
    if found is None:
        return "reference outside of its photo or its zooms"
    reference_square, zoom = found
    factor = side / reference_square.side / float(second.features.scale)  # pixels of the reference per working pixel
    corner = np.array([reference_square.left, reference_square.top]) * float(second.features.scale)

    def seen(places: np.ndarray) -> np.ndarray:
        """Where the reference shows working places of its photo."""
        return (places + 0.5 - corner) * factor - 0.5

    shown = seen(cell.places[:, 1])
    count = int(((shown >= 0) & (shown < side)).all(axis=1).sum())
    if count < FEWEST_INSIDE:
        return "reference shows too little of the input"
    reference = cut(second.pixels, reference_square, side)
    if reason := fault_of(reference):
        return f"reference {reason}"
    if same_pixels(cell, patch, reference, seen):
        return COPY
    centre = np.array([cell.left, cell.top]) + (side - 1) / 2
    x, y = seen(apply(cell.mapping, centre))
    return {
        "input": as_png(patch),
        "reference": as_png(reference),
        "x": cell.left,
        "y": cell.top,
        "input_square": list(view),
        "reference_square": list(reference_square),
        "zoom": round(zoom, 3),
        "inliers": count,
        "matched": [round(float(x), 2), round(float(y), 2)],
        "hash": perceptual_hash(patch),
    }


def reference_view(
    cell: Cell, features: Features, options: BuildOptions, rng: np.random.Generator
) -> tuple[View, float] | None:
    """Choose the square of the reference's photo, and its zoom: as it is in half of the cases, else drawn.

    Args:
        cell: with its map.
        features: of the reference's photo.
        options: sizes and zooms.
        rng: draws.

    Returns:
        Both; None if the photo shows it too small for the least zoom, or not all around it.
    """
    natural = math.sqrt(np.linalg.det(cell.mapping[:, :2]))
    low, high = options.zoom[0], min(options.zoom[1], natural * float(features.sharp / features.scale))
    as_it_is, drawn, shift = rng.random() < 0.5, rng.random(), rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2)
    if high < low:
        return None
    zoom = natural if as_it_is and low <= natural <= high else low * (high / low) ** drawn
    scale = float(features.scale)
    side = options.cell * natural / zoom / scale
    height, width = map(float, features.size)
    if side > min(height, width):
        return None
    centre = apply(cell.mapping, np.array([cell.left, cell.top]) + (options.cell - 1) / 2)
    aimed = (centre + 0.5) / scale + shift * side - side / 2
    corner = np.clip(np.rint(aimed), 0, np.floor([width - side, height - side]))
    if np.abs(corner - aimed).max() > side / 4:
        return None
    return View(float(corner[0]), float(corner[1]), side), zoom


def cut(pixels: np.ndarray, view: View, side: int) -> np.ndarray:
    """The view of a photo as (side, side, 3) uint8, resampled once from the photo's own pixels."""
    margin = math.ceil(4 * max(view.side / side, 1)) + 1
    x, y = (max(int(edge) - margin, 0) for edge in (view.left, view.top))
    right, bottom = (math.ceil(edge + view.side) + margin for edge in (view.left, view.top))
    near = np.ascontiguousarray(pixels[y:bottom, x:right])
    left, top = view.left - x, view.top - y
    box = (left, top, min(left + view.side, near.shape[1]), min(top + view.side, near.shape[0]))
    return np.asarray(Image.fromarray(near).resize((side, side), FILTER, box))


def same_pixels(cell: Cell, patch: np.ndarray, reference: np.ndarray, seen: Any) -> bool:
    """Tell whether the reference is a copy of the same photo, perhaps resized, cut or recompressed, and no other view.

    Args:
        cell: with its map.
        patch: the input, (side, side, 3) uint8.
        reference: likewise.
        seen: working places of the reference's photo -> places in the reference.

    Returns:
        Whether it is.
    """
    linear = cell.mapping[:, :2]
    if np.abs(linear / math.sqrt(np.linalg.det(linear)) - np.eye(2)).max() > NO_TURN:
        return False
    side = len(patch)
    corners = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    targets = seen(apply(cell.mapping, corners + np.array([cell.left, cell.top]))).astype(np.float32)
    warp = cv2.getAffineTransform(corners, targets)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned, inside = (
        cv2.warpAffine(image, warp, (side, side), flags=flags)
        for image in (cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY), np.full((side, side), 255, np.uint8))
    )
    small = (side // 4, side // 4)
    shown, grey, both = (
        cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        for image in (aligned, cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), inside)
    )
    return bool(np.corrcoef(shown[both == 255], grey[both == 255])[0, 1] > SAME) if (both == 255).any() else False
