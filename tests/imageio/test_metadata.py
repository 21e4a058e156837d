"""What a file says is kept: colour profile, EXIF with the orientation applied once, XMP, resolution, PNG's gamma."""

import io
import os
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from frfsr.errors import ImageWarning, UserError
from frfsr.imageio import Metadata, Photo, check_absent, check_output, photo_from_pil, read_photo, write_photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="t"/></x:xmpmeta>'
ORIENTATION, MAKE, EXPOSURE, EXIF_WIDTH, EXIF, GPS = 0x0112, 0x010F, 0x829A, 0xA002, 0x8769, 0x8825
PNG_COLOR = ((b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", struct.pack(">8I", *range(31_000, 31_008))))


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = 6, "Maker"
    exif.get_ifd(EXIF).update({EXPOSURE: 0.01, EXIF_WIDTH: 7})
    exif.get_ifd(GPS).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return exif


def photo(dtype: type, channels: int = 3) -> Photo:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (5, 7, channels), dtype)
    exif = camera_exif()
    del exif[ORIENTATION]
    metadata = Metadata(PROFILE, exif.tobytes()[6:], XMP.replace(b'"6"', b'"1"'), (300.0, 150.0), PNG_COLOR)
    return Photo(values, metadata)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.filterwarnings("ignore::frfsr.errors.ImageWarning")
def test_what_is_written_is_what_is_read(tmp_path, suffix, dtype):
    written = photo(dtype)
    write_photo(written, tmp_path / f"a{suffix}")
    again = read_photo(tmp_path / f"a{suffix}").metadata
    assert again.icc_profile == PROFILE
    assert again.xmp == written.metadata.xmp
    assert again.dpi == pytest.approx((300, 150), rel=1e-3)
    assert again.png_color == (PNG_COLOR if suffix == ".png" else ())
    exif = Image.Exif()
    exif.load(again.exif)
    assert exif[MAKE] == "Maker"
    assert ORIENTATION not in exif
    assert float(exif.get_ifd(EXIF)[EXPOSURE]) == pytest.approx(0.01)
    assert exif.get_ifd(EXIF)[EXIF_WIDTH] == 7
    assert exif.get_ifd(GPS)[1] == "N"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_programs_read_the_same(tmp_path, suffix, dtype, channels):
    written = photo(dtype, channels)
    path = tmp_path / f"a{suffix}"
    write_photo(written, path)
    pixels = imagecodecs.png_decode(path.read_bytes()) if suffix == ".png" else tifffile.imread(path)
    np.testing.assert_array_equal(np.atleast_3d(pixels), written.pixels)
    if suffix == ".tif":
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            assert page.iccprofile == PROFILE
            assert page.tags["ExifTag"].value["ExposureTime"] == pytest.approx(0.01)
            assert page.extrasamples == ((2,) if channels in (2, 4) else ())
    else:
        with Image.open(path) as image:
            assert image.info["icc_profile"] == PROFILE
            assert image.info["gamma"] == 1.0


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_orientation_of_a_camera_is_applied_once(tmp_path, suffix):
    lying = Image.fromarray(np.repeat(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6), 8, 0).repeat(8, 1))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    named = {".png": {"pnginfo": text}, ".tif": {}}.get(suffix, {"xmp": XMP})
    exif = camera_exif()
    if suffix == ".tif":
        exif[700] = XMP
    lying.save(tmp_path / f"in{suffix}", exif=exif, **named)
    upright = read_photo(tmp_path / f"in{suffix}")
    assert upright.pixels.shape[:2] == (48, 32)
    assert np.abs(upright.pixels[..., 0].astype(int) - np.rot90(np.asarray(lying), -1)).max() <= 12
    assert b'tiff:Orientation="1"' in upright.metadata.xmp
    write_photo(upright, tmp_path / f"out{suffix}")
    again = read_photo(tmp_path / f"out{suffix}")
    assert again.pixels.shape == upright.pixels.shape
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.getexif().get(ORIENTATION, 1) == 1
        assert image.getexif()[MAKE] == "Maker"


def test_exif_sizes_follow_the_pixels(tmp_path):
    larger = photo(np.uint8)._replace(pixels=np.zeros((20, 28, 3), np.uint8))
    with pytest.warns(ImageWarning, match="gamma"):
        write_photo(larger, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get_ifd(EXIF)[EXIF_WIDTH] == 28


def test_jpeg_resolution_in_centimetres_and_tiff_units(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), resolution=(100, 100), resolutionunit=3)
    assert read_photo(tmp_path / "a.tif").metadata.dpi == pytest.approx((254, 254))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4), np.uint8), resolution=(1, 1), resolutionunit=1)
    assert read_photo(tmp_path / "b.tif").metadata.dpi is None


def test_broken_metadata_is_no_reason_to_refuse_a_picture(recwarn):
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    for exif in (b"Exif\0\0II*\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\10\0\0\0\xff\xff" + bytes(40)):
        image.save(file := io.BytesIO(), "JPEG", exif=exif)
        assert read_photo(file.getvalue()).pixels.shape == (8, 8, 3)
    assert not recwarn.list


def test_large_exif_and_xmp_do_not_stop_a_jpeg(tmp_path):
    exif = camera_exif()
    exif[0x010E] = "x" * 70_000
    large = Photo(np.zeros((8, 8, 3), np.uint8), Metadata(exif=exif.tobytes()[6:], xmp=b"x" * 70_000))
    with pytest.warns(ImageWarning, match="64 KB"):
        write_photo(large, tmp_path / "a.jpg")
    assert read_photo(tmp_path / "a.jpg").metadata == Metadata()


def test_a_cmyk_profile_is_used_and_not_kept():
    image = Image.new("CMYK", (4, 4), (0, 0, 0, 0))
    image.info["icc_profile"] = b"not a profile"
    read = photo_from_pil(image)
    assert read.metadata.icc_profile is None
    assert read.pixels.min() == 255


def test_an_output_that_is_an_input_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photo(Photo(np.zeros((4, 4, 3), np.uint8)), "a.png")
    os.link("a.png", "hard.png")
    os.symlink("a.png", "soft.png")
    for name in ("a.png", "./a.png", str(tmp_path / "a.png"), "hard.png", "soft.png"):
        with pytest.raises(UserError, match="overwritten"):
            check_output(name, 4, 4, False, inputs=["other.png", "a.png"])
    check_output("b.png", 4, 4, False, inputs=["a.png"])
    check_absent("b.png", force=False)
    with pytest.raises(UserError, match="--force"):
        check_absent("soft.png", force=False)
    check_absent("a.png", force=True)


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a.png"
    for mode in (0o600, 0o664):
        path.touch()
        path.chmod(mode)
        write_photo(Photo(np.zeros((4, 4, 3), np.uint8)), path)
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_resolutions_turn_with_the_photo(tmp_path, suffix: str, orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION], exif[282], exif[283], exif[296] = orientation, 72.0, 144.0, 2
    known = {} if suffix == "webp" else {"dpi": (72, 144)}
    Image.new("RGB", (9, 5)).save(tmp_path / f"a.{suffix}", exif=exif, **known)
    read = read_photo(tmp_path / f"a.{suffix}")
    expected = (144, 72) if read.pixels.shape[:2] == (9, 5) else (72, 144)
    assert (expected == (144, 72)) == (orientation > 4)
    assert read.metadata.dpi == pytest.approx(expected, rel=1e-3)
    if suffix != "tif":
        kept = Image.Exif()
        kept.load(read.metadata.exif)
        assert (kept[282], kept[283]) == expected
