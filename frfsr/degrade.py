"""From a sharp photo to what the network sees: the LR protocol, and the training augmentations.

Images are numpy arrays (H, W, 3), uint8, RGB. The published data pipelines of this lineage quantise the LR image and
its enlargement to 8 bits, so both are made here, on uint8, and not inside the model.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from einops import rearrange
from PIL import Image

from frfsr.errors import UserError

SCALE = 4
LRProtocol = Literal["pil", "matlab"]
"""Whose antialiased bicubic interpolation (a = -0.5) makes the LR: Pillow's (this lineage) or MATLAB's imresize."""


def crop_to_multiple(image: np.ndarray, multiple: int = SCALE) -> np.ndarray:
    """Cut the bottom and right borders so that both sides (H, W, ...) become multiples of `multiple`."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]


def downscale(image: np.ndarray, protocol: LRProtocol = "pil") -> np.ndarray:
    """The LR image: (4h, 4w, 3) uint8 -> (h, w, 3) uint8."""
    height, width = image.shape[:2]
    return resize(image, height // SCALE, width // SCALE, protocol)


def upscale_bicubic(image: np.ndarray, protocol: LRProtocol = "pil") -> np.ndarray:
    """(h, w, 3) uint8 -> (4h, 4w, 3) uint8: the baseline; Pillow's is what the texture encoder sees of the LR."""
    height, width = image.shape[:2]
    return resize(image, height * SCALE, width * SCALE, protocol)


def resize(image: np.ndarray, height: int, width: int, protocol: LRProtocol = "pil") -> np.ndarray:
    """Resize by antialiased bicubic interpolation.

    MATLAB mirrors the image at its borders, where Pillow renormalises the kernel; it is computed here in floating point
    and rounded once at the end, while Pillow rounds after each of its two passes.

    Args:
        image: (H, W, 3) uint8.
        height: of the result, in pixels.
        width: of the result, in pixels.
        protocol: whose interpolation, "pil" or "matlab".

    Returns:
        (height, width, 3) uint8.

    Raises:
        UserError: the protocol is another.
    """
    if protocol == "pil":
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    if protocol != "matlab":
        raise UserError(f"the LR protocol must be pil or matlab, got {protocol!r}")
    rows, columns = (matlab_weights(*sides) for sides in ((image.shape[0], height), (image.shape[1], width)))
    resized = np.einsum("hy,yxc->hxc", rows, image, optimize=True)
    return np.einsum("wx,hxc->hwc", columns, resized, optimize=True).round().clip(0, 255).astype(np.uint8)


def matlab_weights(size: int, new_size: int) -> np.ndarray:
    """Weights (new_size, size) by which MATLAB's imresize makes each new pixel of a row from the old ones."""
    scale = new_size / size
    stretch = min(scale, 1)  # antialiasing: when shrinking, the kernel covers as much as a new pixel does
    centre = (np.arange(new_size) + 0.5) / scale - 0.5
    reach = int(np.ceil(2 / stretch)) + 1
    neighbour = np.floor(centre)[:, None] + np.arange(-reach, reach + 1)
    weight = cubic(stretch * (centre[:, None] - neighbour))
    weight /= weight.sum(axis=1, keepdims=True)
    mirrored = neighbour.astype(int) % (2 * size)
    mirrored = np.minimum(mirrored, 2 * size - 1 - mirrored)
    matrix = np.zeros((new_size, size))
    np.add.at(matrix, (np.arange(new_size)[:, None], mirrored), weight)
    return matrix


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5; zero from distance 2 on."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def flip_rotate(image: np.ndarray, symmetry: int) -> np.ndarray:
    """Symmetry 0 ... 7 of the square: `symmetry % 4` quarter turns, then a horizontal flip from 4 on."""
    image = np.rot90(image, symmetry % 4)
    return image[:, ::-1] if symmetry >= 4 else image


def shuffle_patches(image: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Cut the image into n x n patches and put them back in random order (paper, section IV-A and figure 10).

    n is 2, 4 or 8 for the paper's easy, medium and hard shuffle. Sides that n does not divide lose up to n - 1 pixels.
    """
    return reorder_patches(image, rng.permutation(n * n).tolist())


def reorder_patches(image: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """`shuffle_patches` in a given order: place k, counted row by row, receives the patch from place order[k]."""
    n = math.isqrt(len(order))
    patches = rearrange(crop_to_multiple(image, n), "(n h) (m w) c -> (n m) h w c", n=n, m=n)
    return rearrange(patches[list(order)], "(n m) h w c -> (n h) (m w) c", n=n, m=n)
