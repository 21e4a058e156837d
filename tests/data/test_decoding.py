"""Stored images -> RGB, by the one reader."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frfsr.data.decoding import decode_image, image_size, stored_bytes
from frfsr.data.pairs import load_pairs
from frfsr.errors import UserError


@pytest.mark.parametrize("in_memory", [False, True])
def test_16_bits_are_divided_by_257(in_memory: bool, tmp_path: Path) -> None:
    grey = np.array([[0, 128, 129, 257], [1000, 40_000, 65_406, 65_535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    file = {"bytes": (tmp_path / "a.png").read_bytes() if in_memory else None, "path": str(tmp_path / "a.png")}
    expected = np.round(grey / 257)
    np.testing.assert_array_equal(np.asarray(decode_image(file)), np.dstack([expected] * 3))
    np.testing.assert_array_equal(np.asarray(load_pairs(tmp_path)[0]["input"]), np.dstack([expected] * 3))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_colours_stay(mode: str) -> None:
    pixels = {"RGBA": (200, 100, 50, 7), "LA": (200, 7)}[mode]
    file = BytesIO()
    Image.new(mode, (5, 4), pixels).save(file, "PNG")
    picture = decode_image({"bytes": file.getvalue(), "path": None})
    assert picture.getpixel((0, 0)) == {"RGBA": (200, 100, 50), "LA": (200, 200, 200)}[mode]


@pytest.mark.parametrize(
    "file",
    [
        {"bytes": b"text", "path": "x.png"},
        {"bytes": b"", "path": "x.png"},
        {"bytes": None, "path": "/no/where/x.png"},
        {"bytes": None, "path": "memory://no/where/x.png"},
        {"bytes": None, "path": "nowhere://x.png"},
        {"bytes": None, "path": "http://127.0.0.1:9/x.png"},
        {"bytes": None, "path": "a\0/x.png"},
    ],
)
def test_what_cannot_be_read_is_named(file: dict) -> None:
    for read in (decode_image, image_size, stored_bytes)[: 3 if file["bytes"] is None else 2]:
        with pytest.raises(UserError, match=r"x\.png"):
            read(file)


def test_images_of_streamed_datasets_may_be_urls(tmp_path: Path, picture) -> None:
    picture(9).save(tmp_path / "a.png")
    assert decode_image({"bytes": None, "path": f"file://{tmp_path}/a.png"}).getpixel((0, 0)) == (9, 9, 9)
