"""The LR protocols against the published data pipeline and against properties of interpolation."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from frfsr.degrade import crop_to_multiple, downscale, matlab_weights, resize, upscale_bicubic
from frfsr.errors import UserError

GOLDEN = Path(__file__).parent / "golden"


def test_pil_protocol_equals_the_published_pipeline() -> None:
    golden = load_file(GOLDEN / "14_data_equal_a.safetensors")
    expected = {name: np.moveaxis(golden[name], 0, -1) for name in ("img_in", "img_in_lq", "img_in_up", "img_ref")}
    hr = crop_to_multiple(golden["input_bgr"][..., ::-1])
    np.testing.assert_array_equal(hr, expected["img_in"])
    np.testing.assert_array_equal(crop_to_multiple(golden["ref_bgr"][..., ::-1]), expected["img_ref"])
    lr = downscale(hr)
    np.testing.assert_array_equal(lr, expected["img_in_lq"])
    np.testing.assert_array_equal(upscale_bicubic(lr), expected["img_in_up"])


def test_cropping_alone_for_unequal_sizes_where_the_published_pipeline_pads() -> None:
    golden = load_file(GOLDEN / "14_data_unequal_a.safetensors")
    hr = crop_to_multiple(golden["input_bgr"][..., ::-1])
    np.testing.assert_array_equal(hr, np.moveaxis(golden["img_in"], 0, -1))
    inner = np.s_[:9, :15]  # out of reach of the published padding
    np.testing.assert_array_equal(downscale(hr)[inner], np.moveaxis(golden["img_in_lq"], 0, -1)[inner])


@pytest.mark.parametrize(("size", "new_size"), [(40, 10), (37, 9), (10, 40), (3, 12), (8, 2)])
def test_matlab_weights(size: int, new_size: int) -> None:
    weights = matlab_weights(size, new_size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=0, atol=1e-12)


def test_matlab_weights_reproduce_straight_lines_away_from_borders() -> None:
    position = (np.arange(48) + 0.5) / 4 - 0.5
    np.testing.assert_allclose((matlab_weights(12, 48) @ np.arange(12))[8:-8], position[8:-8], rtol=0, atol=1e-12)


def test_matlab_quarter_weights_are_those_of_imresize() -> None:
    """imresize(x, 1/4) of an impulse: the cubic at odd multiples of 1/8, divided by 4; none of the 16 lie on a knot."""
    distance = np.abs(np.arange(16) - 7.5) / 4
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    expected = np.where(distance < 1, near, far) / 4
    np.testing.assert_allclose(matlab_weights(64, 16)[8, 26:42], expected, rtol=0, atol=1e-12)


def test_protocols_differ_by_rounding_inside_and_at_borders() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    pil, matlab = (downscale(image, protocol).astype(int) for protocol in ("pil", "matlab"))
    assert np.abs(pil - matlab)[2:-2, 2:-2].max() <= 1
    assert np.abs(pil - matlab).max() > 1


@pytest.mark.parametrize("protocol", ["pil", "matlab"])
def test_constant_images_stay_constant(protocol: str) -> None:
    image = np.full((5, 3, 3), 77, np.uint8)
    assert (upscale_bicubic(image, protocol) == 77).all()
    assert upscale_bicubic(image, protocol).shape == (20, 12, 3)


def test_unknown_protocol() -> None:
    with pytest.raises(UserError, match="pil or matlab"):
        resize(np.zeros((4, 4, 3), np.uint8), 1, 1, "opencv")
