"""`frfsr eval` from its words to its table, its file and its exit code."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from frfsr.cli import main
from frfsr.errors import UserError
from frfsr.evals import commands
from frfsr.evals.benchmarks import TestSet
from frfsr.evals.choices import read_references
from frfsr.evals.evaluation import evaluate
from frfsr.evals.upscalers import Bicubic
from frfsr.peers.single_image import EDSR, ResidualConfig


def frfsr_eval(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    options = parser.parse_args([str(word) for word in words])
    return options.run(options)


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "wrsr="],
        ["--data", "wrsr=x", "--views", "many"],
        ["--data", "wrsr=x", "--strength", "2"],
        ["--data", "wrsr=x", "--search", "somehow"],
        ["--data", "wrsr=x", "--tile", "5"],
        ["tables", "--data", "wrsr=x", "--out", "o", "--max-memory", "much"],
        ["--data", "wrsr=x", "--references", "0"],
        ["--data", "wrsr=x", "--lr", "mine"],
        ["--data", "wrsr=x", "--lpips", "/nowhere"],
        ["--data", "wrsr=x", "--json", "/nowhere/o.json"],
        ["tables", "--data", "wrsr=x", "--out", "o", "--border", "-1"],
        ["figures", "--data", "wrsr=x", "--out", "o", "--benchmark", "cufed5"],
    ],
)
def test_wrong_words_are_refused_without_torch(words: list[str]) -> None:
    code = "import sys; from frfsr.cli import main; code = main(sys.argv[1:]); "
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, "eval", *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("frfsr: ")
    assert done.stderr.count("\n") == 1


def test_references_by_level_and_rule() -> None:
    assert [read_references(text) for text in ("1", "3", "all", "rotated")] == [
        ("true", 1), ("true", 3), ("all", 1), ("rotated", 1),
    ]  # fmt: skip
    with pytest.raises(UserError, match="'0': give a level from 1 on, or true, all, lr, none"):
        read_references("0")


def test_command_prints_a_table_and_writes_json(wrsr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert frfsr_eval("--data", f"wrsr={wrsr}", "--models", "bicubic", "--json", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["benchmark", "model", "reference", "count", "PSNR", "SSIM", "s/image"]
    assert lines[1].startswith("WR-SR (3 of 80)  bicubic  true       3      ")
    assert lines[2].startswith("protocol: ")
    assert lines[3] == "networks: views off, strength 1, enlarged LR 8-bit"
    report = json.loads(out.read_text())
    (result,) = report["results"]
    assert result["count"] == len(result["scores"]) == 3
    assert result["psnr_y"] == pytest.approx(np.mean([score["psnr_y"] for score in result["scores"]]))
    assert report["protocol"].startswith("truth cropped")
    assert report["versions"]["manifests"] == "1"


@pytest.mark.slow
def test_two_processes_share_the_images_and_agree_with_one(wrsr: Path, tmp_path: Path) -> None:
    script = tmp_path / "evaluate.py"
    script.write_text("import sys; from frfsr.cli import main; sys.exit(main())")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", script]
    words = ["eval", "--data", f"wrsr={wrsr}", "--models", "bicubic", "--json", tmp_path / "out.json"]
    done = subprocess.run([*launch, *words], check=True, capture_output=True, text=True)
    assert done.stdout.count("WR-SR (3 of 80)  bicubic") == 1
    (shared,) = json.loads((tmp_path / "out.json").read_text())["results"]
    alone = evaluate(Bicubic(), TestSet("wrsr", wrsr)).scores
    assert [(s["name"], s["psnr_y"], s["ssim_y"]) for s in shared["scores"]] == [
        (s.name, s.psnr_y, s.ssim_y) for s in alone
    ]


def test_command_exits_with_1_after_a_failure(wrsr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (wrsr / "input" / "002.png").write_text("no image")
    assert frfsr_eval("--data", f"wrsr={wrsr}", "--models", "bicubic") == 1
    assert "failed: WR-SR (3 of 80), bicubic: 002: " in capsys.readouterr().out


def test_equal_images_are_infinitely_good_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], save) -> None:
    save(tmp_path / "flat" / "a.png", np.full((40, 40, 3), 9, np.uint8))
    assert frfsr_eval("--data", f"flat={tmp_path / 'flat'}", "--models", "bicubic", "--json", tmp_path / "o.json") == 0
    (result,) = json.loads((tmp_path / "o.json").read_text())["results"]
    assert result["psnr_y"] == result["scores"][0]["psnr_y"] == "Infinity"
    assert float(result["psnr_y"]) == math.inf
    assert result["lpips"] is None
    assert " inf " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "wrsr"], "NAME=PATH"),
        (["--data", "wrsr=/nowhere/at/all"], "does not exist"),
        (["--data", "wrsr={wrsr}", "--references", "0"], "unknown rule for references '0'"),
        (["--data", "wrsr={wrsr}", "--references", "cufedr"], "give cufed5=PATH"),
        (["--data", "wrsr={wrsr}", "--lpips", "/nowhere"], "LPIPS: /nowhere does not exist"),
        (["--data", "wrsr={wrsr}", "--jobs", "0"], "--jobs must be"),
        (["--data", "wrsr={wrsr}", "--json", "/nowhere/o.json"], "cannot be written"),
        (["--data", "wrsr={wrsr}", "--json", ""], "give the output another name"),
        (["--data", "wrsr={wrsr}", "--cache", ""], "an empty name is given for a folder"),
        (["--data", "a={wrsr}", "a=/nowhere"], "two test sets are called a"),
        (["--data", "wrsr={wrsr}", "--border", "20"], "WR-SR: not one image can be measured: 001: an image of 40x36"),
        (["--data", "wrsr={wrsr}", "--border", "13"], "needs 11x11 pixels inside the border, got 14x10"),
        (["--data", "wrsr={wrsr}", "--references", "5"], "001: there is no reference of level 5, only 1"),
        (["tables", "--data", "wrsr={wrsr}", "--out", "{wrsr}", "--border", "20"], "not one image can be measured"),
        (["figures", "--data", "wrsr={wrsr}", "--out", "{wrsr}", "--benchmark", "wrsr", "--border", "20"], "not one"),
        (
            ["figures", "--data", "wrsr={wrsr}", "--out", "{wrsr}", "--benchmark", "wrsr", "--crop", "30", "0", "16"],
            r"the crop \(30, 0, 16\) does not lie in 001, an image of 40x36",
        ),
        (["--data", "wrsr={wrsr}", "--device", "foo"], "no network runs on a device 'foo'"),
        (["--data", "wrsr={wrsr}", "--models", "a=frfsr-tiny", "a=bicubic"], "two models are called a"),
        (["figures", "--data", "wrsr={wrsr}", "--out", "{wrsr}", "--benchmark", "wrsr", "--count", "-1"], "--count is"),
    ],
)
def test_wrong_arguments_are_named_before_the_first_image(
    words: list[str], message: str, wrsr: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Bicubic, "__call__", None)
    with pytest.raises(UserError, match=message):
        frfsr_eval(
            *[word.format(wrsr=wrsr) for word in words], *([] if "--models" in words else ["--models", "bicubic"])
        )


def test_results_are_written_before_they_are_printed(wrsr: Path, tmp_path: Path) -> None:
    """`frfsr eval ... | head -1`, with a reader that is gone before the first line."""
    code = "import sys; from frfsr.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "eval", "--data", f"wrsr={wrsr}", "--models", "bicubic"]
    process = subprocess.Popen(
        [*command, "--json", tmp_path / "r.json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    process.stdout.close()
    process.wait(timeout=600)
    assert len(json.loads((tmp_path / "r.json").read_text())["results"][0]["scores"]) == 3


@pytest.mark.parametrize(
    ("package", "words"), [("skimage", ()), ("lpips", ("--lpips", "torchvision")), ("scipy", ("tables",))]
)
def test_missing_packages_are_found_before_the_first_image(
    package: str, words: tuple[str, ...], wrsr: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    arguments = [*words, "--data", f"wrsr={wrsr}", *(["--out", str(tmp_path / "out")] if "tables" in words else [])]
    assert main(["eval", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'frfsr[eval]'" in error


def test_models_of_every_kind_in_one_table(
    wrsr: Path, small_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edsr = EDSR(ResidualConfig(channels=4, blocks=1)).eval()
    edsr.save_pretrained(tmp_path / "edsr")
    models = ["bicubic", f"ours={small_model_folder}", tmp_path / "edsr"]
    words = ["--data", f"wrsr={wrsr}", "--references", "1", "--views", "auto", "--strength", "0.5", "--device", "cpu"]
    words += ["--tile", "32", "--search", "exact", "--max-memory", "8GB"]
    assert frfsr_eval(*words, "--models", *models, "--sisr", f"alone={tmp_path / 'edsr'}") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[1].strip(): line.split()[-3:-1] for line in lines[1:5]}
    assert rows.keys() == {"bicubic", "ours", "edsr", "alone"}
    assert rows["edsr"] == rows["alone"] != rows["ours"]
    engine = "search exact, tiles of 32, bytes of memory 8000000000"
    assert f"networks: views auto, strength 0.5, enlarged LR 8-bit, {engine}" in lines
    with pytest.raises(UserError, match="no single-image network"):
        frfsr_eval(*words, "--sisr", small_model_folder)
