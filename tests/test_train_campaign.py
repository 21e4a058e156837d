"""Long runs: pauses by time and by signal, ends that are set later, what may change, and what is carried elsewhere."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import frfsr.recipes.train as recipe
import frfsr.recipes.train_matching as matching_recipe
from frfsr import FRFSR, FRFSRConfig
from frfsr.network import Rates
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.loop import Loop
from frfsr.recipes.optim import rate_factor

RECIPES = Path(recipe.__file__).parent


@pytest.fixture
def train(training_pairs, small_training):
    """train(out, settings...): stage rec of a small network on generated pairs; returns the exit code."""

    def train(out: Path, *settings: str) -> int:
        run = [f"data={training_pairs}", f"out={out}", "crop=32", "reference_side=64", "init={}", "frozen=[]"]
        return recipe.main(["--config", str(RECIPES / "tiny_rec.yaml"), *small_training, *run, *settings])

    return train


def logged(out: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def checkpoints(out: Path) -> list[int]:
    return sorted(int(folder.name) for folder in (out / "checkpoints").glob("[0-9]*"))


def at_step(monkeypatch, number: int, act) -> None:
    """Do something once, when that step of a run is done."""
    intact = Loop.after

    def after(self, step: int) -> None:
        intact(self, step)
        if step == number:
            act(self)

    monkeypatch.setattr(Loop, "after", after)


def test_after_its_minutes_a_run_saves_validates_exports_and_goes_on_later(train, tmp_path, capsys):
    assert train(tmp_path, "steps=3", "minutes=1e-6") == 0
    assert "stopped after 1e-06 minutes at step 1 of 3: the same command goes on" in capsys.readouterr().out
    assert checkpoints(tmp_path) == [1]
    assert len(logged(tmp_path, "psnr")) == 2  # at the start and at the end
    FRFSR.from_pretrained(tmp_path / "weights")
    assert train(tmp_path, "steps=3", "minutes=60") == 0
    assert checkpoints(tmp_path) == [1, 3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(train, tmp_path, monkeypatch, capsys, number):
    handler = signal.getsignal(number)
    at_step(monkeypatch, 2, lambda loop: os.kill(os.getpid(), number))
    assert train(tmp_path, "steps=4", "workers=1") == 128 + number
    assert f"stopped by {number.name} at step 2 of 4" in capsys.readouterr().out
    assert checkpoints(tmp_path) == [2]
    assert signal.getsignal(number) == handler
    assert train(tmp_path, "steps=4") == 0
    assert [step for step in logged(tmp_path, "step") if step] == [1, 2, 3, 4, 4]


def test_stopped_at_any_step_a_run_ends_in_the_same_weights(train, tmp_path, monkeypatch):
    assert train(tmp_path / "whole", "steps=4") == 0
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda loop: os.kill(os.getpid(), signal.SIGTERM))
        assert train(tmp_path / "stopped", "steps=4") == 143
    assert train(tmp_path / "stopped", "steps=4") == 0
    weights = [load_file(tmp_path / run / "weights" / "model.safetensors") for run in ("whole", "stopped")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_what_changes_nothing_and_the_end_may_change_on_resume(train, training_pairs, tmp_path, capsys):
    assert train(tmp_path / "run", "steps=1", "schedule=constant+decay", "decay=0") == 0
    moved = shutil.copytree(training_pairs, tmp_path / "moved")
    changes = [
        "workers=1",
        "log_every=2",
        "keep=1",
        "validate_every=7",
        "checkpoint_every=3",
        "cache=1",
        f"data={moved}",
    ]
    assert train(tmp_path / "run", *changes, "steps=4", "schedule=constant+decay", "decay=2") == 0
    assert logged(tmp_path / "run", "lr")[-1] == pytest.approx(1e-3 / 2)
    shutil.copy(moved / "input" / "00000.png", moved / "input" / "00001.png")
    capsys.readouterr()
    assert train(tmp_path / "run", *changes, "steps=5") == 2
    assert "other settings (data)" in capsys.readouterr().err


def test_constant_and_decay():
    config = TrainingConfig(data="x", out="y", schedule="constant+decay", steps=100, decay=20, warmup=4)
    rates = [rate_factor(step, config) for step in (0, 3, 4, 79, 80, 90, 99, 100)]
    assert rates == pytest.approx([0.25, 1, 1, 1, 1, 0.5, 0.05, 0])


def test_a_run_goes_on_from_what_was_carried(train, tmp_path):
    """In another folder that holds nothing else; only the moments are rounded."""
    assert train(tmp_path / "first", "steps=2", "carry=true") == 0
    assert train(tmp_path / "first", "steps=4") == 0
    (tmp_path / "second").mkdir()
    assert train(tmp_path / "early", "steps=2", "carry=true") == 0
    shutil.move(tmp_path / "early" / "carry.safetensors", tmp_path / "second")
    assert train(tmp_path / "second", "steps=4") == 0
    assert min(logged(tmp_path / "second", "step")) == 3
    one, other = (load_file(tmp_path / run / "weights" / "model.safetensors") for run in ("first", "second"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=5e-5)  # of steps of 1e-3


def test_a_carried_file_of_another_network_is_refused(train, tmp_path, capsys):
    assert train(tmp_path / "first", "steps=1", "carry=true") == 0
    (tmp_path / "second").mkdir()
    shutil.move(tmp_path / "first" / "carry.safetensors", tmp_path / "second")
    assert train(tmp_path / "second", "steps=2", "model.channels=[4,4,4]") == 2
    assert "carry.safetensors cannot be read" in capsys.readouterr().err


def test_photos_without_references_are_measured_too(train, training_pairs, tmp_path):
    photos = f"validate_on={training_pairs / 'input'}"
    assert train(tmp_path, "steps=1", photos, "base_mix=[0.4, 0.3, 0.3]", "reference_share=1") == 0
    (before, after) = logged(tmp_path, "psnr_photos")
    assert before > 20
    assert after > 20


def test_a_part_has_a_rate_of_its_own(train, tmp_path):
    settings = ["steps=1", "lr=1e-3", "lr_offset=[1e-3, 1e-3, 1e-3]", "rates={sife: 1e-6}", "base_mix=[0, 1, 0]"]
    assert train(tmp_path / "still", *settings, "lr=0.0", "lr_offset=[0.0, 0.0, 0.0]", "rates={sife: 0.0}") == 0
    assert train(tmp_path / "run", *settings) == 0
    before, after = (
        load_file(tmp_path / run / "checkpoints" / "0000001" / "model.safetensors") for run in ("still", "run")
    )
    change = {name: (after[name] - before[name]).abs().max().item() for name in after}
    assert change["aggregation.tail.2.bias"] == pytest.approx(1e-3, rel=0.01)
    assert 0 <= max(value for name, value in change.items() if name.startswith("sife.")) < 2e-6


def test_of_two_rates_that_of_the_inner_part_holds():
    model = FRFSR(FRFSRConfig.tiny(sife_blocks=2))
    for parts in ({"sife": 1e-5, "sife.body.1": 1e-3}, {"sife.body.1": 1e-3, "sife": 1e-5}):
        groups = model.parameter_groups(Rates(1e-4, parts=parts))
        rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        rate = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
        assert {rate[name] for name in rate if name.startswith("sife.body.1.")} == {1e-3}
        assert {rate[name] for name in rate if name.startswith("sife.body.0.")} == {1e-5}
        assert rate["aggregation.head.weight"] == 1e-4


def test_what_the_model_lacks_has_no_rate(train, tmp_path, capsys):
    for name in ("sife.body.7", "bodys", ""):
        assert train(tmp_path / "run", "steps=1", f"rates={{'{name}': 1e-6}}") == 2
        assert f"the model has no part '{name}'; it has encoder, " in capsys.readouterr().err


def test_the_matching_recipe_pauses_too(training_pairs, small_training, tmp_path):
    run = [f"data={training_pairs}", f"out={tmp_path}", "size=96", "jitter=4", "zoom=[0.8, 1.2]", "turn=10", "steps=3"]
    arguments = ["--config", str(RECIPES / "tiny_student.yaml"), *small_training, *run]
    assert matching_recipe.main([*arguments, "minutes=1e-6", "accumulate=2"]) == 0
    assert checkpoints(tmp_path) == [1]
    assert matching_recipe.main([*arguments, "accumulate=2"]) == 0
    assert checkpoints(tmp_path) == [1, 3]
    assert len(logged(tmp_path, "loss")) == 3
