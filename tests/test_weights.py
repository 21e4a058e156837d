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

FOLDER = Path(frfsr.model.PACKAGED_WEIGHTS) / "frfsr-tiny"


def test_frfsr_tiny_is_small():
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    model = FRFSR.from_pretrained("frfsr-tiny")
    assert sum(parameter.numel() for parameter in model.parameters()) <= 2_500_000
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_frfsr_tiny_uses_its_reference():
    """On a cut of a real stereo pair, from which nothing was trained."""
    data = pytest.importorskip("skimage.data")
    left, right, _ = data.stereo_motorcycle()
    truth, reference = left[200:328, 300:460], right[180:348, 220:440]
    model = FRFSR.from_pretrained("frfsr-tiny").eval()
    lr = downscale(truth)
    bicubic, unrelated, ours = (
        psnr_y(image, truth)
        for image in (
            upscale_bicubic(lr),
            upscale_photo(Photo(lr), [Photo(np.ascontiguousarray(data.coffee()[:168, :220]))], model).pixels,
            upscale_photo(Photo(lr), [Photo(np.ascontiguousarray(reference))], model).pixels,
        )
    )
    assert ours > unrelated + 0.1
    assert ours > bicubic + 1.0
