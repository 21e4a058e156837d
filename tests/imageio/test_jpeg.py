"""JPEG: the same pixels as Pillow's decoder gives, and pictures whose codes only look like zeroed data."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from frfsr.errors import ImageWarning
from frfsr.imageio import read_photo, write_photo


def photo_like(mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[:75, :93]
    smooth = np.stack([128 + 100 * np.sin(x / 9 + y / 17), 255 * y / 75, 2 * x + y], axis=-1)
    noise = np.random.default_rng(0).normal(0, 10, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, **options) -> bytes:
    image.save(file := io.BytesIO(), format="JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [20, 95])
@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {"subsampling": s}) for s in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")]
    + [("RGB", {"keep_rgb": True}), ("L", {}), ("CMYK", {})],
)
def test_pixels_are_pillows(mode, options, quality, progressive):
    data = encoded(photo_like(mode), quality=quality, progressive=progressive, **options)
    expected = np.atleast_3d(np.asarray(Image.open(io.BytesIO(data)).convert("L" if mode == "L" else "RGB")))
    np.testing.assert_array_equal(read_photo(data, strict=True).pixels, expected)


def test_zeros_among_the_pixels_are_a_warning_that_names_the_file():
    data = bytearray(encoded(photo_like(), quality=95, subsampling="4:4:4"))
    half = len(data) // 2
    data[half : half + 64] = bytes(64)
    data = bytes(data).replace(b"\xff\xd9", b"") + b"\xff\xd9"
    with pytest.warns(ImageWarning, match=r"a\.jpg: it may be damaged: look at it; a run of zeros"):
        read_photo(data, name="a.jpg")


def drawings() -> dict[str, Image.Image]:
    y, x = np.mgrid[:120, :160]
    arrays = {
        "slope": np.stack([x * 255 / 159, y * 255 / 119, (x + y) * 255 / 278], axis=-1),
        "falling slope": np.stack([255 - x] * 3, axis=-1),
        "stripes": np.stack([x % 2 * 255] * 3, axis=-1),
        "chequers": np.stack([(x // 4 + y // 4) % 2 * 255] * 3, axis=-1),
        "noise": np.random.default_rng(0).normal(128, 60, (120, 160, 3)).clip(0, 255),
        "points": np.where((x % 8 == 0) & (y % 8 == 0), 0, 255)[..., None].repeat(3, axis=-1),
    }
    pictures = {name: Image.fromarray(array.astype(np.uint8)) for name, array in arrays.items()}
    text = Image.new("RGB", (160, 120), "white")
    for row in range(0, 120, 12):
        ImageDraw.Draw(text).text((2, row), "The quick brown fox 0123456789", fill="black")
    return pictures | {"text": text}


@pytest.mark.parametrize("name", drawings())
def test_undamaged_pictures_are_read_without_a_warning(recwarn, tmp_path, name):
    image = drawings()[name]
    for quality in (10, 50, 90, 95):
        for options in ({}, {"optimize": True}, {"progressive": True, "subsampling": "4:4:4"}):
            read_photo(encoded(image, quality=quality, **options), strict=True)
    write_photo(read_photo(encoded(image)), tmp_path / "a.jpg")
    read_photo(tmp_path / "a.jpg", strict=True)
    assert not recwarn.list
