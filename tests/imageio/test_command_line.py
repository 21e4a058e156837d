"""`frfsr upscale` on files as people have them: the right picture, or one line and exit code 2."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from frfsr.cli import main


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Image.Image:
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8))
    image.save("ok.png")
    return image


def lines(capfd) -> list[str]:
    out, err = capfd.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize("place", ["photo", "reference"])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "signed", "zeros", "empty", "nothing", "heic"])
def test_bad_files_are_one_line_that_names_them(photo, tmp_path, capfd, kind, place):
    name = f"bad.{kind}"
    if kind in ("png", "jpg", "tif", "webp"):
        options = {"tif": {"compression": "tiff_lzw"}, "webp": {"lossless": True}}.get(kind, {})
        photo.resize((80, 90)).save(name, **options)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    elif kind == "signed":
        tifffile.imwrite(name, np.zeros((9, 8), np.int16))
    else:
        content = {"zeros": bytes(1000), "empty": b"P5 0 5 255\n", "nothing": b""}.get(
            kind, b"\0\0\0\x18ftypheic" + bytes(99)
        )
        (tmp_path / name).write_bytes(content)
    files = [name] if place == "photo" else ["ok.png", "--reference", name]
    assert main(["upscale", *files, "-o", "out.png", "-q"]) == 2
    (line,) = lines(capfd)
    assert line.startswith(f"frfsr: {name}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "ok.png"])


def test_an_input_is_never_overwritten(photo, tmp_path, capfd):
    photo.save("ref.png")
    (tmp_path / "link.png").symlink_to("ref.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for output in ("ok.png", "ref.png", "link.png", f"../{tmp_path.name}/ok.png"):
        assert main(["upscale", "ok.png", "--reference", "ref.png", "-o", output, "-q"]) == 2
        (line,) = lines(capfd)
        assert "overwritten" in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_limit_of_sizes_is_a_switch(photo, capfd):
    assert main(["upscale", "ok.png", "-o", "out.png", "-q", "--max-pixels", "71"]) == 2
    assert "--max-pixels" in lines(capfd)[0]
    assert main(["upscale", "ok.png", "-o", "out.png", "-q", "--max-pixels", "72"]) == 0


def test_warnings_are_one_line_each(photo, capfd):
    pages = np.random.default_rng(0).integers(0, 65536, (2, 9, 8, 3), np.uint16)
    tifffile.imwrite("pages.tif", pages, photometric="rgb")
    assert main(["upscale", "pages.tif", "-o", "out.jpg", "-q"]) == 0
    first, second = lines(capfd)
    assert first == "frfsr: pages.tif: several pictures are in the file: the first one is used."
    assert second == "frfsr: out.jpg: JPEG holds 8 of the 16 bits; write .png or .tif to keep them."


def test_what_the_file_says_reaches_the_output(photo):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    photo.save("in.jpg", exif=exif, dpi=(300, 300), icc_profile=b"profile" * 20)
    assert main(["upscale", "in.jpg", "-o", "out.png", "-q"]) == 0
    with Image.open("out.png") as image:
        assert image.size == (36, 32)
        assert image.info["icc_profile"] == b"profile" * 20
        assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
