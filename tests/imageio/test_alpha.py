"""Colour under alpha 0 has no weight; alpha and colour are exact where they are flat."""

import numpy as np
import pytest

from frfsr.architectures import load
from frfsr.imageio import Photo
from frfsr.imageio.alpha import fill_transparent
from frfsr.upscaling.upscale import upscale_photo


def disc(dtype: type, color: tuple[int, ...], under: int, side: int = 40) -> Photo:
    """A disc of one colour; under alpha 0 lies another."""
    y, x = np.mgrid[:side, :side]
    inside = np.hypot(y - side / 2, x - side / 2) < side / 3
    scale = np.iinfo(dtype).max // 255
    pixels = np.full((side, side, len(color) + 1), under * scale, dtype)
    pixels[inside, :-1] = np.array(color) * scale
    pixels[..., -1] = inside * np.iinfo(dtype).max
    return Photo(pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("under", [0, 255, 77])
def test_hidden_colour_is_continued_from_the_visible(dtype, under):
    photo = disc(dtype, (255, 230, 120), under)
    scale = np.iinfo(dtype).max // 255
    assert (photo.filled_rgb() == np.array([255, 230, 120]) * scale).all()


def test_visible_colour_stays_and_hidden_colour_lies_between_the_visible():
    generator = np.random.default_rng(0)
    color = generator.integers(50, 200, (37, 23, 3), np.uint8)
    alpha = generator.integers(0, 3, (37, 23), np.uint8)
    alpha[:20] = 0
    filled = fill_transparent(np.where(alpha[..., None] > 0, color, 255).astype(np.uint8), alpha)
    np.testing.assert_array_equal(filled[alpha > 0], color[alpha > 0])
    assert filled.min() >= 50
    assert filled.max() < 200
    nothing = np.zeros_like(alpha)
    np.testing.assert_array_equal(fill_transparent(color, nothing), color)
    np.testing.assert_array_equal(fill_transparent(color, nothing + 9), color)


def test_faint_colours_count_little():
    color = np.zeros((1, 4, 1), np.uint8)
    color[0, :, 0] = 0, 100, 200, 0
    filled = fill_transparent(color, np.array([[0, 255, 1, 0]], np.uint8))
    assert filled[0, :, 0].tolist() == [100, 100, 200, 200]  # each pair of pixels has one that is visible
    filled = fill_transparent(color[:, [0, 0, 1, 2]], np.array([[0, 0, 255, 1]], np.uint8))
    assert filled[0, 0, 0] == 100


@pytest.mark.parametrize("under", [0, 255])
@pytest.mark.parametrize(
    ("dtype", "color"), [(np.uint8, (255, 230, 120)), (np.uint8, (90,)), (np.uint16, (10, 200, 3))]
)
def test_nothing_leaks_from_under_alpha_0_into_the_enlarged_photo(dtype, color, under):
    photo = disc(dtype, color, under)
    result = upscale_photo(photo, [], load("frfsr-tiny", "cpu")).photo.pixels
    visible = result[result[..., -1] > 0][:, :-1].astype(float)
    scale = np.iinfo(dtype).max // 255
    np.testing.assert_array_equal(visible, np.broadcast_to(np.array(color) * scale, visible.shape))
    inner = photo.pixels[..., -1].repeat(4, axis=0).repeat(4, axis=1)
    solid = np.zeros_like(inner, bool)
    solid[72:88, 72:88] = True
    assert (result[..., -1][solid] == np.iinfo(dtype).max).all()
    assert (result[..., -1][:8] == 0).all()
