"""`frfsr upscale` of many photos: what is paired with what, what is skipped, what one broken photo leaves."""

import errno
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from frfsr.cli import main
from frfsr.commands.jobs import Job, plan
from frfsr.errors import UserError
from frfsr.imageio import Photo, write_photo


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with photos/ (a.png, a_1.png, b.jpg, a hidden file) and sharp/ (their references)."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for place in ("photos/a.png", "photos/a_1.png", "photos/b.jpg", "sharp/a.jpg", "sharp/a_1-x.png", "sharp/b/1.png"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        write_photo(Photo(generator.integers(0, 256, (5, 7, 3), np.uint8)), place)
    Path("photos/._a.png").write_bytes(b"of macOS")
    return tmp_path


@pytest.fixture
def upscale(folder, small_model_folder):
    """upscale(arguments): the exit code of `frfsr upscale` with the small model."""
    return lambda *arguments: main(["upscale", *arguments, "--model", str(small_model_folder), "--device", "cpu"])


def test_folders_are_paired_by_name(folder):
    jobs, is_batch = plan(["photos"], ["sharp"], "out")
    assert is_batch
    assert jobs == [
        Job("photos/a.png", ("sharp/a.jpg",), "out/a.png"),
        Job("photos/a_1.png", ("sharp/a_1-x.png",), "out/a_1.png"),
        Job("photos/b.jpg", ("sharp/b/1.png",), "out/b.jpg"),
    ]


def test_files_and_globs_go_with_every_photo(folder):
    jobs, _ = plan(["photos/a*.png"], ["sharp/*.jpg", "sharp/b/1.png"], "out/")
    assert [job.photo for job in jobs] == ["photos/a.png", "photos/a_1.png"]
    assert {job.references for job in jobs} == {("sharp/a.jpg", "sharp/b/1.png")}


def test_one_photo_takes_the_whole_folder(folder):
    (job,), is_batch = plan(["photos/a.png"], ["sharp"], "out.png")
    assert not is_batch
    assert job == Job("photos/a.png", ("sharp/a.jpg", "sharp/a_1-x.png"), "out.png")


def test_a_file_of_pairs(folder):
    (folder / "pairs.txt").write_text('a.png b/1.png\nb.jpg a.jpg "a_1-x.png"\n')
    jobs, is_batch = plan(["photos"], ["sharp"], "out", "pairs.txt")
    assert is_batch
    assert jobs[1] == Job("photos/b.jpg", ("sharp/a.jpg", "sharp/a_1-x.png"), "out/b.jpg")


@pytest.mark.parametrize(
    ("photos", "references", "output", "message"),
    [
        (["photos"], ["sharp/b"], "out", "no reference in sharp/b is named like photos/a.png"),
        (["photos"], [], "out.png", "need a folder"),
        (["photos", "photos/*.gif"], [], "out", "no image is named like"),
        (["sharp/b/1.png", "photos"], [], "sharp/b", "is the input"),
        (["photos/a.png"], ["sharp/a.jpg"], "photos/../sharp/a.jpg", "is the input"),
        (["photos/a.png", "copy/a.png"], [], "out", "both be written"),
        (["empty"], [], "out", "without images"),
    ],
)
def test_plans_that_cannot_be(folder, photos, references, output, message):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        plan(photos, references, output)


@pytest.mark.parametrize("text", ["", 'a.png "b.png\n', "a.png b.png\na.png c.png\n"])
def test_files_of_pairs_that_cannot_be(folder, text):
    (folder / "pairs.txt").write_text(text)
    with pytest.raises(UserError, match=r"pairs\.txt"):
        plan(["photos"], ["sharp"], "out", "pairs.txt")


def test_a_broken_photo_fails_alone_and_results_are_kept(folder, upscale, capsys):
    (folder / "photos/a_1.png").write_bytes((folder / "photos/a_1.png").read_bytes()[:60])
    assert upscale("photos", "--reference", "sharp", "-o", "out") == 1
    error = capsys.readouterr().err
    assert "photos/a_1.png" in error
    assert "2 written, 0 skipped, 1 failed" in error
    assert Image.open("out/b.jpg").size == (28, 20)

    times = {file: file.stat().st_mtime_ns for file in Path("out").iterdir()}
    write_photo(Photo(np.zeros((3, 3, 3), np.uint8)), "photos/a_1.png")
    assert upscale("photos", "--reference", "sharp", "-o", "out") == 0
    assert "1 written, 2 skipped, 0 failed" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert upscale("photos", "--reference", "sharp", "-o", "out", "--force", "-q") == 0
    assert all(file.stat().st_mtime_ns > time for file, time in times.items())


@pytest.mark.parametrize("what", ["of another photo", "cut off"])
def test_what_is_no_result_is_neither_skipped_nor_replaced(folder, upscale, capsys, what):
    (folder / "out").mkdir()
    write_photo(Photo(np.zeros((20, 28 if what == "cut off" else 4, 3), np.uint8)), "out/a.png")
    content = (folder / "out/a.png").read_bytes()[: 60 if what == "cut off" else None]
    (folder / "out/a.png").write_bytes(content)
    assert upscale("photos/a.png", "-o", "out") == 1
    assert "give --force" in capsys.readouterr().err
    assert (folder / "out/a.png").read_bytes() == content


def test_interrupted(folder, upscale, monkeypatch, capsys):
    from frfsr.imageio import write_photo as really_write

    def write(photo, path):
        if "a_1" in str(path):
            raise KeyboardInterrupt
        really_write(photo, path)

    monkeypatch.setattr("frfsr.imageio.write_photo", write)
    assert upscale("photos", "-o", "out") == 130
    assert [file.name for file in Path("out").iterdir()] == ["a.png"]
    assert "1 written, 0 skipped, 0 failed, 2 not begun: the same command goes on" in capsys.readouterr().err


def test_streams(folder, upscale, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((folder / "photos/a.png").read_bytes())))
    assert upscale("-", "--reference", "sharp/a.jpg", "-o", "-", "-q") == 0
    streamed = capsysbinary.readouterr().out
    assert upscale("photos/a.png", "--reference", "sharp/a.jpg", "-o", "out.png", "-q") == 0
    assert streamed == (folder / "out.png").read_bytes()


def test_what_was_done_is_said(folder, upscale, capsys):
    assert upscale("photos/a.png", "--reference", "sharp/a.jpg", "-o", "out.png") == 0
    error = capsys.readouterr().err
    assert "frfsr: out.png: 28x20 in " in error
    assert "with a.jpg" in error
    assert upscale("photos/a.png", "--reference", "sharp/a.jpg", "-o", "out.png", "-q") == 0
    assert capsys.readouterr().err == ""


def test_who_swallowed_the_photo(folder, upscale, capsys):
    assert upscale("--reference", "sharp/a.jpg", "photos/a.png", "-o", "out.png") == 2
    assert "--reference took sharp/a.jpg and photos/a.png; give it first" in capsys.readouterr().err
    assert upscale("-o", "out.png", "photos/a.png", "--reference", "sharp/a.jpg", "-q") == 0


def test_a_folder_that_cannot_be_written_is_named_before_the_first_photo(folder, monkeypatch, capsys):
    """The missing right is played: tests may run as root, who may write anywhere."""

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("frfsr.files.TemporaryDirectory", refused)
    monkeypatch.setattr("frfsr.commands.upscale.load_tools", None)
    assert main(["upscale", "photos", "-o", "out/"]) == 2
    assert capsys.readouterr().err == "frfsr: cannot write to out: Permission denied.\n"
