"""Images of published data protocols that the networks make themselves are the ones that Pillow makes."""

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from frfsr.degrade import downscale, upscale_bicubic
from frfsr.network import enlarge_8_bit, reduce_8_bit


def tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return rearrange(torch.from_numpy(image).float() / 255, "h w c -> 1 c h w")


@pytest.mark.parametrize(("ours", "pillows"), [(enlarge_8_bit, upscale_bicubic), (reduce_8_bit, downscale)])
def test_as_pillow(ours, pillows) -> None:
    image = np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)
    expected = tensor(pillows(image))
    error = (ours(tensor(image)) - expected).abs()
    assert error.max() < 1.01 / 255
    assert (error > 0.5 / 255).float().mean() < 5e-4
