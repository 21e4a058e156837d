"""TIFF files that are refused: kinds without a meaning as photos, empty, too large or damaged ones."""

import tracemalloc

import numpy as np
import pytest
import tifffile

from frfsr.errors import UserError
from frfsr.imageio import read_photo


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (np.zeros((4, 5), np.int16), {}, "16-bit signed"),
        (np.zeros((4, 5), np.int8), {}, "8-bit signed"),
        (np.zeros((4, 5, 3), np.int16), {"photometric": "rgb"}, "16-bit signed"),
        (np.zeros((4, 5), np.int32), {}, "32-bit signed"),
        (np.zeros((4, 5), np.uint32), {}, "32-bit integers"),
        (np.zeros((4, 5), np.float16), {}, "16-bit floating"),
        (np.zeros((4, 5, 3), np.float32), {"photometric": "rgb"}, "32-bit floating"),
        (np.zeros((4, 5), np.float64), {"compression": "lzw", "predictor": 3}, "64-bit floating"),
        (np.zeros((4, 5), np.complex64), {}, "complex"),
        (np.zeros((4, 5, 3), np.uint8), {"photometric": "cielab"}, "CIELab"),
        (np.zeros((32, 32), np.uint16), {"compression": "jpeg2000"}, "compression"),
        (np.zeros((2, 32, 32), np.uint8), {"volumetric": True, "tile": (2, 32, 32)}, "volume"),
    ],
)
def test_kinds_without_a_meaning_as_photos_are_named_in_one_line(tmp_path, samples, options, message):
    tifffile.imwrite(tmp_path / "t.tif", samples, **({"photometric": "minisblack"} | options))
    with pytest.raises(UserError, match=message) as caught:
        read_photo(tmp_path / "t.tif")
    assert str(caught.value).startswith(str(tmp_path / "t.tif"))
    assert "\n" not in str(caught.value)
    assert any(advice in str(caught.value) for advice in ("convert it", "save it", "save one"))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("compression", [1, 5, 7, 8])
def test_empty_images_are_called_empty(tmp_path, width, height, compression, tiff_bytes):
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 5, 279: 4}
    for orientation in ({}, {274: 6}):
        (tmp_path / "t.tif").write_bytes(tiff_bytes(tags | orientation, {}, bytes(4)))
        with pytest.raises(UserError, match="empty"):
            read_photo(tmp_path / "t.tif")


@pytest.mark.parametrize(
    "claims",
    [
        {277: 60, 258: [8] * 60},
        {277: 60, 258: [8] * 60, 284: 2},
        {277: 200, 258: [16] * 200},
        {32997: 60},
        {258: 16, 277: 9},
    ],
)
@pytest.mark.parametrize("compression", [1, 5, 8])
def test_samples_and_depth_count_before_memory_is_taken(tmp_path, claims, compression, tiff_bytes):
    side = 16_000  # 256 megapixels: within the limit by themselves
    tags = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: side, 279: 4} | claims
    arrays = {tag: value for tag, value in tags.items() if isinstance(value, list)}
    (tmp_path / "t.tif").write_bytes(tiff_bytes({t: v for t, v in tags.items() if t not in arrays}, arrays, bytes(4)))
    with pytest.raises(UserError, match=r"bomb|volume"):
        read_photo(tmp_path / "t.tif")


def test_a_small_file_cannot_take_much_memory(tmp_path, tiff_bytes):
    """What the header promises is believed only as far as there are pixels."""
    for compression in (1, 8):
        tags = {256: 16_000, 257: 16_000, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 16_000, 279: 4}
        (tmp_path / "t.tif").write_bytes(tiff_bytes(tags, {}, b"abcd"))
        tracemalloc.start()
        with pytest.raises(UserError, match="damaged"):
            read_photo(tmp_path / "t.tif")
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


@pytest.mark.parametrize("photometric", [0, 1])
def test_three_samples_that_are_called_grey_are_refused_where_nothing_says_what_they_are(photometric, tiff_bytes):
    tags = {256: 5, 257: 4, 258: 8, 259: 1, 262: photometric, 273: 0, 277: 3, 278: 4, 279: 60}
    with pytest.raises(UserError, match="nothing says what its 3 samples"):
        read_photo(tiff_bytes(tags, {}, bytes(60)))


def test_pixels_cannot_lie_in_the_header(tiff_bytes):
    tags = {256: 5, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 4, 279: 20}
    assert read_photo(tiff_bytes(tags | {273: 0}, {}, bytes(20))).pixels.shape == (4, 5, 1)
    with pytest.raises(UserError, match="where its header is"):
        read_photo(tiff_bytes(tags | {273: -8}, {}, bytes(20)))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
def test_cut_files_are_refused_at_every_place(tmp_path, compression, random_samples):
    color = random_samples((40, 50, 3), 16)
    tifffile.imwrite(tmp_path / "t.tif", color, photometric="rgb", compression=compression, rowsperstrip=10)
    data = (tmp_path / "t.tif").read_bytes()
    for length in np.linspace(1, len(data) - 20, 23).astype(int):
        with pytest.raises(UserError, match=r"damaged|format"):
            read_photo(data[:length])


def test_a_damaged_tiff_says_nothing_but_one_line(tmp_path, capfd, random_samples):
    """libtiff writes to the standard error stream past Python."""
    color = random_samples((40, 50, 3), 8)
    for compression in ("lzw", "packbits", "jpeg"):
        tifffile.imwrite(tmp_path / "t.tif", color, photometric="rgb", compression=compression)
        data = bytearray((tmp_path / "t.tif").read_bytes())
        data[len(data) // 2 :: 2] = bytes(len(data[len(data) // 2 :: 2]))
        with pytest.raises(UserError):
            read_photo(bytes(data))
    assert capfd.readouterr() == ("", "")
