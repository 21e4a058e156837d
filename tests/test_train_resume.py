"""Runs that are killed, and checkpoints that are damaged: a resumed run ends in the weights of an uninterrupted one."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

import frfsr.recipes.train as recipe
import frfsr.recipes.train_matching as matching_recipe

RECIPES = Path(recipe.__file__).parent


@pytest.fixture
def command(training_pairs, small_training, small_model_folder, vgg16):
    """command(stage, out, settings...): arguments of the tiny recipe of that stage, except for `steps`."""

    vgg = "perceptual=vgg16", f"perceptual_weights={vgg16}"

    def command(stage: str, out: Path, *settings: str) -> list[str]:
        changes = {
            "student": ["size=96", "jitter=4", f"teacher={small_model_folder}"],
            "rec": ["crop=32", "reference_side=64", "init={}", "frozen=[]"],
            "all": ["crop=32", "reference_side=64", f"init={{all: {small_model_folder}}}", *vgg],
        }
        run = [f"data={training_pairs}", f"out={out}", "checkpoint_every=2", "validate_every=1000"]
        return ["--config", str(RECIPES / f"tiny_{stage}.yaml"), *small_training, *changes[stage], *run, *settings]

    return command


def start(module: ModuleType, arguments: list[str]) -> multiprocessing.Process:
    """The recipe in a fresh process, forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([recipe.__name__, matching_recipe.__name__])
    process = context.Process(target=module.main, args=(arguments,))
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "kills", "steps"), [("student", 2, 8), ("rec", 10, 24), ("all", 3, 10)])
def test_killed_at_random_steps_a_run_ends_in_the_same_weights(command, tmp_path, monkeypatch, stage, kills, steps):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    module = matching_recipe if stage == "student" else recipe
    whole, killed, rng = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    start(module, command(stage, whole, f"steps={steps}")).join()

    taken: list[int] = []
    for _ in range(kills):
        goal = max(taken, default=0) + rng.randint(1, steps // kills)
        if goal > steps - 2:
            break  # on a busy machine the run could end before it is killed
        process, saved = start(module, command(stage, killed, f"steps={steps}")), latest_checkpoint(killed)
        while process.is_alive() and max(steps_taken(killed), default=0) < goal:
            time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
        before, taken = len(taken), steps_taken(killed)
        assert taken[before] == saved + 1, "work behind the last checkpoint was lost"
    start(module, command(stage, killed, f"steps={steps}")).join()

    assert_same(whole / "weights", killed / "weights")
    assert_same(whole / "checkpoints" / f"{steps:07d}", killed / "checkpoints" / f"{steps:07d}")


def steps_taken(out: Path) -> list[int]:
    """The steps in the log, without validations and a last line that is still being written."""
    file = out / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    complete = [json.loads(line) for line in lines if line.endswith("}\n")]
    return [line["step"] for line in complete if "lr" in line]


def latest_checkpoint(out: Path) -> int:
    return max((int(folder.name) for folder in out.glob("checkpoints/[0-9]*")), default=0)


def assert_same(one: Path, other: Path) -> None:
    """Bit by bit: the weights of all networks, and what the optimizers know."""
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    for file in one.glob("*.safetensors"):
        torch.testing.assert_close(load_file(file), load_file(other / file.name), rtol=0, atol=0)
    for file in one.glob("optimizer*.bin"):
        states = (torch.load(folder / file.name)["state"] for folder in (one, other))
        torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(command, tmp_path):
    arguments = command("rec", tmp_path, "steps=6")
    assert recipe.main(arguments) == 0
    last = tmp_path / "checkpoints" / "0000006"
    shutil.copytree(last, tmp_path / "intact")
    (tmp_path / "weights").rename(tmp_path / "intact-weights")
    content = (last / "model.safetensors").read_bytes()
    (last / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="checkpoint 6 cannot be read"):
        assert recipe.main(arguments) == 0
    assert_same(tmp_path / "intact-weights", tmp_path / "weights")
    assert_same(tmp_path / "intact", last)


def test_without_a_usable_checkpoint_nothing_is_overwritten(command, tmp_path, capsys):
    arguments = command("rec", tmp_path, "steps=2")
    assert recipe.main(arguments) == 0
    broken = tmp_path / "checkpoints" / "0000002" / "model.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.warns(UserWarning, match="checkpoint 2 cannot be read"):
        assert recipe.main(arguments) == 2
    assert "remove them to start afresh" in capsys.readouterr().err
    assert broken.read_bytes() == b"no weights"


def test_other_pretrained_weights_are_noticed_on_resume(command, vgg16, tmp_path):
    copy = shutil.copy(vgg16, tmp_path / "vgg16.safetensors")
    arguments = command("all", tmp_path / "run", "steps=1", f"perceptual_weights={copy}")
    assert recipe.main(arguments) == 0
    save_file({name: value + 1 for name, value in load_file(copy).items()}, copy)
    with pytest.warns(UserWarning, match="weights of vgg16 are not those of the run's start"):
        assert recipe.main(arguments) == 0
