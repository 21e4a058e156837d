"""TIFF of every kind that people have: depths, photometric kinds, extra samples, planes, tiles, compressions."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from frfsr.errors import UserError
from frfsr.imageio import read_photo
from frfsr.imageio.photo import to_8_bit, turn_upright

GENERATOR = np.random.default_rng(0)
UNASSOCIATED, ASSOCIATED, UNSPECIFIED = 2, 1, 0


def whole_range(samples: np.ndarray, bits: int) -> np.ndarray:
    full, dtype = (255, np.uint8) if bits <= 8 else (65535, np.uint16)
    return np.floor(samples / (2**bits - 1) * full + 0.5).astype(dtype)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("bits", range(1, 17))
def test_grey_of_every_depth(tmp_path, bits, photometric, random_samples):
    grey = random_samples((5, 13), bits)
    stored = 2**bits - 1 - grey if photometric == "miniswhite" else grey
    tifffile.imwrite(tmp_path / "t.tif", pack(stored, bits), photometric=photometric, **packed(bits))
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels[..., 0], whole_range(grey, bits))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("bits", [2, 4, 8, 10, 12, 14, 16])
def test_colour_of_every_depth(tmp_path, bits, planarconfig, byteorder, random_samples, tiff_bytes):
    color = random_samples((6, 7, 3), bits)
    stored = np.moveaxis(color, -1, 0) if planarconfig == "separate" else color
    write_raw(tmp_path / "t.tif", stored, bits, byteorder, planarconfig, tiff_bytes)
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, whole_range(color, bits))


def pack(samples: np.ndarray, bits: int) -> np.ndarray:
    return samples.astype(np.uint16) if bits > 8 else samples


def packed(bits: int) -> dict:
    return {"bitspersample": bits} if bits not in (8, 16) else {}


def write_raw(path, samples: np.ndarray, bits: int, byteorder: str, planarconfig: str, tiff_bytes) -> None:
    """tifffile packs pixels of chunky colour only at 8 and 16 bits: rows of bits are made here."""
    if bits in (8, 16):
        tifffile.imwrite(path, samples, photometric="rgb", planarconfig=planarconfig, byteorder=byteorder)
        return
    height, width = (samples.shape[1:]) if planarconfig == "separate" else samples.shape[:2]
    rows = samples.reshape(-1, width if planarconfig == "separate" else width * 3)
    bit_rows = (rows[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(rows), -1).astype(np.uint8)
    body = np.packbits(bit_rows, axis=1).tobytes()
    planes = 3 if planarconfig == "separate" else 1
    tags = {256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height, 284: 2 if planes == 3 else 1}
    size = len(body) // planes
    path.write_bytes(
        tiff_bytes(
            tags,
            {258: [bits] * 3, 273: [size * plane for plane in range(planes)], 279: [size] * planes},
            body,
            byteorder,
        )
    )


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_premultiplied_colours_are_divided(tmp_path, bits, channels, planarconfig, random_samples):
    top = 2**bits - 1
    straight = random_samples((9, 8, channels), bits)
    straight[0, 0, -1], straight[0, 1, -1] = 0, top
    alpha = straight[..., -1:].astype(float)
    stored = straight.copy()
    stored[..., :-1] = np.rint(straight[..., :-1] * alpha / top)
    layout = np.moveaxis(stored, -1, 0) if planarconfig == "separate" else stored
    kind = "rgb" if channels == 4 else "minisblack"
    tifffile.imwrite(
        tmp_path / "t.tif", layout, photometric=kind, planarconfig=planarconfig, extrasamples=["assocalpha"]
    )
    pixels = read_photo(tmp_path / "t.tif").pixels
    np.testing.assert_array_equal(pixels[..., -1], straight[..., -1])
    visible = stored[..., -1] > 0
    exact = np.minimum(np.floor(stored[..., :-1] * float(top) / np.maximum(alpha, 1) + 0.5), top)
    np.testing.assert_array_equal(pixels[..., :-1][visible], exact[visible])


def test_the_premultiplied_example(tmp_path):
    stored = np.full((4, 4, 4), (50, 25, 10, 64), np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    assert read_photo(tmp_path / "t.tif").pixels[0, 0].tolist() == [199, 100, 40, 64]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("extras", "alpha_at"),
    [
        ([UNASSOCIATED], 3),
        ([UNSPECIFIED], None),
        ([UNSPECIFIED, UNASSOCIATED], 4),
        ([UNASSOCIATED, UNSPECIFIED], 3),
        ([UNSPECIFIED, UNSPECIFIED, UNASSOCIATED], 5),
        ([UNSPECIFIED, UNSPECIFIED], None),
    ],
)
def test_alpha_is_what_is_called_so_wherever_it_stands(tmp_path, extras, alpha_at, bits, random_samples):
    samples = random_samples((6, 7, 3 + len(extras)), bits)
    tifffile.imwrite(tmp_path / "t.tif", samples, photometric="rgb", planarconfig="contig", extrasamples=extras)
    expected = samples[..., :3] if alpha_at is None else samples[..., [0, 1, 2, alpha_at]]
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, expected)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma", None])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressions_strips_and_tiles(tmp_path, compression, predictor, tile, dtype):
    if predictor and compression in (None, "packbits"):
        pytest.skip("no predictor with this compression")
    smooth = np.add.outer(np.arange(37) * 5, np.arange(50) * 3)[..., None] + np.arange(3)
    color = (smooth * (1 if dtype == np.uint8 else 150)).astype(dtype)
    rows = {"tile": tile} if tile else {"rowsperstrip": 8}
    options = {"photometric": "rgb", "compression": compression, "predictor": predictor}
    tifffile.imwrite(tmp_path / "t.tif", color, **rows, **options)
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, color)
    tifffile.imwrite(
        tmp_path / "big.tif", color[..., 0], bigtiff=True, **rows, **(options | {"photometric": "minisblack"})
    )
    np.testing.assert_array_equal(read_photo(tmp_path / "big.tif").pixels[..., 0], color[..., 0])


@pytest.mark.parametrize("compression", ["jpeg", "group3", "group4", "tiff_lzw", "packbits", "raw"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_what_pillow_writes(tmp_path, mode, compression):
    picture = Image.effect_mandelbrot((45, 37), (-2, -1.2, 1, 1.2), 60).convert("RGB").convert(mode)
    try:
        picture.save(tmp_path / "t.tif", compression=compression)
    except (OSError, RuntimeError):
        pytest.skip("a combination that libtiff does not write")
    if mode == "YCbCr" and compression != "jpeg":
        with pytest.raises(UserError, match="YCbCr without JPEG"):
            read_photo(tmp_path / "t.tif")
        return
    pixels = read_photo(tmp_path / "t.tif").pixels
    with Image.open(tmp_path / "t.tif") as again:
        kind = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}.get(mode, mode)
        expected = np.atleast_3d(np.asarray(again.convert(kind)))
    np.testing.assert_array_equal(pixels, expected)


def test_a_palette_with_alpha(tmp_path, tiff_bytes):
    index = GENERATOR.integers(0, 256, (5, 6), np.uint8)
    alpha = GENERATOR.integers(0, 256, (5, 6), np.uint8)
    palette = GENERATOR.integers(0, 256, (3, 256), np.uint16)
    body = np.stack([index, alpha], axis=-1).tobytes()
    tags = {256: 6, 257: 5, 259: 1, 262: 3, 273: 0, 277: 2, 278: 5, 279: len(body), 338: UNASSOCIATED}
    arrays = {258: [8, 8], 320: (palette * 257).reshape(-1).tolist()}
    (tmp_path / "t.tif").write_bytes(tiff_bytes(tags, arrays, body))
    expected = np.concatenate([palette.T[index], alpha[..., None]], axis=-1)
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, expected)


def test_cmyk_of_16_bits_is_the_colour_of_its_8_bits(tmp_path, random_samples):
    ink = random_samples((6, 7, 4), 16)
    tifffile.imwrite(tmp_path / "16.tif", ink, photometric="separated")
    Image.frombytes("CMYK", (7, 6), to_8_bit(ink).tobytes()).save(tmp_path / "8.tif")
    np.testing.assert_array_equal(read_photo(tmp_path / "16.tif").pixels, read_photo(tmp_path / "8.tif").pixels)


def test_the_first_picture_of_several_with_a_word(tmp_path, random_samples):
    pages = random_samples((3, 5, 6, 3), 8)
    tifffile.imwrite(tmp_path / "t.tif", pages, photometric="rgb")
    with pytest.warns(UserWarning, match=r"t\.tif: several pictures"):
        np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, pages[0])


def test_a_thumbnail_is_not_the_picture(tmp_path, recwarn, random_samples):
    color = random_samples((40, 50, 3), 8)
    with tifffile.TiffWriter(tmp_path / "t.tif") as tiff:
        tiff.write(color[::8, ::8], photometric="rgb", subfiletype=1)
        tiff.write(color, photometric="rgb")
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, color)
    assert not recwarn.list


@pytest.mark.parametrize("compression", ["jpeg", "group4", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_compression_is_turned_upright(tmp_path, compression, orientation):
    blocks = np.array([[0, 255, 255], [0, 0, 255]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    picture = Image.fromarray(blocks).convert("1" if compression == "group4" else "L")
    picture.save(tmp_path / "t.tif", compression=compression, tiffinfo={274: orientation})
    read = read_photo(tmp_path / "t.tif")
    np.testing.assert_allclose(read.pixels, turn_upright(blocks[..., None], orientation), atol=5)
    assert read.metadata.exif is None
