"""The training recipes on generated photos: resume, processes, configuration errors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

import frfsr.recipes.train as recipe
from frfsr import degrade
from frfsr.config import FRFSRConfig
from frfsr.errors import UserError
from frfsr.files import append
from frfsr.model import FRFSR
from frfsr.pixels import to_tensor
from frfsr.recipes.average import Average
from frfsr.recipes.config import TrainingConfig, load_config
from frfsr.recipes.optim import parameter_groups, rate_factor
from frfsr.recipes.samples import TrainingSamples
from frfsr.recipes.setup import build_network, load_training_pairs

RECIPES = Path(recipe.__file__).parent


def photo(rng: np.random.Generator, side: int) -> Image.Image:
    """Full of detail: where a critic sees two images that are almost equal, its gradient is rounding errors alone."""
    coarse = Image.fromarray(rng.integers(0, 256, (side // 2, side // 2, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Eight pairs in the CUFED layout."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for part in ("input", "ref"):
        (folder / part).mkdir()
        for i in range(8):
            photo(rng, 48).save(folder / part / f"{i:05d}.png")
    return folder


@pytest.fixture(scope="module")
def settings(pairs, small_training) -> list[str]:
    return [f"data={pairs}", *small_training, "crop=32"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}


FAST = ("init={}", "checkpoint_every=2", "validate_every=100")


@pytest.fixture
def run(settings, tmp_path) -> Callable[..., int]:
    """run(settings..., config=RECIPE): the recipe without a launcher, in this process, which has all imports."""

    def run(*changes: str, config: str = "tiny_rec") -> int:
        return recipe.main(["--config", config, *settings, f"out={tmp_path / 'run'}", *FAST, *changes])

    return run


@pytest.fixture
def config(settings) -> Callable[..., TrainingConfig]:
    """config(settings...): of tiny_rec."""
    return lambda *changes: load_config("tiny_rec", [*settings, "reference_side=48", "out=unused", *changes])


def in_two_processes(arguments: Sequence[str]) -> None:
    """The recipe under torchrun: accelerate's own launcher quietly starts a single process on a CPU."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(RECIPES / "train.py"), *arguments]
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rec", "all"])
def test_two_processes_train_as_one(settings, config, vgg16, tmp_path, stage):
    settings = [*settings, *FAST, "reference_side=48", "steps=3"]
    if stage == "all":
        build_network(config().model).save_pretrained(tmp_path / "rec")
        settings += [f"init={{all: {tmp_path / 'rec'}}}", "perceptual=vgg16", f"perceptual_weights={vgg16}"]
        settings.append("loss_weights=[1, 100, 0.01]")  # of like size
    for processes, train in enumerate((recipe.main, in_two_processes), start=1):
        out = tmp_path / str(processes)
        train(["--config", f"tiny_{stage}", *settings, f"out={out}"])
        assert json.loads((out / "environment.jsonl").read_text())["processes"] == processes
    names = [part.name for part in (tmp_path / "1" / "checkpoints" / "0000003").glob("*.safetensors")]
    assert len(names) == {"rec": 1, "all": 2}[stage]  # the network, and the critic
    for name in names:
        one, two = (load_file(tmp_path / processes / "checkpoints" / "0000003" / name) for processes in ("1", "2"))
        changes = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
        # Of a gradient near zero the rounding decides the sign, and so where Adam goes: at most the rate, in each step.
        assert changes.max() < 2e-4
        assert (changes < 2e-5).float().mean() > 0.9999


def test_a_run_folder_says_how_to_repeat_it(run, tmp_path):
    assert run("steps=2", config="tiny_sife") == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "environment.jsonl", "metrics.jsonl", "samples", "checkpoints", "weights"} <= names
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("l1" in line for line in lines)
    assert any("psnr" in line for line in lines)
    started = json.loads((tmp_path / "run" / "environment.jsonl").read_text())
    assert started["processes"] == 1
    assert started["torch"] == version("torch")


