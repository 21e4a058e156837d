"""Fixtures that several test files use."""

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

# Of the largest golden value; the published results were computed in float64 and rounded to float32.
GOLDEN_TOLERANCE = {torch.float64: 2e-6, torch.float32: 5e-5}


SMALLER = dict(  # than the tiny network
    encoder_channels=(4, 4, 8),
    texture_channels=(8, 8, 8),
    channels=(8, 8, 8),
    sife_features=8,
    sife_growth=4,
    sife_blocks=1,
    blocks=(1, 1, 1),
)


@pytest.fixture(scope="session")
def small_model() -> torch.nn.Module:
    """The tiny network made smaller still, with random weights whose output depends on LR and reference alike."""
    from frfsr import FRFSR, FRFSRConfig

    model = FRFSR(FRFSRConfig.tiny(**SMALLER)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.07, generator=generator)
    return model


@pytest.fixture(scope="session")
def small_model_folder(small_model, tmp_path_factory) -> Path:
    """`small_model` as save_pretrained leaves it."""
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def importable() -> Iterator[None]:
    """Spawned processes find the test files by the names that pytest gives them, whatever started pytest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1])
        yield


@pytest.fixture(scope="session")
def short_training() -> list[str]:
    """Settings with which a recipe runs for a few steps, in this process."""
    return ["batch=2", "held_back=2", "warmup=0", "workers=0", "log_every=1", "mixed_precision=no"]


@pytest.fixture(scope="session")
def small_training(short_training) -> list[str]:
    """... and a tiny recipe with a network of `small_model`'s size."""
    return [*(f"model.{name}={json.dumps(value)}" for name, value in SMALLER.items()), *short_training]


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden(golden_folder) -> Callable[[str], dict[str, torch.Tensor]]:
    """golden(case): the tensors of one case of the published implementation."""
    return lambda case: load_file(golden_folder / f"{case}.safetensors")


@pytest.fixture(scope="session")
def golden_rule(golden_folder) -> ModuleType:
    """The module that makes the cases' weights from their names."""
    spec = importlib.util.spec_from_file_location("golden_weights", golden_folder / "golden_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(record_property) -> Callable[..., None]:
    """compare(what, actual, expected): the largest error relative to the largest expected value is within tolerance."""

    def compare(what: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> None:
        tolerance = tolerance or GOLDEN_TOLERANCE[actual.dtype]
        error = float((actual.detach().double() - expected.double()).abs().max() / expected.double().abs().max())
        record_property("golden", (what, str(actual.dtype).removeprefix("torch."), error, tolerance))
        assert actual.shape == expected.shape
        assert error <= tolerance

    return compare


@pytest.fixture(scope="session")
def weights(golden_folder, golden_rule) -> Callable[..., dict[str, torch.Tensor]]:
    """weights(module, blocks, dynamic): golden weights under the published keys. The table has only first blocks."""
    shapes = json.loads((golden_folder / "model_shapes.json").read_text())

    def weights(module: str, blocks: int = 1, dynamic: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
        unfolded = {}
        for key, shape in shapes[module].items():
            first = re.search(r"(ddf_block_(\d)|_body_\w+?|^body)\.0\.", key)
            if first is None:
                unfolded[key] = shape
                continue
            for n in range(dynamic[int(first[2]) - 1] if first[2] else blocks):
                unfolded[f"{key[: first.start()]}{first[1]}.{n}.{key[first.end() :]}"] = shape
        return golden_rule.golden_state_dict(unfolded, seed=0)

    return weights


def pytest_terminal_summary(terminalreporter) -> None:
    """A table of the errors against the published numbers, when such tests ran."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, ())]
    rows = [value for report in reports for name, value in report.user_properties if name == "golden"]
    if rows:
        terminalreporter.section("largest error against the published implementation, relative to the largest value")
        width = max(len(what) for what, *_ in rows) + 2
        for what, dtype, error, tolerance in rows:
            terminalreporter.line(f"{what:<{width}}{dtype:<9}{error:9.1e}  of {tolerance:.0e}")


@pytest.fixture(scope="session")
def training_pairs(tmp_path_factory) -> Path:
    """Six pairs of smooth photos, 64x64, in the CUFED layout."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for part in ("input", "ref"):
        (folder / part).mkdir()
        for i in range(6):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / part / f"{i:05d}.png")
    return folder


@pytest.fixture(scope="session")
def vgg16(tmp_path_factory) -> Path:
    """VGG16 with random weights under torchvision's names."""
    from frfsr.recipes.losses import vgg_features

    file = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file({f"features.{name}": value for name, value in vgg_features("vgg16").state_dict().items()}, file)
    return file
