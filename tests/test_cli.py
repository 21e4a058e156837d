"""The command `frfsr`: five awkward photos come out four times as large; every mistake is one line and exit code 2."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

import frfsr
from frfsr.cli import main
from frfsr.imageio import Photo, read_photo, write_photo
from frfsr.upscaling.options import parse_pixels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with photo.png (7x5) and reference.jpg (40x31)."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    write_photo(Photo(generator.integers(0, 256, (5, 7, 3), np.uint8)), "photo.png")
    write_photo(Photo(generator.integers(0, 256, (31, 40, 3), np.uint8)), "reference.jpg")
    return tmp_path


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "arguments",
    [*([command, "--help"] for command in ("upscale", "explain", "eval", "convert")), ["--help"], ["--version"]],
)
def test_help_does_not_import_torch(arguments):
    code = f"""
import sys, frfsr, frfsr.cli
try:
    frfsr.cli.main({arguments})
except SystemExit as end:
    assert end.code == 0
assert not {{"torch", "numpy", "PIL", "datasets"}} & set(sys.modules), sorted(sys.modules)
"""
    assert "frfsr" in run_python(code)


def test_early_mistakes_do_not_import_torch(folder):
    wrong = [
        ["missing.png"],
        *(["photo.png", *option] for option in (["--tile", "7"], ["--strength", "2"], ["--dtype", "foo"])),
        *(["photo.png", *option] for option in (["--device", "hpu"], ["--device", "meta"], ["--max-memory", "much"])),
        ["photo.png", "--views", "0"],
        ["--reference", "reference.jpg", "photo.png"],
        ["photo.png", "--reference", "reference.jpg", "--tile", "many"],
    ]
    code = f"""
