"""Tiles of the packaged network join to what it makes of the whole photo."""

import numpy as np
import pytest

from frfsr.architectures import load
from frfsr.degrade import downscale
from frfsr.imageio import Photo
from frfsr.upscaling.options import Options
from frfsr.upscaling.upscale import upscale_photo


def test_tiles_hardly_differ_from_the_whole():
    """By at most 1 of 255 in 99.9 % of the samples."""
    left, right, _ = pytest.importorskip("skimage.data").stereo_motorcycle()
    photo, model = Photo(downscale(np.ascontiguousarray(left[100:340, 100:628]))), load("frfsr-tiny", "cpu")
    references = [Photo(np.ascontiguousarray(right[140:340, 200:460]))]
    whole, tiles = (
        upscale_photo(photo, references, model, Options(views="off", tile=tile)) for tile in (photo.pixels.shape[1], 96)
    )
    assert (whole.report.tiles, tiles.report.tiles) == (1, 2)
    difference = np.abs(whole.photo.pixels.astype(int) - tiles.photo.pixels)
    assert 0.999 <= np.mean(difference <= 1) < 1
