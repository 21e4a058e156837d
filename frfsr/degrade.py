"""From a sharp photo to what the network sees: the LR protocol, and the training augmentations.

Images are numpy arrays (H, W, 3), uint8, RGB. The published data pipelines of this lineage quantise the LR image and its
enlargement to 8 bits, so both are made here, on uint8, and not inside the model.
"""

import numpy as np
from einops import rearrange
from PIL import Image

SCALE = 4


def crop_to_multiple(image: np.ndarray, multiple: int = SCALE) -> np.ndarray:
    """Cut the bottom and right borders so that both sides (H, W, ...) become multiples of `multiple`."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]


def downscale(image: np.ndarray) -> np.ndarray:
    """The LR image: (4h, 4w, 3) uint8 -> (h, w, 3) uint8 by Pillow's antialiased bicubic (a = -0.5)."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width // SCALE, height // SCALE), Image.Resampling.BICUBIC))


def upscale_bicubic(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 -> (4h, 4w, 3) uint8 by Pillow's bicubic: the baseline, and what the texture encoder sees of the LR."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC))


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random size x size window whose corner lies on a multiple of 4; the whole side where the image is smaller."""
    top, left = (int(rng.integers(0, max(side - size, 0) // SCALE + 1)) * SCALE for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def flip_rotate(image: np.ndarray, symmetry: int) -> np.ndarray:
    """Symmetry 0 ... 7 of the square: `symmetry % 4` quarter turns, then a horizontal flip from 4 on."""
    image = np.rot90(image, symmetry % 4)
    return image[:, ::-1] if symmetry >= 4 else image


def shuffle_patches(image: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Cut the image into n x n patches and put them back in random order (paper, section IV-A and figure 10).

    n is 2, 4 or 8 for the paper's easy, medium and hard shuffle. Sides that n does not divide lose up to n - 1 pixels.
    """
    patches = rearrange(crop_to_multiple(image, n), "(n h) (m w) c -> (n m) h w c", n=n, m=n)
    return rearrange(patches[rng.permutation(n * n)], "(n m) h w c -> (n h) (m w) c", n=n, m=n)
