"""Degraded LR images: reproducible, of the right size, within their ranges, and what each part does."""

import numpy as np
import pytest

from frfsr.degradations import Degradation, blurred, degraded_lr, noisy, saved_as_jpeg
from frfsr.degrade import downscale, resize
from frfsr.errors import UserError

PHOTO = resize(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8), 128, 192)
NOTHING = {f"{part}_share": 0.0 for part in ("clean", "blur", "resize", "noise", "jpeg", "last_jpeg")}


def test_the_same_generator_gives_the_same_image():
    images = [degraded_lr(PHOTO, Degradation(), np.random.default_rng(seed)) for seed in range(8)]
    again = [degraded_lr(PHOTO, Degradation(), np.random.default_rng(seed)) for seed in range(8)]
    for image, repeated in zip(images, again, strict=True):
        assert image.shape == (32, 48, 3)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, repeated)
    assert len({image.tobytes() for image in images}) > 6
    assert all(np.abs(image.astype(int) - downscale(PHOTO)).mean() < 40 for image in images)


@pytest.mark.parametrize("shares", [NOTHING, {"clean_share": 1.0}])
def test_without_any_part_the_lr_image_is_pillows(shares):
    image = degraded_lr(PHOTO, Degradation(**shares), np.random.default_rng(0))
    np.testing.assert_array_equal(image, downscale(PHOTO))


@pytest.mark.parametrize("part", ["blur", "resize", "noise", "jpeg", "last_jpeg"])
def test_each_part_alone_changes_the_image(part):
    image = degraded_lr(PHOTO, Degradation(**NOTHING | {f"{part}_share": 1.0}), np.random.default_rng(1))
    assert 0 < np.abs(image.astype(int) - downscale(PHOTO)).mean() < 20


def test_blur_is_wider_along_its_axis_and_keeps_the_brightness():
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    spread = blurred(point, np.array([2.0, 0.5]), 0.0)[..., 0].astype(float)
    place = np.arange(41) - 20
    variances = [(place**2 * spread.sum(axis)).sum() / spread.sum() for axis in (0, 1)]
    assert variances == [pytest.approx(4, abs=0.8), pytest.approx(0.25, abs=0.15)]
    assert blurred(PHOTO, np.array([2.0, 1.0]), 0.7).mean() == pytest.approx(PHOTO.mean(), abs=1)


def test_noise_has_its_strength():
    grey = np.full((64, 64, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    assert noisy(grey, 10, False, False, rng).std() == pytest.approx(10, rel=0.05)
    assert noisy(grey, 10, False, True, rng).std() == pytest.approx(10 * (128 / 255) ** 0.5, rel=0.05)
    same = noisy(grey, 10, True, False, rng)
    assert (same[..., :1] == same).all()


def test_a_worse_jpeg_is_farther_from_the_image():
    errors = [np.abs(saved_as_jpeg(PHOTO, quality).astype(int) - PHOTO).mean() for quality in (95, 60, 20)]
    assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blur": (2.0, 1.0)}, "blur must be a range"),
        ({"jpeg": (0, 50)}, "jpeg"),
        ({"resize": (0.1, 1.0)}, "resize"),
        ({"nois": (0, 1)}, "did you mean 'noise'"),
    ],
)
def test_parameters_are_bounded(values, message):
    with pytest.raises(UserError, match=message):
        Degradation(**values)