@pytest.mark.parametrize("kind", ["l2", "psnr"])
def test_a_run_may_minimise_what_psnr_counts(run, tmp_path, kind):
    assert run("steps=2", f"reconstruction={kind}") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses
    assert all((loss < 0) == (kind == "psnr") for loss in losses)


def test_other_settings_do_not_continue_a_run(run, tmp_path, capsys):
    assert run("steps=2") == 0
    assert run("steps=2", "lr=1e-5") == 2
    assert "other settings (lr)" in capsys.readouterr().err


def fail_once(monkeypatch, owner: type, name: str, call: int, error: Exception) -> None:
    """Let one call of a method end in an error, with its work half done."""
    intact, calls = getattr(owner, name), []

    def method(self, *arguments, **options) -> None:
        intact(self, *arguments, **options)
        calls.append(arguments)
        if len(calls) == call:
            raise error

    monkeypatch.setattr(owner, name, method)


def test_a_full_disk_costs_no_checkpoint_and_not_the_run(run, tmp_path, monkeypatch):
    fail_once(monkeypatch, recipe.Accelerator, "save_state", 2, OSError("No space left on device"))
    fail_once(monkeypatch, FRFSR, "save_pretrained", 2, SafetensorError("No space left on device"))
    fail_once(monkeypatch, Image.Image, "save", 3, OSError("No space left on device"))
    with (
        pytest.warns(UserWarning, match="checkpoint 4 cannot be written"),
        pytest.warns(UserWarning, match="the weights cannot be written"),
        pytest.warns(UserWarning, match="the samples cannot be written"),
    ):
        assert run("steps=5", "validate_every=2") == 0
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["0000002", "0000005"]
    assert [path.name for path in sorted((tmp_path / "run" / "samples").iterdir())] == [
        "0000000.png",
        "0000002.png",
        "0000005.png",
    ]
    FRFSR.from_pretrained(tmp_path / "run" / "weights")


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    resource = pytest.importorskip("resource")
    file, limits = tmp_path / "metrics.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    append(file, {"step": 1})
    whole = file.read_text()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, limits[1]))  # bytes that a file may have
    try:
        with pytest.raises(OSError, match="large"):
            append(file, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == whole


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stepz=3", "did you mean 'steps'"),
        ("shuffle=brutal", "shuffle must be one of none, easy, medium, hard"),
        ("crop=30", "multiple of 4"),
        ("steps", "KEY=VALUE"),
        ("data=", "data is not set"),
        ("lr=fast", "lr: should be a valid number"),
        ("steps=1.5", "steps: should be a valid integer"),
        ("flip_rotate=maybe", "flip_rotate: should be a valid boolean"),
        ("init={a: b", "the value is no YAML"),
        ("init=runs/rec/weights", "init: should be a valid dictionary"),
        ("batch=0", "batch: should be greater than or equal to 1, got 0"),
        ("log_every=0", "log_every: should be greater than or equal to 1"),
        ("workers=-1", "workers: should be greater than or equal to 0"),
        ("lr=.nan", "lr: should be a finite number"),
        ("own_share=1.5", "own_share: should be less than or equal to 1"),
        ("base_mix=[0.5, 0.1, 0.1]", "base_mix must be three shares that add up to 1"),
        ("reference_zoom=[1.7, 0.6]", "reference_zoom must be a range"),
    ],
)
def test_configuration_errors_say_what_to_do(config, setting, message):
    with pytest.raises(UserError, match=message):
        config(setting)


def test_numbers_without_a_decimal_point_are_numbers(config):
    settings = config("lr=1e-5", "lr_offset=[1e-4, 1e-5, 1e-6]")
    assert settings.lr == 1e-5
    assert settings.lr_offset == (1e-4, 1e-5, 1e-6)


