"""The weights that come with the package: small enough, and worth having a reference for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frfsr import FRFSR, checkpoints
from frfsr.architectures import load
from frfsr.degradations import Degradation, degraded_lr
from frfsr.degrade import downscale, upscale_bicubic
from frfsr.evals.metrics import psnr_y
from frfsr.imageio import Photo
from frfsr.pixels import to_tensor
from frfsr.upscaling.upscale import upscale_photo

PACKAGED = ("frfsr-tiny", "frfsr-tiny-gan", "frfsr-tiny-real")


@pytest.mark.parametrize(
    ("name", "megabytes", "parameters"),
    [("frfsr-tiny", 10, 2_500_000), ("frfsr-tiny-gan", 13, 3_200_000), ("frfsr-tiny-real", 10, 2_500_000)],
)
def test_packaged_weights_are_small(name, megabytes, parameters):
    file = Path(checkpoints.PACKAGED, name, "model.safetensors")
    assert file.stat().st_size <= megabytes * 1_000_000
    model = FRFSR.from_pretrained(name)
    assert sum(parameter.numel() for parameter in model.parameters()) <= parameters
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.fixture(scope="module")
def stereo_pair() -> tuple[np.ndarray, np.ndarray]:
    """Truth and reference: cuts of a real stereo pair, from which nothing was trained."""
    left, right, _ = pytest.importorskip("skimage.data").stereo_motorcycle()
    return np.ascontiguousarray(left[200:328, 300:460]), np.ascontiguousarray(right[180:348, 220:440])


@pytest.fixture(scope="module")
def unrelated() -> np.ndarray:
    """A reference that shows nothing of the stereo pair."""
    return np.ascontiguousarray(pytest.importorskip("skimage.data").coffee()[:168, :220])


@pytest.mark.parametrize("name", PACKAGED)
def test_the_reference_is_used(stereo_pair, unrelated, name):
    truth, reference = stereo_pair
    model = FRFSR.from_pretrained(name).eval()
    lr = downscale(truth)
    bicubic, misled, ours = (
        psnr_y(image, truth)
        for image in (
            upscale_bicubic(lr),
            upscale_photo(Photo(lr), [Photo(unrelated)], model).photo.pixels,
            upscale_photo(Photo(lr), [Photo(reference)], model).photo.pixels,
        )
    )
    assert ours > misled + 0.1
    assert ours > bicubic + 1.0


@pytest.mark.parametrize("shows", ["the same", "something else"])
def test_frfsr_tiny_gan_is_sharper(stereo_pair, unrelated, shows):
    """What the perceptual loss is for; LPIPS itself, which needs AlexNet, is in docs/runs."""
    truth, related = stereo_pair
    photo, reference = Photo(downscale(truth)), Photo(related if shows == "the same" else unrelated)

    def detail(image: np.ndarray) -> float:
        grey = image.astype(np.float32).mean(2)
        return float(np.abs(np.diff(grey, 2, axis=0)).mean() + np.abs(np.diff(grey, 2, axis=1)).mean())

    plain, sharper = (
        detail(upscale_photo(photo, [reference], FRFSR.from_pretrained(name).eval()).photo.pixels)
        for name in ("frfsr-tiny", "frfsr-tiny-gan")
    )
    assert plain < sharper < 1.1 * detail(truth)


def test_without_a_reference_frfsr_tiny_is_as_good_as_its_base_image(stereo_pair):
    truth, _ = stereo_pair
    model = FRFSR.from_pretrained("frfsr-tiny").eval()
    lr = downscale(truth)
    with torch.inference_mode():
        base = model(to_tensor(lr)[None], None, to_tensor(upscale_bicubic(lr))[None]).image
    assert psnr_y(upscale_photo(Photo(lr), [], model).photo.pixels, truth) > psnr_y(base, truth) - 0.05


def test_bfloat16_costs_frfsr_tiny_no_quality():
    """On a larger cut: in a small one a few pixels that find another match can be worth 0.1 dB either way."""
    left, right, _ = pytest.importorskip("skimage.data").stereo_motorcycle()
    truth, reference = (np.ascontiguousarray(image) for image in (left[100:356, 200:520], right[80:376, 120:580]))
    photo = Photo(downscale(truth))
    exact, cast = (
        upscale_photo(photo, [Photo(reference)], load("frfsr-tiny", "cpu", dtype)).photo.pixels
        for dtype in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact, cast)
    assert abs(psnr_y(cast, truth) - psnr_y(exact, truth)) <= 0.02


def test_loaded_modules_are_as_built_ones(small_model, small_model_folder):
    loaded = type(small_model).from_pretrained(small_model_folder)
    for one, other in ((loaded, small_model), (loaded.encoder, small_model.encoder)):
        built, found = dict(other.named_buffers()), dict(one.named_buffers())
        assert built.keys() == found.keys()
        assert all(torch.equal(found[name], built[name]) for name in built)
    for (name, found), (_, built) in zip(loaded.named_parameters(), small_model.named_parameters(), strict=True):
        assert torch.equal(found, built), name
        assert (found.stride(), found.requires_grad) == (built.stride(), built.requires_grad), name


def test_frfsr_tiny_real_is_for_photos_as_they_are(stereo_pair):
    """Noise and JPEG artefacts of the photo, which frfsr-tiny takes for detail, are no part of its result."""
    truth, reference = stereo_pair
    spoilt = Degradation(clean_share=0, noise=(15, 15), noise_share=1, jpeg=(40, 40), jpeg_share=1, last_jpeg_share=1)
    lr = Photo(degraded_lr(truth, spoilt, np.random.default_rng(0)))
    plain, real = (
        psnr_y(upscale_photo(lr, [Photo(reference)], FRFSR.from_pretrained(name).eval()).photo.pixels, truth)
        for name in ("frfsr-tiny", "frfsr-tiny-real")
    )
    assert real > plain + 1.5
