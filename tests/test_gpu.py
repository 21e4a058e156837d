"""The network, `upscale` and a recipe on a real GPU (`make gpu`), against the CPU."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

import frfsr.recipes.train as recipe
from frfsr import FRFSR, upscale

DEVICE = "cuda"
RECIPES = Path(recipe.__file__).parent

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def on_gpu(small_model) -> FRFSR:
    model = FRFSR(small_model.config).eval()
    model.load_state_dict(small_model.state_dict())
    return model.to(DEVICE)


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, 17, 22, generator=generator), torch.rand(1, 3, 60, 80, generator=generator)


@torch.inference_mode()
def test_same_picture_as_on_the_cpu(small_model, on_gpu) -> None:
    expected, actual = small_model(*pair(0)), on_gpu(*(image.to(DEVICE) for image in pair(0)))
    same = (actual.correspondence.index.cpu() == expected.correspondence.index).float().mean()
    assert same > 0.99  # near ties may fall the other way
    assert (actual.image.cpu() - expected.image).abs().mean() < 1e-3


@torch.inference_mode()
def test_cuda_graph_takes_new_inputs(on_gpu) -> None:
    compiled = torch.compile(on_gpu, mode="reduce-overhead", fullgraph=True)
    for seed in range(4):
        images = [image.to(DEVICE) for image in pair(seed)]
        torch.testing.assert_close(compiled(*images).image.clone(), on_gpu(*images).image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_upscale_in_half_precision(small_model, small_model_folder, dtype) -> None:
    rng = np.random.default_rng(0)
    photo, reference = (Image.fromarray(rng.integers(0, 256, (side, 24, 3), np.uint8)) for side in (20, 48))
    exact = np.asarray(upscale(photo, reference, small_model), int)
    half = np.asarray(upscale(photo, reference, str(small_model_folder), DEVICE, dtype), int)
    assert np.abs(exact - half).mean() < 3


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_all_losses_train(training_pairs, small_training, small_model_folder, vgg16, tmp_path, precision) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps one device and precision a process
    start = f"init={{all: {small_model_folder}}}", "perceptual=vgg16", f"perceptual_weights={vgg16}", "crop=32"
    run = f"data={training_pairs}", f"out={tmp_path}", "steps=4", f"mixed_precision={precision}"
    assert recipe.main(["--config", str(RECIPES / "tiny_all.yaml"), *small_training, *start, *run]) == 0
    assert PartialState().device.type == DEVICE
    AcceleratorState._reset_state(reset_partial_state=True)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["l1"] for line in logged if "l1" in line]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
