"""Small pictures that tests recognise by their shade."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packs are cached in a test; not in the home of whoever runs it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """picture(shade, width, height): an image that `shades` recognises."""

    def make(shade: int, width: int = 9, height: int = 7) -> Image.Image:
        return Image.fromarray(np.full((height, width, 3), shade, np.uint8))

    return make


@pytest.fixture
def png(picture) -> Callable[..., dict]:
    """png(shade, width, height): the same as packs store it."""

    def make(shade: int, *size: int) -> dict:
        file = BytesIO()
        picture(shade, *size).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": f"{shade}.png"}

    return make


@pytest.fixture
def save(picture) -> Callable[..., Path]:
    """save(folder, a=1, ...): a folder of pictures a.png, ..."""

    def make(folder: Path, **shades: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, shade in shades.items():
            picture(shade).save(folder / f"{name}.png")
        return folder

    return make


@pytest.fixture
def shades() -> Callable:
    """shades(rows): names and shades of pairs."""

    def shade_of(image: Image.Image) -> int:
        assert image.mode == "RGB"
        return image.getpixel((0, 0))[0]

    def read(rows) -> list[tuple[str, int, list[int]]]:
        return [(row["name"], shade_of(row["input"]), [shade_of(r) for r in row["references"]]) for row in rows]

    return read
