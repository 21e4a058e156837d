"""Small benchmarks, and an upscaler that shows what it was given, for the tests of the evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frfsr.evals.benchmarks import TestSet
from frfsr.evals.evaluation import evaluate
from frfsr.evals.upscalers import Bicubic


def picture(seed: int, height: int = 37, width: int = 42) -> np.ndarray:
    """Smooth random content, so that bicubic interpolation gets most of it right."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


@pytest.fixture
def wrsr(tmp_path: Path) -> Path:
    for n in (1, 2, 3):
        save(tmp_path / "wrsr" / "input" / f"{n:03}.png", picture(n))
        save(tmp_path / "wrsr" / "ref" / f"{n:03}_ref.png", picture(10 + n, 29, 33 + n))
    return tmp_path / "wrsr"


@pytest.fixture
def cufed5(tmp_path: Path) -> Path:
    for group in (0, 1):
        for n in range(6):
            save(tmp_path / "cufed5" / f"{group:03}_{n}.png", picture(10 * group + n))
    return tmp_path / "cufed5"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for n in (1, 2, 3):
        save(tmp_path / "plain" / f"img_{n:03}.png", picture(n))
    return tmp_path / "plain"


class Recorder:
    """An upscaler that keeps what it is given, and returns the enlarged LR."""

    name = identity = "recorder"
    uses_references = True

    def __init__(self) -> None:
        self.parameters: dict[str, int] = {}
        self.calls: list[list[np.ndarray]] = []

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        self.calls.append(list(references))
        return Bicubic()(lr, references)


def references_of(test_set: TestSet) -> list[list[np.ndarray]]:
    recorder = Recorder()
    evaluate(recorder, test_set)
    return recorder.calls


@pytest.fixture(name="picture")
def picture_fixture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture(name="save")
def save_fixture() -> Callable[[Path, np.ndarray], None]:
    return save


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(name="references_of")
def references_of_fixture() -> Callable[[TestSet], list[list[np.ndarray]]]:
    return references_of
