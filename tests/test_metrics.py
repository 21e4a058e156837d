"""Metrics against the published implementation's numbers and against what they must be by definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from frfsr.errors import UserError
from frfsr.evals import metrics

GOLDEN = load_file(Path(__file__).parent / "golden" / "14_metrics_a.safetensors")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def alexnet(tmp_path: Path) -> Path:
    """Random AlexNet convolutions under torchvision's key names."""
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    rng = np.random.default_rng(0)
    weights = {}
    for n, (out, into, side) in shapes.items():
        fan_in = into * side * side
        weights[f"features.{n}.weight"] = rng.normal(0, fan_in**-0.5, (out, into, side, side)).astype(np.float32)
        weights[f"features.{n}.bias"] = np.zeros(out, np.float32)
    file = tmp_path / "alexnet.safetensors"
    save_file(weights, file)
    return file


@pytest.mark.parametrize("case", [0, 1, 2])
def test_golden(case: int) -> None:
    a, b = (GOLDEN[f"{case}.{side}"][..., ::-1] for side in "ab")  # stored as BGR
    assert metrics.psnr_y(a, b) == pytest.approx(float(GOLDEN[f"{case}.psnr_y"]), abs=1e-4)
    assert metrics.psnr_rgb(a, b) == pytest.approx(float(GOLDEN[f"{case}.psnr"]), abs=1e-4)
    assert metrics.ssim_y(a, b) == pytest.approx(float(GOLDEN[f"{case}.ssim_y"]), abs=1e-6)
    assert metrics.ssim_rgb(a, b, border=0) == pytest.approx(float(GOLDEN[f"{case}.ssim_color_no_crop"]), abs=1e-6)
    np.testing.assert_allclose(metrics.studio_luma(a), GOLDEN[f"{case}.y_a"], rtol=0, atol=1e-4)


def test_float_tensors_are_rounded_like_saved_images() -> None:
    rgb = metrics.to_uint8(torch.from_numpy(GOLDEN["tensor2img.in"]))
    np.testing.assert_array_equal(rgb[..., ::-1], GOLDEN["tensor2img.out"])


def test_every_kind_of_picture_gives_the_same_number() -> None:
    a, b = noise(41, 37, 1), noise(41, 37, 2)
    tensor = torch.from_numpy(a).permute(2, 0, 1)[None] / 255
    for picture in (Image.fromarray(a), tensor, tensor[0]):
        assert metrics.psnr_y(picture, b) == metrics.psnr_y(a, b)


def test_equal_images() -> None:
    image = noise(40, 45)
    assert metrics.psnr_y(image, image) == math.inf
    assert metrics.ssim_y(image, image) == pytest.approx(1.0, abs=1e-12)


def test_psnr_of_a_known_error() -> None:
    image = np.full((30, 30, 3), 100, np.uint8)
    assert metrics.psnr_rgb(image, image + 2) == pytest.approx(20 * math.log10(255 / 2), abs=1e-9)
    assert metrics.psnr_y(image, image + 2) == pytest.approx(20 * math.log10(255 / (2 * 219 / 255)), abs=1e-9)


def test_the_border_does_not_count() -> None:
    a = noise(30, 33)
    b = a.copy()
    b[:4], b[-4:], b[:, :4], b[:, -4:] = 0, 0, 0, 0
    assert metrics.psnr_y(b, a) == math.inf
    assert metrics.psnr_y(b, a, border=3) < 40


def test_lpips_is_a_distance(alexnet: Path) -> None:
    a = noise(48, 45)
    slightly = (a.astype(int) + noise(48, 45, 1) // 32).clip(0, 255).astype(np.uint8)
    assert metrics.lpips_alex(a, a, alexnet=alexnet) == 0
    small, large = (metrics.lpips_alex(b, a, alexnet=alexnet) for b in (slightly, noise(48, 45, 2)))
    assert 0 < small < large


@pytest.mark.parametrize(
    ("sr", "hr", "message"),
    [
        (noise(30, 30), noise(30, 31), "differ in size"),
        (noise(8, 30), noise(8, 30), "nothing inside"),
        (noise(18, 30), noise(18, 30), "needs 11x11"),
        (noise(30, 30).astype(np.float32), noise(30, 30), "expected a uint8 array"),
        (torch.full((3, 30, 30), 100.0), noise(30, 30), "lie in"),
        (torch.full((3, 30, 30), math.nan), noise(30, 30), "NaN"),
        (torch.zeros(2, 3, 30, 30), noise(30, 30), "expected a float tensor"),
    ],
)
def test_bad_images_are_named(sr: metrics.Picture, hr: metrics.Picture, message: str) -> None:
    with pytest.raises(UserError, match=message):
        metrics.ssim_y(sr, hr)


def test_lpips_names_a_bad_weights_file(tmp_path: Path) -> None:
    broken = tmp_path / "alexnet.safetensors"
    broken.write_text("no weights")
    with pytest.raises(UserError, match="AlexNet"):
        metrics.lpips_alex(noise(48, 45), noise(48, 45), alexnet=broken)
