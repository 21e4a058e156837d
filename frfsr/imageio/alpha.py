"""Colour under transparent pixels, which files leave arbitrary."""

import numpy as np
from einops import rearrange


def fill_transparent(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Continue visible colour into the pixels of alpha 0; colour of alpha above 0 stays as it is.

    A pyramid of halved images, each pixel the alpha-weighted mean of four, is descended again: a transparent pixel
    takes the finest mean that has any weight. Time and memory are those of about one and a third images.

    Args:
        color: (H, W, C) of an integer type, or floating point.
        alpha: (H, W) of the same type, 0 is transparent.

    Returns:
        (H, W, C) like `color`; where all is transparent, `color` itself.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return color
    weight = alpha.astype(np.float32)[..., None]
    levels = [(color * weight, weight)]
    while (levels[-1][1] == 0).any():
        levels.append((_halve(levels[-1][0]), _halve(levels[-1][1])))
    sums, weight = levels.pop()
    mean = sums / weight
    for sums, weight in reversed(levels):
        height, width = weight.shape[:2]
        coarse = mean.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        mean = np.where(weight > 0, sums / np.maximum(weight, 1e-20), coarse)
    mean = mean if color.dtype.kind == "f" else np.rint(mean)
    return np.where(hidden[..., None], mean.astype(color.dtype), color)


def _halve(sums: np.ndarray) -> np.ndarray:
    """Mean of 2x2 pixels of (H, W, C), zeros beyond the border: sums and weights shrink alike."""
    height, width = sums.shape[:2]
    padded = np.pad(sums, ((0, height % 2), (0, width % 2), (0, 0)))
    cells = rearrange(padded, "(h dh) (w dw) c -> h w dh dw c", dh=2, dw=2)
    return cells.mean(axis=(2, 3))


def restore_flat(enlarged: np.ndarray, color: np.ndarray) -> None:
    """Make an enlarged image exact, in place, where the small one is flat.

    A network is right to about half a grey level there, which shows beside exact transparency: graphics have areas of
    one colour that must stay this colour. Flat is a pixel whose 5x5 surroundings, which bicubic interpolation sees, are
    equal.

    Args:
        enlarged: (s * H, s * W, C).
        color: (H, W, C) of the same type.
    """
    scale = enlarged.shape[0] // color.shape[0]
    flat = (_extreme(color, np.maximum) == _extreme(color, np.minimum)).all(axis=-1)
    for row in np.flatnonzero(flat.any(axis=1)):
        columns = flat[row].repeat(scale)
        enlarged[scale * row : scale * (row + 1), columns] = color[row].repeat(scale, axis=0)[columns]


def _extreme(color: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Largest or smallest value in the 5x5 surroundings of each pixel of (H, W, C)."""
    for axis in (0, 1):
        margin = [(2, 2) if axis == side else (0, 0) for side in range(3)]
        padded, size = np.pad(color, margin, mode="edge"), color.shape[axis]
        color = choose.reduce([padded.take(range(start, start + size), axis=axis) for start in range(5)])
    return color
