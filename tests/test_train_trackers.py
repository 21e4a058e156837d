"""Trackers get what the log gets, and one that is missing is missed."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType

import frfsr.recipes.train as recipe


@pytest.fixture
def train(training_pairs, small_training, tmp_path):
    """train(settings...): the exit code of a step of stage rec in the folder `run`."""

    def train(*settings: str) -> int:
        run = [f"data={training_pairs}", f"out={tmp_path / 'run'}", "crop=32", "reference_side=48", "steps=1"]
        return recipe.main(["--config", "tiny_rec", *small_training, *run, "init={}", "frozen=[]", *settings])

    return train


def logged(out: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_tensorboard_gets_what_the_log_gets(train, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("tracker=tensorboard") == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    (l1,) = events.Scalars("l1")
    assert (l1.step, [pytest.approx(l1.value, abs=1e-6)]) == (1, logged(tmp_path / "run", "l1"))


def test_wandb_gets_settings_and_log(train, tmp_path, monkeypatch):
    run = Mock()
    monkeypatch.setitem(sys.modules, "wandb", Mock(init=Mock(return_value=run)))
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType.WANDB])
    assert train("tracker=wandb") == 0
    options = sys.modules["wandb"].init.call_args.kwargs
    assert (options["project"], options["name"], options["config"]["steps"]) == ("frfsr", "run", 1)
    assert any("l1" in call.args[0] and call.kwargs["step"] == 1 for call in run.log.call_args_list)
    run.finish.assert_called_once_with()


def test_a_tracker_that_is_not_installed_is_missed_before_anything_is_written(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    assert train("tracker=trackio") == 2
    error = capsys.readouterr().err
    assert "tracker=trackio is not installed: pip install trackio" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
