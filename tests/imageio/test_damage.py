"""Damage that decoders pass over, in every format and at many places; and pictures that only look suspicious."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from frfsr.errors import ImageWarning, UserError
from frfsr.imageio import read_photo


def picture(width: int = 120, height: int = 96) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([128 + 100 * np.sin(x / 9 + y / 17), 255 * y / height, (2 * x + y) % 256], axis=-1)
    return Image.fromarray(
        (smooth + np.random.default_rng(0).normal(0, 10, smooth.shape)).clip(0, 255).astype(np.uint8)
    )


def encoded(image: Image.Image, **options) -> bytes:
    image.save(file := io.BytesIO(), **options)
    return file.getvalue()


def zeroed(data: bytes, start: float, length: int | None = None) -> bytes:
    begin = int(len(data) * start)
    end = len(data) if length is None else min(len(data), begin + length)
    return data[:begin] + bytes(end - begin) + data[end:]


FORMS = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG", "quality": 90},
    "progressive": {"format": "JPEG", "quality": 90, "progressive": True},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "gif": {"format": "GIF"},
    "lzw tiff": {"format": "TIFF", "compression": "tiff_lzw"},
    "deflate tiff": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "jpeg tiff": {"format": "TIFF", "compression": "jpeg"},
}


@pytest.mark.parametrize("start", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("form", FORMS)
def test_zeros_to_the_end_are_damage(form, start):
    data = encoded(picture(), **FORMS[form])
    with pytest.raises(UserError, match=r"x: .*"):
        read_photo(zeroed(data, start), name="x")


@pytest.mark.parametrize("start", [0.4, 0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_zeros_inside_a_jpeg_are_damage(start, mode, progressive):
    data = encoded(picture(240, 200).convert(mode), format="JPEG", quality=90, progressive=progressive)
    with pytest.raises(UserError, match="damaged"):
        read_photo(zeroed(data, start, 64), strict=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.98])
def test_truncation_is_damage(form, part):
    data = encoded(picture(), **FORMS[form])
    with pytest.raises(UserError, match="x: "):
        read_photo(data[: int(part * len(data))], name="x")


@pytest.mark.parametrize("form", [{"format": "BMP"}, {"format": "PPM"}, {"format": "AVIF"}, {"format": "WEBP"}])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncation_of_other_formats(form, part):
    data = encoded(picture(), **form)
    with pytest.raises(UserError, match="x: "):
        read_photo(data[: int(part * len(data))], name="x")


def test_every_flipped_bit_of_a_png_is_found():
    data = encoded(picture(9, 7), format="PNG", dpi=(72, 72))
    whole = read_photo(data).pixels
    for place in range(8, len(data)):
        flipped = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        with pytest.raises(UserError):
            read_photo(flipped)
    np.testing.assert_array_equal(whole, np.asarray(picture(9, 7)))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(("depth", "color", "samples"), [(8, 0, 1), (8, 6, 4), (16, 0, 1), (16, 2, 3), (1, 0, 1)])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_whose_rows_are_missing_though_all_checksums_are_right(depth, color, samples, interlaced):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, depth, color, 0, 0, interlaced))
    row = 1 + (40 * samples * depth + 7) // 8
    for filling in (b"\0", b"\1"):  # of filter 1, and black, grey or half transparent
        body = zlib.compress(filling * row * 15)
        with pytest.raises(UserError, match=r"missing|truncated|not enough"):
            read_photo(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_that_ends_in_black_is_whole(mode):
    image = Image.new(mode, (40, 30))
    assert not read_photo(encoded(image, format="PNG"), strict=True).pixels[..., :1].any()


def test_a_small_png_cannot_claim_more_pixels_than_it_can_hold():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0))
    tracemalloc.start()
    with pytest.raises(UserError, match="missing"):
        read_photo(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"a")) + chunk(b"IEND", b""))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_doubtful_jpegs_are_read_with_a_warning_that_names_the_file_or_refused_where_asked():
    data = encoded(picture(), format="JPEG", quality=90)
    doubtful = data[:-2] + b"\x55" * 9 + data[-2:]  # some cameras do so
    with pytest.warns(ImageWarning, match=r"a\.jpg: it may be damaged"):
        np.testing.assert_array_equal(read_photo(doubtful, name="a.jpg").pixels, read_photo(data).pixels)
    with pytest.raises(UserError, match=r"a\.jpg: damaged"):
        read_photo(doubtful, name="a.jpg", strict=True)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (900, 300)])
def test_flat_pictures_are_not_damaged(recwarn, value, size):
    for mode in ("L", "RGB", "RGBA"):
        image = Image.new("RGB", size, (value, value, value)).convert(mode)
        forms = [{"format": "PNG"}, {"format": "WEBP", "lossless": True}, {"format": "GIF"}]
        forms += [
            {"format": "WEBP", "lossless": True, "method": 0, "quality": 0},
            {"format": "WEBP"},
            {"format": "AVIF"},
        ]
        if mode != "RGBA":
            forms += [{"format": "JPEG", "optimize": o, "progressive": p} for o in (False, True) for p in (False, True)]
        for form in forms:
            assert np.abs(read_photo(encoded(image, **form)).rgb8().astype(int) - value).max() <= 3, form
    assert not recwarn.list


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_picture_with_flat_surroundings_is_not_damaged(recwarn, optimize, progressive):
    image = Image.new("RGB", (640, 480))
    image.paste(picture(), (10, 10))
    for form in ({"format": "JPEG"}, {"format": "WEBP", "lossless": True}, {"format": "WEBP", "quality": 5}):
        options = {"optimize": optimize, "progressive": progressive} if form["format"] == "JPEG" else {}
        read_photo(encoded(image, **form, **options), strict=True)
    assert not recwarn.list


def test_two_colours_that_alternate_are_not_damaged():
    y, x = np.mgrid[:90, :100]
    for pattern in ((x + y) % 2, x % 2, x // 8 % 2, np.random.default_rng(0).integers(0, 2, x.shape)):
        pixels = (pattern * 255).astype(np.uint8)
        for form in ({"format": "WEBP", "lossless": True}, {"format": "GIF"}, {"format": "PNG"}):
            np.testing.assert_array_equal(read_photo(encoded(Image.fromarray(pixels), **form)).rgb8()[..., 0], pixels)


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_zeros_in_media_files_are_doubtful_but_not_those_of_exif(recwarn, form):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = bytes(400)  # a camera's own notes
    data = encoded(picture(), format=form, exif=exif.tobytes())
    read_photo(data)
    assert not recwarn
    begin = len(data) * 2 // 3 if form == "AVIF" else len(data) // 3  # where pixels are
    holed = data[:begin] + bytes(64) + data[begin + 64 :]
    with pytest.warns(ImageWarning, match="x.heic: it may be damaged"):
        read_photo(holed, name="x.heic")
    with pytest.raises(UserError, match="zeros in the middle"):
        read_photo(holed, strict=True)
