"""`frfsr plot` on invented logs, and the ablation tables on runs of one step."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import frfsr.recipes.ablations as ablations
import frfsr.recipes.train as recipe
from frfsr.cli import main as frfsr
from frfsr.errors import UserError
from frfsr.recipes.plot import plot, read_log

RECIPES = Path(recipe.__file__).parent
FEW = "crop=32", "steps=1"


@pytest.fixture
def run(training_pairs, short_training) -> Callable[..., int]:
    """run(table, recipe, out, settings...): an ablation of a step for each variant."""

    def run(table: str, config: str, out: Path, *settings: str) -> int:
        command = [table, "--config", str(RECIPES / config), "--test", f"own={training_pairs}"]
        reference = f"data={training_pairs}", f"out={out}", "reference_side=64"
        return ablations.main([*command, *reference, *short_training, *FEW, *settings])

    return run


def test_table_vii(run, training_pairs, small_training, tmp_path, capsys):
    single = ["--config", "tiny_sife", f"data={training_pairs}", f"out={tmp_path / 's'}"]
    assert recipe.main([*single, *small_training, *FEW]) == 0
    capsys.readouterr()
    settings = [f"init={{sife: {tmp_path / 's' / 'weights'}}}", "frozen=[sife]", *small_training]
    assert run("vii", "tiny_rec.yaml", tmp_path / "vii", *settings) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("Model"))
    assert lines[header].split() == ["Model", "SIFE", "DRB", "PSNR↑", "SSIM↑", "LPIPS↓"]
    ticks = [(line.split()[0], line.count("✓")) for line in lines[header + 1 : header + 5]]
    assert ticks == [("Baseline", 0), ("Baseline+DRB", 1), ("Baseline+SIFE", 1), ("Baseline+DRB+SIFE", 2)]
    settings = {
        name: json.loads((tmp_path / "vii" / name / "weights" / "config.json").read_text())
        for name in ("baseline", "baseline-drb", "baseline-sife", "baseline-drb-sife")
    }
    assert {config["base"] for config in settings.values()} == {"bicubic"}
    assert [config["sife"] for config in settings.values()] == [False, False, True, True]
    assert [config["esa"] for config in settings.values()] == [False, True, False, True]
    assert "| Baseline+SIFE | ✓ |  |" in (tmp_path / "vii" / "tables.md").read_text()


def test_table_ix(run, short_training, vgg16, tmp_path, capsys):
    rec, lines = tmp_path / "rec.yaml", [setting.replace("=", ": ") for setting in (*short_training, *FEW)]
    rec.write_text("\n".join([(RECIPES / "tiny_masa.yaml").read_text(), *lines]))
    settings = ["perceptual=vgg16", f"perceptual_weights={vgg16}", "--rec", str(rec), "--seeds", "0", "1"]
    assert run("ix", "tiny_masa_all.yaml", tmp_path / "ix", *settings) == 0
    text = capsys.readouterr().out
    assert "Table IX: feature reuse, own" in text
    rows = [line for line in text.splitlines() if line.startswith(("MASA, before", "All losses"))]
    assert [row.count("✓") for row in rows] == [0, 0, 1]
    assert [row.count("±") for row in rows] == [0, 2, 2]  # PSNR and SSIM of two seeds


def test_an_ablation_needs_the_stage_that_it_is_about(run, tmp_path, capsys):
    assert run("ix", "tiny_rec.yaml", tmp_path / "ix") == 2
    assert "is about stage all" in capsys.readouterr().err


def write_log(folder: Path, *lines: dict) -> str:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_plot_draws_a_panel_for_each_quantity(tmp_path):
    one = write_log(tmp_path / "one", {"step": 1, "l1": 0.5, "lr": 0.1}, {"step": 2, "l1": 0.25, "lr": 0.1, "psnr": 20})
    two = write_log(tmp_path / "two", {"step": 1, "l1": 0.4, "lr": 0.1})
    heights = {}
    for name, quantities in (("all", ()), ("l1", ("l1",)), ("lr", ("l1", "psnr", "lr"))):
        plot([one, two], str(tmp_path / f"{name}.png"), quantities)
        with Image.open(tmp_path / f"{name}.png") as picture:
            heights[name] = picture.height
    assert heights["l1"] < heights["all"] < heights["lr"]  # by default without the learning rate


def test_the_last_of_repeated_steps_counts(tmp_path):
    write_log(tmp_path / "run", {"step": 1, "l1": 3.0}, {"step": 2, "l1": 2.0}, {"step": 2, "l1": 1.0})
    assert read_log(tmp_path / "run") == {"l1": {1: 3.0, 2: 1.0}}


def test_plot_says_what_is_wrong(tmp_path, capsys):
    run = write_log(tmp_path / "run", {"step": 1, "l1": 0.5})
    with pytest.raises(UserError, match="no run has logged 'psnr'; there are l1"):
        plot([run], str(tmp_path / "a.png"), ["psnr"])
    with pytest.raises(UserError, match=r"no readable metrics\.jsonl"):
        plot([str(tmp_path)], str(tmp_path / "a.png"))
    assert frfsr(["plot", run, "-o", str(tmp_path / "a.nothing")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert frfsr(["plot", run, "-o", str(tmp_path / "a.png")]) == 0
