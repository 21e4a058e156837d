"""The weights that come with the package: small enough, and worth having a reference for."""

from pathlib import Path

import numpy as np
import pytest
import torch

import frfsr.model
from frfsr import FRFSR
from frfsr.degrade import downscale, upscale_bicubic
from frfsr.evals.metrics import psnr_y
from frfsr.imageio import Photo
from frfsr.inference import upscale_photo
from frfsr.recipes.samples import to_tensor

FOLDER = Path(frfsr.model.PACKAGED_WEIGHTS) / "frfsr-tiny"


def test_frfsr_tiny_is_small():
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    model = FRFSR.from_pretrained("frfsr-tiny")
    assert sum(parameter.numel() for parameter in model.parameters()) <= 2_500_000
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.fixture(scope="module")
def stereo_pair() -> tuple[np.ndarray, np.ndarray]:
    """Truth and reference: cuts of a real stereo pair, from which nothing was trained."""
    left, right, _ = pytest.importorskip("skimage.data").stereo_motorcycle()
    return np.ascontiguousarray(left[200:328, 300:460]), np.ascontiguousarray(right[180:348, 220:440])


def test_frfsr_tiny_uses_its_reference(stereo_pair):
    data = pytest.importorskip("skimage.data")
    truth, reference = stereo_pair
    model = FRFSR.from_pretrained("frfsr-tiny").eval()
    lr = downscale(truth)
    bicubic, unrelated, ours = (
        psnr_y(image, truth)
        for image in (
            upscale_bicubic(lr),
            upscale_photo(Photo(lr), [Photo(np.ascontiguousarray(data.coffee()[:168, :220]))], model).pixels,
            upscale_photo(Photo(lr), [Photo(reference)], model).pixels,
        )
    )
    assert ours > unrelated + 0.1
    assert ours > bicubic + 1.0


def test_without_a_reference_frfsr_tiny_is_as_good_as_its_base_image(stereo_pair):
    truth, _ = stereo_pair
    model = FRFSR.from_pretrained("frfsr-tiny").eval()
    lr = downscale(truth)
    with torch.inference_mode():
        base = model(to_tensor(lr)[None], None, to_tensor(upscale_bicubic(lr))[None]).image
    assert psnr_y(upscale_photo(Photo(lr), [], model).pixels, truth) > psnr_y(base, truth) - 0.05


def test_bfloat16_costs_frfsr_tiny_no_quality(stereo_pair):
    truth, reference = stereo_pair
    model = FRFSR.from_pretrained("frfsr-tiny").eval()
    inputs = to_tensor(downscale(truth))[None], to_tensor(reference)[None]
    with torch.inference_mode():
        exact = model(*inputs).image
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(*inputs).image
    assert not torch.equal(exact, rounded)
    assert abs(psnr_y(rounded.float(), truth) - psnr_y(exact, truth)) <= 0.02
