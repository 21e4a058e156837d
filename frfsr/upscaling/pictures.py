"""Maps as pictures: places as hues, values as heat, sources as colours; plain arrays."""

import numpy as np

# Colours of the four corners of a reference: top left, top right, bottom left, bottom right.
CORNERS = np.array([[[230, 60, 60], [240, 200, 40]], [[60, 90, 230], [40, 190, 110]]], np.float64)

SOURCES = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito's colours, which people with any colour vision tell apart; views beyond these begin again."""

# From black over purple and orange to light yellow: matplotlib's inferno at equal distances.
HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)


def position_colours(height: int, width: int) -> np.ndarray:
    """A picture (height, width, 3), uint8, whose colour tells the position: `CORNERS`, interpolated."""
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top, bottom = ((1 - x) * left + x * right for left, right in CORNERS)
    return ((1 - y) * top + y * bottom).round().astype(np.uint8)


def source_colours(source: np.ndarray) -> np.ndarray:
    """Numbers (h, w) of views as colours, (h, w, 3) uint8."""
    return np.array(SOURCES, np.uint8)[source % len(SOURCES)]


def blend(photo: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The brightness of a photo in the hues of another picture of its size, both (H, W, 3) uint8."""
    grey = photo.mean(axis=2, keepdims=True) / 255
    return (colours * (0.35 + 0.65 * grey)).round().astype(np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """Values (h, w), clipped to [0, 1], as colours from black over orange to light yellow, (h, w, 3) uint8."""
    stops = np.linspace(0, 1, len(HEAT))
    colours = [np.interp(values.clip(0, 1), stops, channel) for channel in HEAT.T]
    return np.stack(colours, axis=-1).round().astype(np.uint8)
