"""PNG, PPM, AVIF, HEIC, GIF and BMP: every depth and kind, and what becomes of several pictures in a file."""

import builtins
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from frfsr.errors import ImageWarning, UserError
from frfsr.imageio import read_photo

GENERATOR = np.random.default_rng(0)
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples: np.ndarray, depth: int, color: int, *more: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """A PNG of (H, W, C) samples, without filters."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def rows(part: np.ndarray) -> bytes:
        flat = part.reshape(len(part), -1).astype(np.uint16)
        bits = (flat[..., None] >> np.arange(depth)[::-1] & 1).reshape(len(part), -1).astype(np.uint8)
        packed = np.packbits(bits, axis=1)
        return np.pad(packed, ((0, 0), (1, 0))).tobytes()

    parts = [samples[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [samples]
    body = b"".join(rows(part) for part in parts if part.size)
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "color"),
    [(depth, GREY) for depth in (1, 2, 4, 8, 16)] + [(d, c) for d in (8, 16) for c in (RGB, GREY_ALPHA, RGBA)],
)
def test_png_of_every_depth(depth, color, interlaced):
    samples = GENERATOR.integers(0, 2**depth, (13, 11, CHANNELS[color]), np.uint16)
    pixels = read_photo(png(samples, depth, color, interlaced=interlaced)).pixels
    full = 65535 if depth == 16 else 255
    np.testing.assert_array_equal(pixels, samples.astype(np.int64) * full // (2**depth - 1))
    assert pixels.dtype == (np.uint16 if depth == 16 else np.uint8)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("color", [GREY, RGB])
def test_a_transparent_colour_of_every_depth(depth, color):
    if color == RGB and depth < 8:
        pytest.skip("not a PNG")
    samples = GENERATOR.integers(0, 2**depth, (13, 11, CHANNELS[color]), np.uint16)
    chosen = samples[5, 5]
    transparent = (b"tRNS", struct.pack(f">{len(chosen)}H", *chosen.tolist()))
    pixels = read_photo(png(samples, depth, color, transparent)).pixels
    assert pixels.shape[2] == CHANNELS[color] + 1
    full = np.iinfo(pixels.dtype).max
    hidden = (samples == chosen).all(axis=-1)
    np.testing.assert_array_equal(pixels[..., -1], np.where(hidden, 0, full))
    np.testing.assert_array_equal(pixels[..., :-1], samples.astype(np.int64) * full // (2**depth - 1))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_with_transparency(depth):
    count = 2**depth
    palette = GENERATOR.integers(0, 256, (count, 3), np.uint8)
    alpha = GENERATOR.integers(0, 256, count, np.uint8)[: max(1, count // 2)]
    index = GENERATOR.integers(0, count, (13, 11, 1), np.uint16)
    data = png(index, depth, PALETTE, (b"PLTE", palette.tobytes()), (b"tRNS", alpha.tobytes()))
    table = np.column_stack([palette, np.pad(alpha, (0, count - len(alpha)), constant_values=255)])
    np.testing.assert_array_equal(read_photo(data).pixels, table[index[..., 0]])


def test_16_bits_of_grey_become_8_by_the_nearest_value():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    photo = read_photo(png(values, 16, GREY))
    expected = np.floor(values / 257 + 0.5)
    np.testing.assert_array_equal(photo.rgb8(), expected.repeat(3, axis=2))
    assert photo.rgb8().dtype == np.uint8


@pytest.mark.parametrize("kind", [2, 3, 5, 6])
@pytest.mark.parametrize("maximum", [1, 15, 100, 255, 256, 1023, 4095, 16383, 65535])
def test_ppm_of_every_largest_value(kind, maximum):
    channels = 3 if kind in (3, 6) else 1
    samples = GENERATOR.integers(0, maximum + 1, (7, 5, channels))
    header = f"P{kind}\n# by hand\n5 7\n# again\n{maximum}\n".encode()
    plain = " ".join(map(str, samples.ravel().tolist())).encode()
    binary = samples.astype(np.uint8 if maximum < 256 else ">u2").tobytes()
    pixels = read_photo(header + (plain if kind <= 3 else binary)).pixels
    full = 255 if maximum < 256 else 65535
    np.testing.assert_array_equal(pixels, np.floor(samples / maximum * full + 0.5))
    for cut in (3, len(header) - 4, len(header) + 3):
        with pytest.raises(UserError):
            read_photo((header + (plain if kind <= 3 else binary))[:cut])


def test_bitmaps_say_what_is_black():
    assert read_photo(b"P1 3 2 1 0 1\n010").pixels[..., 0].tolist() == [[0, 255, 0], [255, 0, 255]]
    assert read_photo(b"P4 3 2\n\xa0\x40").pixels[..., 0].tolist() == [[0, 255, 0], [255, 0, 255]]


@pytest.mark.parametrize(
    "bad", [b"P5 0 5 255\n", b"P5 5 5 0\n", b"P5 2 1 7\n\x09\x01", b"P3 1 1 9 1 x 2", b"P2 1 1 9 -1"]
)
def test_wrong_ppm_files_are_refused(bad):
    with pytest.raises(UserError, match=r"empty|damaged"):
        read_photo(bad)


def test_sources_are_paths_bytes_and_files(tmp_path):
    data = png(np.full((2, 3, 1), 9, np.uint16), 8, GREY)
    (tmp_path / "a.png").write_bytes(data)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), data, io.BytesIO(data)):
        assert read_photo(source).pixels.shape == (2, 3, 1)
    with pytest.raises(UserError, match="row 7: the file is empty"):
        read_photo(b"", name="row 7")


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_of_several_pictures_is_read_and_said_so(form):
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 200))
    first.save(file := io.BytesIO(), form, save_all=True, append_images=[second], duration=9)
    with pytest.warns(ImageWarning, match=f"x.{form}: several pictures are in the file: the first one is used"):
        pixels = read_photo(file.getvalue(), name=f"x.{form}").pixels
    assert np.abs(pixels.astype(int) - (200, 0, 0)).max() < 9


@pytest.mark.parametrize("form", ["AVIF", "WEBP"])
def test_alpha_of_modern_formats(form):
    picture = Image.new("RGBA", (16, 16), (200, 100, 50, 77))
    picture.save(file := io.BytesIO(), form)
    assert np.abs(read_photo(file.getvalue()).pixels.astype(int) - (200, 100, 50, 77)).max() <= 4


def test_heic_is_read_with_the_extra_and_names_it_without(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(file := io.BytesIO(), quality=90)
    pixels = read_photo(file.getvalue()).pixels
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 4

    real_import = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "pillow_heif":
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'frfsr\[heif\]'"):
        read_photo(file.getvalue())


def test_raw_photos_are_not_their_thumbnails():
    for head in (b"II*\0\x10\0\0\0CR\2\0", b"FUJIFILMCCD-RAW ", b"\0\0\0\x18ftypcrx "):
        with pytest.raises(UserError, match=r"raw photo|known format"):
            read_photo(head + bytes(100))
