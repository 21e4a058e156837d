"""Bicubic x4 on real benchmarks, against figures that are known from elsewhere; needs the images."""

import os
from pathlib import Path

import pytest

from frfsr.evals.benchmarks import TestSet
from frfsr.evals.evaluation import Protocol, evaluate
from frfsr.evals.upscalers import Bicubic

DATA = Path(os.environ.get("FRFSR_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "lr", "psnr", "ssim", "psnr_tolerance", "ssim_tolerance"),
    [
        pytest.param("set5", "set5", "matlab", 28.42, 0.8104, 0.02, 1e-3, id="Set5, published"),
        pytest.param("set5", "set5", "matlab", 28.43, 0.8113, 0.01, 5e-4, id="Set5, computed independently"),
        pytest.param("cufed5", "cufed5_sample", "pil", 25.53, 0.7124, 0.01, 5e-4, id="CUFED5, 12 groups"),
        pytest.param("wrsr", "wrsr", "pil", 26.44, 0.7398, 0.01, 5e-4, id="WR-SR, 40 of 80"),
        pytest.param("urban100", "urban100", "pil", 23.15, 0.6577, 0.01, 5e-4, id="Urban100, 20 of 100"),
    ],
)
def test_bicubic(name, folder, lr, psnr, ssim, psnr_tolerance, ssim_tolerance) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no benchmark images in {DATA / folder}; set FRFSR_DATA to the folder that holds them")
    result = evaluate(Bicubic(lr), TestSet(name, DATA / folder), Protocol(lr))
    assert not result.failures
    assert result.mean("psnr_y") == pytest.approx(psnr, abs=psnr_tolerance)
    assert result.mean("ssim_y") == pytest.approx(ssim, abs=ssim_tolerance)


def test_protocols_agree_on_set5() -> None:
    if not (DATA / "set5").is_dir():
        pytest.skip(f"no benchmark images in {DATA / 'set5'}; set FRFSR_DATA to the folder that holds them")
    pil, matlab = (evaluate(Bicubic(lr), TestSet("set5", DATA / "set5"), Protocol(lr)) for lr in ("pil", "matlab"))
    assert pil.mean("psnr_y") == pytest.approx(matlab.mean("psnr_y"), abs=0.01)
