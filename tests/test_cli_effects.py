"""No option is silently without effect: what cannot be done with what was given is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import frfsr
from frfsr.base import load_single_image
from frfsr.cli import main
from frfsr.data.pairs import load_pairs
from frfsr.errors import UserError
from frfsr.listing import open_module
from frfsr.peers.single_image import SRCNN, SRCNNConfig
from frfsr.recipes.config import load_config
from frfsr.recipes.effects import require_effect
from frfsr.upscaling.options import Options


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """A photo of 20x20 pixels."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_a_local_model_has_subfolders_but_no_revisions(tmp_path: Path, small_model) -> None:
    small_model.save_pretrained(tmp_path / "run" / "weights")
    assert frfsr.load(tmp_path / "run", subfolder="weights").config == small_model.config
    for load in (frfsr.load, frfsr.FRFSR.from_pretrained, open_module, load_single_image):
        for place in ("frfsr-tiny", str(tmp_path / "run" / "weights")):
            with pytest.raises(UserError, match="without revisions"):
                load(place, revision="v1")
            with pytest.raises(UserError, match=r"nowhere has no config\.json"):
                load(place, subfolder="nowhere")
    with pytest.raises(UserError, match="architecture, without revisions"):
        open_module("ttsr", revision="v1")


def test_a_file_has_neither(tmp_path: Path) -> None:
    for option in ("revision", "subfolder"):
        with pytest.raises(UserError, match="is a file, without revisions and subfolders"):
            load_single_image(tmp_path / "base.pth", **{option: "v1"})


def test_a_loaded_model_is_where_it_is(small_model) -> None:
    for option in ({"device": "cpu"}, {"dtype": "float32"}):
        with pytest.raises(UserError, match="model given by name"):
            frfsr.upscale(np.zeros((8, 8, 3), np.uint8), model=small_model, **option)


@pytest.mark.parametrize("option", [["--views", "2"], ["--search", "fast"], ["--strength", "1"]])
def test_settings_of_references_need_one(photo: str, capsys, option: list[str]) -> None:
    assert exit_code(["upscale", photo, "-o", "out.png", *option]) == 2
    assert f"{option[0]} changes nothing without a reference" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--max-memory", "9" * 400], "is no amount of memory"),
        (["--views", "9" * 5000], "give auto, off or a number"),
        (["-o", ""], "an empty name is given"),
    ],
)
def test_values_beyond_all_bounds(photo: str, tmp_path: Path, monkeypatch, capsys, option: list[str], message: str):
    monkeypatch.chdir(tmp_path)
    for command in ("upscale", "explain"):
        assert exit_code([command, photo, "--reference", photo, "-o", "out.png", *option]) == 2
        assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_networks_say_what_they_do_not_use(photo: str, tmp_path: Path, capsys) -> None:
    SRCNN(SRCNNConfig(channels=(4, 4))).save_pretrained(tmp_path / "srcnn")
    out = str(tmp_path / "out.png")
    assert exit_code(["upscale", photo, "--reference", photo, "-o", out, "-q", "--model", str(tmp_path / "srcnn")]) == 0
    assert "srcnn takes no references: they change nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "behind", "message"),
    [
        (["--json", "a.json"], ["speed"], "--json stands before speed: give it behind, frfsr eval speed"),
        (["--border", "8"], ["tables", "--out", "o"], "--border stands before tables"),
        ([], ["figures", "--out", "o", "--images", "a", "--count", "2"], "not allowed with"),
        ([], ["figures", "--out", "o", "--no-charts", "--quoted"], "not allowed with"),
        (["--models", "bicubic", "--base", "none", "--data", "set5=DATA"], [], "--base changes nothing"),
    ],
)
def test_evaluations(photo: str, capsys, before: list[str], behind: list[str], message: str) -> None:
    arguments = [part.replace("DATA", str(Path(photo).parent)) for part in [*before, *behind]]
    assert exit_code(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_only_the_hub_has_revisions_of_data(photo: str, tmp_path: Path) -> None:
    places = [tmp_path, f"{tmp_path}/*.png", load_pairs(tmp_path), "https://somewhere.org/pairs.parquet"]
    for place in places:
        with pytest.raises(UserError, match="which alone has revisions"):
            load_pairs(place, revision="v1")
    for place in ("owner/pairs@v2", "hf://datasets/owner/pairs@v2", "hf://datasets/owner/pairs@v2/a.parquet"):
        with pytest.raises(UserError, match="two revisions"):
            load_pairs(place, revision="v1")


@pytest.mark.parametrize(
    ("recipe", "change", "condition"),
    [
        ("tiny_rec", "critic_lr=1e-5", "stage=all"),
        ("tiny_rec", "decay=10", "schedule=constant+decay"),
        ("tiny_all", "reconstruction=psnr", "stage=sife or rec"),
        ("tiny_sife", "shuffle=hard", "stage=rec or all"),
        ("tiny_rec", "reference_zoom=[0.5, 2]", "reference_share"),
        ("tiny_teacher", "teacher=weights", "stage=student"),
        ("tiny_teacher", "distill_weight=1", "teacher"),
    ],
)
def test_settings_of_training(recipe: str, change: str, condition: str, capsys) -> None:
    others = ["data=x", "out=y", "reference_share=0"] if recipe == "tiny_rec" else ["data=x", "out=y"]
    assert exit_code(["train", recipe, *others, change]) == 2
    assert f"{change.partition('=')[0]} changes nothing without {condition}" in capsys.readouterr().err


def test_settings_with_effect_are_taken() -> None:
    changes = ["data=x", "out=y", "schedule=constant+decay", "decay=10", "reference_share=0.5", "reference_turn=90"]
    require_effect(load_config("tiny_rec", changes), changes)


@pytest.mark.parametrize("option", [{"views": True}, {"tile": True}, {"strength": True}, {"max_memory": float("inf")}])
def test_truth_values_and_infinity_are_no_sizes(option: dict) -> None:
    with pytest.raises(UserError, match=f"{next(iter(option))} is"):
        Options(**option)