import sys
import frfsr
from frfsr.cli import main
def code(arguments):
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code
codes = [code(["upscale", *arguments, "-o", "out.png"]) for arguments in {wrong}]
codes.append(code(["convert", "a.pth", "out", "--arch", "ttsrr"]))
print(set(codes), "torch" in sys.modules)
"""
    assert run_python(code) == "{2} False\n"


def test_the_module_is_the_command_and_knows_its_version():
    command = [sys.executable, "-m", "frfsr", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"frfsr {frfsr.__version__}\n"


def test_nobody_reads_the_output_to_its_end():
    """As in `frfsr --help | head -1`."""
    command = [sys.executable, "-m", "frfsr", "upscale", "--help"]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_completion_knows_the_options(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "bash"])
    assert end.value.code == 0
    assert "--max-memory" in capsys.readouterr().out


def oriented(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 4)).save(path, exif=exif)


AWKWARD = {
    "one_pixel.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "RGB", (4, 4)),
    "palette.png": (lambda path: Image.new("P", (6, 3)).save(path, transparency=0), "RGBA", (24, 12)),
    "deep.tif": (lambda path: write_photo(Photo(np.full((3, 5, 3), 40_000, np.uint16)), path), "RGB", (20, 12)),
    "upright.jpg": (oriented, "RGB", (16, 36)),
    "grey.webp": (lambda path: Image.new("L", (11, 2)).save(path), "RGB", (44, 8)),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_photos(folder, small_model_folder, name):
    make, mode, size = AWKWARD[name]
    make(folder / name)
    output = f"out{name[name.index('.') :]}"
    arguments = [
        "upscale",
        name,
        "--reference",
        "reference.jpg",
        "-o",
        output,
        "--model",
        str(small_model_folder),
        "-q",
    ]
    assert main(arguments) == 0
    with Image.open(output) as image:
        assert (image.mode, image.size) == (mode, size)
    if name == "deep.tif":
        assert read_photo(output).pixels.dtype == np.uint16


@pytest.mark.parametrize("references", [["--reference", "a", "b"], ["--reference", "a", "--reference", "b"], []])
def test_several_references_or_none(folder, small_model_folder, references):
    paths = {"a": "reference.jpg", "b": "photo.png"}
    references = [paths.get(argument, argument) for argument in references]
    model = ["--model", str(small_model_folder), "--device", "cpu", "--dtype", "float32", "--tile", "32"]
    assert main(["upscale", "photo.png", *references, "-o", "out.png", *model]) == 0
    assert Image.open("out.png").size == (28, 20)


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.png", "-o", "out.png"],
        ["text.png", "-o", "out.png"],
        ["truncated.jpg", "-o", "out.png"],
        ["truncated.tif", "-o", "out.png"],
        ["empty.png", "-o", "out.png"],
        ["bomb.png", "-o", "out.png"],
        [".", "-o", "out.png"],
        ["photo.png", "--reference", "missing.png", "-o", "out.png"],
        ["photo.png", "--reference", "text.png", "-o", "out.png"],
        ["photo.png", "-o", "out.gif"],
        ["photo.png", "-o", "no/folder/out.png"],
        ["photo.png", "-o", "photo.png/out.png"],
        ["alpha.png", "-o", "out.jpg"],
        ["photo.png", "-o", "out.png", "--model", "unknown"],
        ["photo.png", "-o", "out.png", "--model", "wrong"],
        ["photo.png", "-o", "out.png", "--device", "unknown"],
        ["photo.png", "-o", "out.png", "--device", "mps"],
        ["photo.png", "-o", "out.png", "--dtype", "int8"],
        ["photo.png", "-o", "out.png", "--tile", "3"],
        ["", "-o", "out.png"],
        ["photo.png", "-o", ""],
        ["photo.png", "-o", "out.png", "--reference", ""],
        ["photo.png", "-o", "out.png", "--base", ""],
        ["photo.png", "-o", "out.png", "--views", "²"],
        [300 * "x", "-o", "out.png"],
        ["photo.png", "-o", f"{300 * 'x'}.png"],
        ["photo.png", "-o", "out.png", "--reference", 300 * "x"],
        ["photo.png", "-o", "out.png", "--max-pixels", "10"],
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(folder, small_model_folder, monkeypatch, capfd, arguments):
    (folder / "text.png").write_text("no image\n")
    (folder / "empty.png").touch()
    data = (folder / "reference.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    write_photo(read_photo("reference.jpg"), "truncated.tif")
    (folder / "truncated.tif").write_bytes((folder / "truncated.tif").read_bytes()[:300])
    Image.new("RGBA", (3, 3)).save("alpha.png")
    bomb = bytearray((folder / "photo.png").read_bytes())
    bomb[16:24] = 2 * (100_000).to_bytes(4, "big")  # width and height
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "wrong").mkdir()
    (folder / "wrong/config.json").write_bytes((small_model_folder / "config.json").read_bytes())
    (folder / "wrong/model.safetensors").write_bytes(b"not tensors")
    before = sorted(folder.rglob("*"))

    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(small_model_folder)]
    assert main(["upscale", *arguments, "-q"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("frfsr: ")
    assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_info_counts_the_parameters(small_model, small_model_folder, capsys):
    assert main(["info", str(small_model_folder)]) == 0
    out = capsys.readouterr().out
    assert f"{sum(p.numel() for p in small_model.parameters()):,}" in out
    assert "sife_growth" in out


def test_data_pack_and_check(folder, capsys):
    for name in ("input", "ref"):
        (folder / "pairs" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "pairs" / name / "00000.png")
    assert main(["data", "pack", "pairs", "out.parquet"]) == 0
    assert main(["data", "check", "out.parquet"]) == 0
    (folder / "pairs" / "input" / "00001.png").write_text("no image")
    assert main(["data", "check", "pairs"]) == 1
    out = capsys.readouterr().out
    assert "1 pairs in out.parquet" in out
    assert "00001" in out
    assert main(["data", "check", "missing"]) == 2


@pytest.mark.parametrize("arch", ["frfsr", "frfsr-reuse", "unknown"])
@pytest.mark.parametrize("checkpoint", ["missing.pth", "photo.png"])
def test_convert_refuses_what_is_no_checkpoint(folder, capfd, checkpoint, arch):
    assert main(["convert", checkpoint, "out", "--arch", arch]) == 2
    err = capfd.readouterr().err
    assert err.startswith("frfsr: ")
    assert err.count("\n") == 1
    assert not (folder / "out").exists()


def test_missing_arguments_exit_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["upscale"])
    assert end.value.code == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_while_libraries_load_is_one_line(folder, monkeypatch, capfd, error):
    monkeypatch.setattr("frfsr.base.load_with_base", Mock(side_effect=error))
    assert main(["upscale", "photo.png", "-o", "out.png"]) == 2
    assert re.fullmatch("frfsr: .*memory.*\n", capfd.readouterr().err)
    assert not Path("out.png").exists()


def test_a_library_that_is_broken_is_not_hidden(folder, monkeypatch):
    monkeypatch.setattr("frfsr.base.load_with_base", Mock(side_effect=ImportError("undefined symbol: cudaGetDevice")))
    with pytest.raises(ImportError, match="undefined symbol"):
        main(["upscale", "photo.png", "-o", "out.png"])


@pytest.mark.parametrize(
    ("text", "pixels"), [("50MP", 50_000_000), ("1.5m", 1_500_000), ("71", 71), (" 2 GP ", 2 * 10**9)]
)
def test_numbers_of_pixels(text, pixels):
    assert parse_pixels(text) == pixels


@pytest.mark.parametrize("text", ["0", "0.0001", "-3", "", "MP", "1e6", "10 MB", "²"])
def test_what_is_no_number_of_pixels(text, folder, capfd):
    photo, reference = ["photo.png", "-o", "out.png"], ["--reference", "reference.jpg"]
    for command in (["upscale", *photo], ["explain", *photo, *reference], ["page"]):
        assert main([*command, f"--max-pixels={text}"]) == 2
        line = f"frfsr: --max-pixels is {text}: it must be a number of pixels, at least 1: for example 50MP.\n"
        assert capfd.readouterr().err == line
