"""Files at 8 and 16 bits: what is written is what is read, upright; damaged files and bad outputs are refused."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from frfsr.errors import ImageWarning, UserError
from frfsr.imageio import (
    Metadata,
    Photo,
    check_output,
    photo_from_pil,
    photo_to_pil,
    read_photo,
    write_photo,
)

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION = 0x0112


def random_photo(channels: int, dtype: type, height: int = 5, width: int = 7) -> Photo:
    values = np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)
    return Photo(values, Metadata(icc_profile=PROFILE))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless_formats_keep_every_bit_and_the_profile(tmp_path, channels, dtype, suffix):
    photo = random_photo(channels, dtype)
    write_photo(photo, tmp_path / f"photo{suffix}")
    again = read_photo(tmp_path / f"photo{suffix}")
    assert again.pixels.dtype == dtype
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert again.metadata.icc_profile == PROFILE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_become_8_where_the_format_has_no_more(tmp_path, channels, suffix):
    grey_ramp = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64, 1)
    with pytest.warns(ImageWarning, match="8 of the 16 bits"):
        write_photo(Photo(grey_ramp.repeat(channels, axis=2)), tmp_path / f"photo{suffix}")
    again = read_photo(tmp_path / f"photo{suffix}").pixels
    assert again.dtype == np.uint8
    assert np.abs(again.astype(int) - grey_ramp / 257).max() < 8


def test_webp_keeps_alpha_and_jpeg_refuses_it(tmp_path):
    photo = random_photo(4, np.uint8)
    write_photo(photo, tmp_path / "photo.webp")
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.webp").pixels[..., 3], photo.pixels[..., 3])
    with pytest.raises(UserError, match="transparency"):
        write_photo(photo, tmp_path / "photo.jpg")
    assert not (tmp_path / "photo.jpg").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_at_both_bit_depths(tmp_path, orientation):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(grey).save(tmp_path / "8.png", exif=exif)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "16.png", exif=exif)
    for dtype in (np.uint8, np.uint16):
        tags = [(ORIENTATION, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / f"{dtype.__name__}.tif", grey.astype(dtype), extratags=tags)

    upright = {  # where the file's top-left and top-right pixels belong, from the EXIF standard's table
        1: [[0, 1, 2], [3, 4, 5]],
        2: [[2, 1, 0], [5, 4, 3]],
        3: [[5, 4, 3], [2, 1, 0]],
        4: [[3, 4, 5], [0, 1, 2]],
        5: [[0, 3], [1, 4], [2, 5]],
        6: [[3, 0], [4, 1], [5, 2]],
        7: [[5, 2], [4, 1], [3, 0]],
        8: [[2, 5], [1, 4], [0, 3]],
    }[orientation]
    for name in ("8.png", "16.png", "uint8.tif", "uint16.tif"):
        np.testing.assert_array_equal(read_photo(tmp_path / name).pixels[..., 0], upright, err_msg=name)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK"])
def test_other_kinds_of_tiff_go_through_pillow(tmp_path, mode):
    picture = Image.new("RGB", (7, 5), (0, 0, 255)).convert(mode)
    picture.save(tmp_path / "t.tif")
    np.testing.assert_array_equal(read_photo(tmp_path / "t.tif").pixels, photo_from_pil(picture).pixels)


def test_planar_lzw_16_bit_tiff(tmp_path):
    photo = random_photo(3, np.uint16)
    planes = np.moveaxis(photo.pixels, -1, 0)
    tifffile.imwrite(tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate", compression="lzw")
    np.testing.assert_array_equal(read_photo(tmp_path / "p.tif").pixels, photo.pixels)


@pytest.mark.parametrize(
    ("mode", "channels", "mode_again"),
    [
        ("1", 1, "L"),
        ("L", 1, "L"),
        ("LA", 2, "LA"),
        ("P", 3, "RGB"),
        ("PA", 4, "RGBA"),
        ("RGB", 3, "RGB"),
        ("RGBA", 4, "RGBA"),
        ("CMYK", 3, "RGB"),
        ("YCbCr", 3, "RGB"),
        ("I", 1, "I;16"),
        ("I;16", 1, "I;16"),
    ],
)
def test_every_pillow_mode(mode, channels, mode_again):
    photo = photo_from_pil(Image.new(mode, (3, 2)))
    assert photo.pixels.shape == (2, 3, channels)
    assert photo_to_pil(photo).mode == mode_again


@pytest.mark.parametrize(("mode", "channels"), [("P", 4), ("L", 2), ("RGB", 4)])
def test_a_transparent_colour_becomes_alpha(tmp_path, mode, channels):
    transparent = (0, 0, 0) if mode == "RGB" else 0
    Image.new(mode, (3, 2)).save(tmp_path / "t.png", transparency=transparent)
    photo = read_photo(tmp_path / "t.png")
    assert photo.pixels.shape[2] == channels
    assert not photo.pixels[..., -1].any()


def test_images_that_have_no_meaning_as_photos():
    with pytest.raises(UserError, match="floating-point"):
        photo_from_pil(Image.new("F", (3, 2)))
    with pytest.raises(UserError, match="32-bit"):
        photo_from_pil(Image.new("I", (3, 2), 70_000))
    with pytest.raises(UserError, match="empty"):
        photo_from_pil(Image.new("RGB", (0, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_truncated_files_are_refused(tmp_path, suffix, dtype):
    path = tmp_path / f"photo{suffix}"
    write_photo(random_photo(3, dtype, 50, 70), path)
    data = path.read_bytes()
    for length in (len(data) // 2, 30, 1, 0):
        path.write_bytes(data[:length])
        with pytest.raises(UserError) as caught:
            read_photo(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def png_header(width: int, height: int, bit_depth: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("side", [17_000, 40_000])
def test_decompression_bombs_are_refused(tmp_path, side, bit_depth):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side, bit_depth))
    with pytest.raises(UserError, match="bomb"):
        read_photo(tmp_path / "bomb.png")


def test_a_16_bit_tiff_bomb_is_refused(tmp_path):
    write_photo(random_photo(3, np.uint16, 5, 7), tmp_path / "bomb.tif")
    assert read_photo(tmp_path / "bomb.tif", max_pixels=35).pixels.shape == (5, 7, 3)
    with pytest.raises(UserError, match=r"bomb.*max-pixels"):
        read_photo(tmp_path / "bomb.tif", max_pixels=34)


@pytest.mark.parametrize("path", ["missing.png", ".", "text.png", "zero.png"])
def test_what_is_no_image_is_refused(tmp_path, path):
    (tmp_path / "text.png").write_text("not an image\n")
    (tmp_path / "zero.png").write_bytes(png_header(0, 5, 8))
    with pytest.raises(UserError):
        read_photo(tmp_path / path)


@pytest.mark.parametrize("name", ["no/such/folder.png", "folder.png", "/dev/null", "file.png/x.png", "x.gif", "x"])
def test_outputs_that_cannot_be_written_are_refused_beforehand(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").touch()
    with pytest.raises(UserError):
        check_output(tmp_path / name, 4, 4, has_alpha=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.png", "folder.png"]


def test_formats_with_a_largest_side(tmp_path):
    with pytest.raises(UserError, match="16383"):
        check_output(tmp_path / "x.webp", 4, 16_384, has_alpha=False)
    check_output(tmp_path / "x.png", 4, 16_384, has_alpha=False)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    path.write_bytes(b"old")

    def full_disk(image, file, *_, **__):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_photo(random_photo(3, np.uint8), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_keeps_pointing_to_its_file(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write_photo(random_photo(3, np.uint8), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").is_file()
