"""bf16, and fp16: refused on a CPU, but tried here with PyTorch's scaler for CPUs, which accelerate leaves unused."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from torch import Tensor

import frfsr.recipes.guard as guard
import frfsr.recipes.train as recipe
import frfsr.recipes.train_matching as matching_recipe
from frfsr.errors import UserError

RECIPES = Path(recipe.__file__).parent


@pytest.fixture(autouse=True)
def other_precision():
    """accelerate keeps one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class HalfOnCPU(Accelerator):
    """What accelerate sets up for fp16 on a GPU."""

    first_scale, norms = 2.0**10, []

    def __init__(self, **options):
        super().__init__(**options)
        if self.mixed_precision == "fp16":
            self.native_amp = True
            self.scaler = torch.amp.GradScaler("cpu", init_scale=self.first_scale, backoff_factor=2.0**-30)

    def clip_grad_norm_(self, *arguments, **options) -> Tensor:
        norm = super().clip_grad_norm_(*arguments, **options)
        self.norms.append(norm.item())
        return norm


@pytest.fixture
def train_all(training_pairs, small_training, small_model_folder, vgg16, tmp_path, monkeypatch):
    """train_all(precision, settings...): the all stage's run folder."""
    monkeypatch.setattr(recipe, "Accelerator", HalfOnCPU)
    monkeypatch.setattr(HalfOnCPU, "norms", [])

    def train_all(precision: str, *settings: str) -> Path:
        AcceleratorState._reset_state()
        out = tmp_path / precision
        start = (
            f"init={{all: {small_model_folder}}}",
            "perceptual=vgg16",
            f"perceptual_weights={vgg16}",
            "crop=32",
            "reference_side=64",
        )
        run = f"data={training_pairs}", f"out={out}", f"mixed_precision={precision}"
        assert recipe.main(["--config", str(RECIPES / "tiny_all.yaml"), *small_training, *start, *run, *settings]) == 0
        return out

    return train_all


def logged(out: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize(("module", "config"), [(recipe, "tiny_rec.yaml"), (matching_recipe, "tiny_student.yaml")])
def test_fp16_on_a_cpu_stops_before_anything_is_written(module, config, training_pairs, tmp_path, capsys):
    out = tmp_path / "run"
    settings = [f"data={training_pairs}", f"out={out}", "init={}", "mixed_precision=fp16"]
    assert module.main(["--config", str(RECIPES / config), *settings]) == 2
    error = capsys.readouterr().err
    assert "mixed_precision=fp16 needs a GPU: on a CPU give bf16 or no" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_bfloat16_gives_the_losses_of_32_bits(train_all):
    whole, half = (train_all(precision, "steps=2") for precision in ("no", "bf16"))
    for name in ("l1", "perceptual", "adversarial", "critic"):
        assert logged(half, name) == pytest.approx(logged(whole, name), rel=0.03)
    assert logged(half, "l1") != logged(whole, "l1")


def test_gradients_are_unscaled_once_before_they_are_clipped(train_all):
    """Also those that the network has gathered when the critic takes its step."""
    runs = {precision: train_all(precision, "steps=2", "accumulate=2") for precision in ("no", "fp16")}
    norms = HalfOnCPU.norms
    assert len(norms) == 4
    assert norms[2:] == pytest.approx(norms[:2], rel=0.05)
    for name in ("l1", "perceptual", "critic"):
        assert logged(runs["fp16"], name) == pytest.approx(logged(runs["no"], name), rel=0.01)


def test_a_step_that_the_scaler_skips_changes_nothing_but_the_scale(train_all, monkeypatch):
    monkeypatch.setattr(HalfOnCPU, "first_scale", 2.0**40)
    out = train_all("fp16", "steps=2", "checkpoint_every=1")
    assert logged(out, "skipped") == [1, 1]
    first, second = out / "checkpoints" / "0000001", out / "checkpoints" / "0000002"
    assert_steps(first, network=0, critic=1)
    assert_steps(second, network=1, critic=2)
    assert torch.load(first / "scaler.pt")["scale"] == 2.0**10
    before, after = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def assert_steps(checkpoint: Path, network: int, critic: int) -> None:
    """How many steps each optimizer has taken; the averaged weights follow the network's."""
    for file, steps in (("optimizer.bin", network), ("optimizer_1.bin", critic)):
        states = torch.load(checkpoint / file)["state"].values()
        assert {int(state["step"]) for state in states} == ({steps} if steps else set())
    assert torch.load(checkpoint / "custom_checkpoint_0.pkl")["n_averaged"] == network


def test_gradients_without_any_good_scale_stop_the_run(monkeypatch):
    monkeypatch.setattr(guard, "SKIPPED_LIMIT", 2)
    monkeypatch.setattr(HalfOnCPU, "first_scale", 2.0**10)
    accelerator = HalfOnCPU(mixed_precision="fp16")
    model, optimizer = accelerator.prepare(layer := torch.nn.Linear(1, 1), torch.optim.SGD(layer.parameters()))
    watching = guard.Guard(accelerator)

    def step() -> None:
        accelerator.backward(watching.watch(model(torch.zeros(1, 1)).mul(0).sqrt().sum()))  # 0, with a gradient of NaN
        watching.step(optimizer, accelerator.clip_grad_norm_(layer.parameters(), 1.0))

    step()
    assert (watching.skipped, watching.unsound) == (1, 0)
    step()
    step()
    assert (watching.skipped, watching.unsound) == (3, 2)
    with pytest.raises(UserError, match="3 steps had NaN or infinite losses or gradients"):
        step()
