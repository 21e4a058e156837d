"""How a recipe starts and ends as people start it: `frfsr train`, several processes, `accelerate launch`, signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import frfsr.recipes.train as recipe
from frfsr.cli import main as frfsr

RECIPES = Path(recipe.__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def settings(training_pairs, small_training) -> list[str]:
    return [*small_training, f"data={training_pairs}", "crop=32", "reference_side=64", "init={}", "frozen=[]"]


def frfsr_train(*arguments: str) -> subprocess.Popen:
    program = "import sys; from frfsr.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_frfsr_train_takes_a_recipe_by_its_name(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert frfsr(["train", "tiny_rec", *settings, "out=run", "steps=1"]) == 0
    assert (tmp_path / "run" / "weights" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny_rek"], "no configuration 'tiny_rek'"),
        (["tiny_rec", "data=x", "out=y", "batch=0"], "batch: should be greater than or equal to 1"),
        (["tiny_rec", "data=x", "out=y", "--processes", "0"], "--processes must be at least 1"),
        (["tiny_rec", "data=nowhere/at/all", "out=y", "mixed_precision=no"], "nowhere/at/all does not exist"),
    ],
)
def test_mistakes_take_one_line(arguments, message, capsys):
    assert frfsr(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_wrong_settings_are_answered_without_torch():
    program = """if True:
        import sys
        from frfsr.cli import main
        assert main(["train", "tiny_rec", "data=x", "out=y", "stepz=3"]) == 2
        assert "torch" not in sys.modules
    """
    assert subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT).returncode == 0


@pytest.mark.slow
def test_two_processes_by_one_command_train_as_one(settings, tmp_path):
    for processes in (1, 2):
        run = frfsr_train(
            "tiny_rec", *settings, f"out={tmp_path / str(processes)}", "steps=3", f"--processes={processes}"
        )
        _, error = run.communicate(timeout=300)
        assert run.returncode == 0, error[-3000:]
        started = json.loads((tmp_path / str(processes) / "environment.jsonl").read_text())
        assert started["processes"] == processes
    one, two = (load_file(tmp_path / processes / "weights" / "model.safetensors") for processes in ("1", "2"))
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-4


@pytest.mark.slow
def test_a_mistake_of_two_processes_takes_one_line(settings, tmp_path):
    run = frfsr_train("tiny_rec", *settings, f"out={tmp_path}", "init={all: nowhere}", "--processes=2")
    _, error = run.communicate(timeout=300)
    assert run.returncode == 2
    assert error.splitlines()[-1].startswith("frfsr: init all:")
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_all_processes_with_a_checkpoint(settings, tmp_path, processes):
    run = frfsr_train("tiny_rec", *settings, f"out={tmp_path}", "steps=1000", f"--processes={processes}")
    log, patience = tmp_path / "metrics.jsonl", time.monotonic() + 240
    while not (log.exists() and log.read_text().count("l1") > 1) and time.monotonic() < patience:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=120)
    assert run.returncode == 130, error[-3000:]
    assert "Traceback" not in error
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(checkpoint / "custom_checkpoint_0.pkl", weights_only=True)["n_averaged"] == int(checkpoint.name)


@pytest.mark.slow
def test_a_mistake_under_accelerate_launch_ends_with_our_line(training_pairs, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--cpu", "--num_processes", "1"]
    command += [
        str(RECIPES / "train.py"),
        "--config",
        "tiny_rec",
        f"data={training_pairs}",
        f"out={tmp_path}",
        "lr=fast",
    ]
    finished = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode != 0
    assert finished.stderr.splitlines()[-1].startswith("train: lr: should be a valid number")
    assert "Traceback" not in finished.stderr


def test_every_command_that_is_told_keeps_accelerate_quiet():
    """Without --quiet its launcher adds a traceback to our line, which nothing that a recipe can do prevents."""
    checkout = RECIPES.resolve().parent
    for file in (checkout / "README.md", *(checkout / "docs").rglob("*.md"), *(checkout / "recipes").glob("*.py")):
        for command in re.findall(r"accelerate launch .*(?:recipes/\w+\.py|which frfsr)", file.read_text()):
            assert "--quiet" in command, f"{file.name}: {command}"
