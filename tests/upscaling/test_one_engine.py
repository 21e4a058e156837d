"""`frfsr eval` measures what `frfsr upscale` writes."""

import numpy as np
import pytest
from PIL import Image

from frfsr.architectures import load
from frfsr.cli import main
from frfsr.degrade import downscale
from frfsr.evals.benchmarks import Sample
from frfsr.evals.evaluation import Protocol, measure
from frfsr.evals.metrics import psnr_y
from frfsr.evals.upscalers import NetworkUpscaler
from frfsr.upscaling.options import Options


@pytest.mark.parametrize(("tile", "upsampled"), [(32, "8-bit"), (192, "exact")])
@pytest.mark.parametrize("name", ["frfsr-tiny", "frfsr-tiny-gan"])
def test_eval_and_upscale_agree(tmp_path, name, tile, upsampled):
    left, right, _ = pytest.importorskip("skimage.data").stereo_motorcycle()
    truth, reference = (np.ascontiguousarray(image) for image in (left[200:280, 300:460], right[190:290, 280:440]))
    lr = downscale(truth)
    for image, file in ((lr, "lr.png"), (reference, "reference.png")):
        Image.fromarray(image).save(tmp_path / file)
    options = Options(tile=tile, upsampled=upsampled, views="off")
    score = measure(
        NetworkUpscaler(load(name, "cpu"), name, options), Sample("pair", truth, lr, [reference]), Protocol()
    )
    photos = ["upscale", str(tmp_path / "lr.png"), "--reference", str(tmp_path / "reference.png")]
    settings = f"--model {name} --tile {tile} --upsampled {upsampled} --views off --device cpu -q".split()
    assert main([*photos, "-o", str(tmp_path / "out.png"), *settings]) == 0
    assert psnr_y(Image.open(tmp_path / "out.png"), truth) == pytest.approx(score.psnr_y, abs=1e-3)
