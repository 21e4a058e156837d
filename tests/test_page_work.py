"""What stands behind the page, without a browser: limits, runs that stop, files that are forgotten."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frfsr import cli
from frfsr.errors import UserError
from frfsr.imageio import Photo, write_photo
from frfsr.page.sessions import Sessions
from frfsr.page.work import Job, Limits, Networks, download_name, enlarge, open_photo, shown

SMALL = Limits(photo_pixels=200, file_pixels=1000, file_bytes=5000, references=2)


@pytest.fixture
def photo(tmp_path) -> str:
    """A photo of 12x10 pixels, 16 bits."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (10, 12, 3), np.uint16)
    write_photo(Photo(pixels), tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture(scope="module")
def network(small_model_folder):
    return Networks([str(small_model_folder)], "cpu").get(str(small_model_folder), "cpu")


def run(network, photo, references, folder, limits=SMALL):
    return enlarge(photo, references, network, 1.0, folder=folder, limits=limits, progress=lambda done, count: None)


def test_a_run_stops_inside_the_network_when_its_person_or_the_clock_says_so(network, photo, tmp_path):
    cancelled = Job(seconds=60)
    cancelled.cancelled.set()
    with cancelled, pytest.raises(UserError, match="cancelled"):
        run(network, photo, [], tmp_path)
    with Job(seconds=-1), pytest.raises(UserError, match="longer than"):
        run(network, photo, [], tmp_path)
    told = []
    outcome = enlarge(
        photo, [], network, 1.0, folder=tmp_path, limits=SMALL, progress=lambda *numbers: told.append(numbers)
    )
    assert outcome.file.name == "photo_x4.png"  # without a job nothing stops it
    assert told == [(1, 1)]


@pytest.mark.parametrize(
    ("name", "size", "line"),
    [
        ("a.exe", (4, 4), "not an image file by its name"),
        ("big.bmp", (50, 40), "big.bmp: 0.0 MB are more than 0.0"),
        ("wide.png", (101, 10), "wide.png: 101x10 pixels"),
    ],
)
def test_files_are_refused_before_they_are_decoded(name, size, line, tmp_path):
    Image.new("RGB", size).save(tmp_path / name, "BMP" if name == "big.bmp" else "PNG")
    with pytest.raises(UserError, match=line) as caught:
        open_photo(str(tmp_path / name), SMALL)
    assert str(tmp_path) not in str(caught.value)


def test_too_many_references_and_too_large_photos_are_refused(network, photo, tmp_path):
    with pytest.raises(UserError, match="3 references are more than 2"):
        run(network, photo, [photo] * 3, tmp_path)
    with pytest.raises(UserError, match="12×10 pixels are more than"):
        run(network, photo, [], tmp_path, Limits(photo_pixels=100))
    with pytest.raises(UserError, match="at least 1"):
        Limits(jobs=0)


def test_only_the_offered_networks_are_loaded(small_model_folder):
    networks = Networks([str(small_model_folder)], "cpu")
    with pytest.raises(UserError, match="not offered"):
        networks.get("../elsewhere", "cpu")
    assert networks.devices[0] == "cpu"


def test_the_download_has_the_format_of_the_photo_where_it_can(tmp_path):
    opaque, clear = Photo(np.zeros((4, 4, 3), np.uint8)), Photo(np.zeros((4, 4, 4), np.uint8))
    assert download_name(tmp_path, "a.JPG", opaque).name == "a_x4.JPG"
    assert download_name(tmp_path, "a.heic", opaque).name == "a_x4.png"
    assert download_name(tmp_path, "really_a_png.jpg", clear).name == "really_a_png_x4.png"


def test_what_is_shown_of_a_large_reference_is_small():
    reference = shown("large", Photo(np.zeros((3000, 4000, 1), np.uint8)))
    height, width, channels = reference.pixels.shape
    assert channels == 3
    assert width / 4000 == pytest.approx(reference.scale, rel=1e-3)
    assert height * width <= 4_010_000


def test_a_closed_session_takes_its_files_but_not_those_of_others(tmp_path):
    sessions = Sessions(tmp_path)
    own, shared = (tmp_path / part / "photo.png" for part in ("own", "shared"))
    for file in (own, shared):
        file.parent.mkdir()
        file.touch()
    first, second = sessions.get("first"), sessions.get("../second")
    first.files |= {str(own), str(shared), __file__}
    second.files.add(str(shared))
    first.job = Job(60)
    picture = Path(first.store(Image.new("RGB", (2, 2)), ".png"))
    assert second.folder.parent == tmp_path
    sessions.end("first")
    assert first.job.cancelled.is_set()
    assert not own.exists()
    assert not picture.exists()
    assert shared.exists()
    sessions.end("../second")
    assert not shared.exists()
    assert Path(__file__).exists()  # not stored by the page, so not removed


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--device", "toaster"]])
def test_mistakes_are_one_line(arguments, capsys):
    assert cli.main(["page", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
