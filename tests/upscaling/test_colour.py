"""The colour of a reference does not reach the result: it gives textures, not brightness or white balance."""

import numpy as np
import pytest

from frfsr.architectures import load
from frfsr.degrade import downscale
from frfsr.imageio import Photo
from frfsr.upscaling.options import Options
from frfsr.upscaling.upscale import upscale_photo


@pytest.mark.parametrize("name", ["frfsr-tiny", "frfsr-tiny-gan"])
def test_the_light_of_a_reference_does_not_move_the_mean_colour(name):
    left, right, _ = pytest.importorskip("skimage.data").stereo_motorcycle()
    photo, model = Photo(downscale(np.ascontiguousarray(left[200:280, 300:420]))), load(name, "cpu")
    reference = right[190:290, 280:400].astype(float)

    def mean_colour(gain: tuple[float, float, float]) -> np.ndarray:
        seen = Photo((reference * gain).clip(0, 255).round().astype(np.uint8))
        return upscale_photo(photo, [seen], model, Options(views="off")).photo.pixels.mean((0, 1))

    as_it_is = mean_colour((1, 1, 1))
    for gain in ((1.2, 1.2, 1.2), (0.8, 0.8, 0.8), (1.15, 1, 0.8)):
        np.testing.assert_allclose(mean_colour(gain), as_it_is, atol=1)
    np.testing.assert_allclose(as_it_is, photo.pixels.mean((0, 1)), atol=1)