def test_a_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("tiny_student", ["data=x", "out=y"]).stage == "student"
    with pytest.raises(UserError, match=r"no configuration 'tiny_rek': give a yaml file, or one of .*tiny_rec"):
        load_config("tiny_rek")


def test_a_network_is_built_by_architecture_and_preset():
    assert build_network({"preset": "tiny"}).config == FRFSRConfig.tiny()
    assert build_network({"architecture": "frfsr", "preset": "tiny", "reuse": True}).config.reuse
    for values, message in [
        ({"architecture": "frfsrr"}, "unknown architecture"),
        ({"architecture": "extractor"}, "only a part"),
        ({"preset": "large"}, "unknown preset 'large' of frfsr: use paper, published, tiny"),
    ]:
        with pytest.raises(UserError, match=message):
            build_network(values)


def test_unknown_model_key_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'groups'"):
        build_network({"preset": "tiny", "group": 2})


def test_samples_depend_on_their_number_alone(config):
    settings = config("steps=8", "shuffle_share=0.5", "unrelated_share=0.5")
    training, _ = load_training_pairs(settings)
    forwards, backwards = TrainingSamples(training, settings), TrainingSamples(training, settings)
    numbers = range(len(forwards))
    first = {i: forwards[i] for i in numbers}
    second = {i: backwards[i] for i in reversed(numbers)}
    for i in numbers:
        for name in ("lr", "upsampled", "hr", "reference"):
            assert torch.equal(first[i][name], second[i][name])
    assert any(not torch.equal(first[0]["hr"], first[i]["hr"]) for i in numbers)


def test_own_share_puts_the_enlarged_lr_image_in_the_references_place(config):
    settings = config("steps=2", "own_share=1", "shuffle=none", "flip_rotate=false", "unrelated_share=0")
    training, _ = load_training_pairs(settings)
    photos = [np.asarray(pair["input"]) for pair in training]
    enlarged = [to_tensor(degrade.upscale_bicubic(degrade.downscale(photo))) for photo in photos]
    reference = TrainingSamples(training, settings)[0]["reference"]
    assert any(torch.equal(reference, image) for image in enlarged)


def test_an_epoch_shows_every_pair_once(config):
    settings = config("steps=3", "crop=48", "flip_rotate=false", "shuffle=none", "unrelated_share=0")
    training, _ = load_training_pairs(settings)
    samples = TrainingSamples(training, settings)
    means = {round(samples[i]["hr"].mean().item(), 6) for i in range(len(training))}
    assert len(means) == len(training)


def test_rates_follow_the_published_groups_and_schedule():
    settings = TrainingConfig(data="x", out="y", lr=1.0, lr_offset=(0.5, 0.25, 0.125))
    model = FRFSR(FRFSRConfig.tiny())
    groups = parameter_groups(model, settings)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rate[id(model.aggregation.head.weight)] == 1.0
    assert rate[id(model.aggregation.fam_up_large.offset_conv1.weight)] == 0.5
    assert rate[id(model.aggregation.fam_down_medium.offset_mask.bias)] == 0.25
    assert rate[id(model.aggregation.fam_small.offset_conv2.weight)] == 0.125
    assert len(rate) == sum(parameter.requires_grad for parameter in model.parameters())
    assert [round(rate_factor(step, settings), 9) for step in (0, 72_545, 211_040)] == [1.0, 0.1, 0.01]
    cosine = TrainingConfig(data="x", out="y", schedule="cosine", warmup=10, steps=110)
    assert [round(rate_factor(step, cosine), 6) for step in (0, 9, 10, 60, 110)] == [0.1, 1.0, 1.0, 0.5, 0.0]


def test_a_short_run_exports_what_it_learned_not_where_it_began():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = Average(model, decay=0.999)
    torch.nn.init.ones_(model.weight)
    for _ in range(50):
        average.update_parameters(model)
    assert average.module.weight.item() > 0.99
    torch.nn.init.zeros_(model.weight)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1 - 9 / 60, abs=0.02)  # 1 - 0.15
