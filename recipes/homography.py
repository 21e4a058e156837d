"""Pairs with known correspondence, on which the matching network is trained: a photo and its view by a homography.

Coordinates are (x, y) in pixels, the origin at the centre of the top-left pixel. A homography H, (3, 3) float64, says
where a pixel of the *second* image lies in the first; its inverse sends a pixel of the first image to the second.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def random_homography(rng: np.random.RandomState, size: int = 160, jitter: int = 10) -> np.ndarray:
    """The published draw: a size x size square at a random place, each corner coordinate moved by less than `jitter`.

    `rng` is numpy's legacy generator, so that the published sequence of homographies can be repeated.
    """
    left, top = rng.randint(10, size), rng.randint(10, size)
    square = np.array(
        [(left, top), (left + size, top), (left + size, top + size), (left, top + size)], dtype=np.float64
    )
    moved = square.copy()
    for corner in (0, 1, 3, 2):  # drawn top-left, top-right, bottom-left, bottom-right
        for axis in (0, 1):
            moved[corner, axis] += rng.randint(0, jitter) * rng.choice([-1, 1])
    return perspective(square, moved)


def perspective(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The homography that sends four points (4, 2) to four others (4, 2); its last element is 1."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.append(np.linalg.solve(np.array(rows), target.reshape(-1)), 1).reshape(3, 3)


def similarity(size: int, zoom: float, degrees: float) -> np.ndarray:
    """Make the homography of a view that shows its image zoomed and turned around their centre.

    Args:
        size: side of the view and of the image, in pixels.
        zoom: size of the content in the second image over that in the first.
        degrees: the content is turned counter-clockwise.

    Returns:
        (3, 3).
    """
    angle, centre = np.deg2rad(degrees), (size - 1) / 2
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    turned = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return shift(centre) @ turned @ shift(-centre)


def shift(distance: float) -> np.ndarray:
    """The homography (3, 3) that adds `distance` to x and y."""
    return np.array([[1, 0, distance], [0, 1, distance], [0, 0, 1]], dtype=np.float64)


def transform(homography: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where H sends every pixel of a (height, width) image: (height, width, 2) float64, last dimension (x, y)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    points = np.stack([x, y, np.ones_like(x)], -1) @ homography.T
    return points[..., :2] / points[..., 2:]


def warp(image: Tensor, homography: np.ndarray, size: int | None = None) -> Tensor:
    """The second image: `image` (3, H, W) sampled bilinearly at H (x, y), zero outside; size x size, or as `image`."""
    height, width = image.shape[-2:]
    points = torch.from_numpy(transform(homography, size or height, size or width))
    grid = 2 * points / torch.tensor([max(width - 1, 1), max(height - 1, 1)]) - 1
    sampled = F.grid_sample(image[None].double(), grid[None], mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[0].to(image.dtype)
