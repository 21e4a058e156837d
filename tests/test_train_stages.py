"""Every training stage for 20 steps on generated photos, in the order of the paper's chain, and what may go wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

import frfsr.recipes.guard as guard
import frfsr.recipes.train as recipe
import frfsr.recipes.train_matching as matching_recipe
from frfsr import FRFSR
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.samples import TrainingSamples
from frfsr.recipes.setup import initialise

RECIPES = Path(recipe.__file__).parent
CROP = "crop=32", "reference_side=64"
SIZES = "size=96", "jitter=4"  # smaller views have too few matches to learn from
FEW = "model.blocks=[1,1,1]", "model.dynamic_blocks=[1,1,1]", "model.sife_blocks=1"
PAPER = *FEW, "held_back=1", "steps=2"  # the paper's widths


@pytest.fixture(scope="module")
def run(training_pairs, short_training, small_training) -> Callable[..., int]:
    """run(module, recipe, out, settings...): a short run; a tiny recipe's network is made smaller still."""

    def run(module: ModuleType, config: str, out: Path, *settings: str) -> int:
        start = small_training if config.startswith("tiny") else short_training
        place = f"data={training_pairs}", f"out={out}"
        return module.main(["--config", str(RECIPES / config), *place, *start, *settings])

    return run


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "weights" / "model.safetensors")


def logged(out: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def assert_trained(out: Path, loss: str, steps: int) -> None:
    values = logged(out, loss)
    assert len(values) == steps
    assert all(map(math.isfinite, values))
    assert all(value > 0 for value in logged(out, "peak_memory"))
    FRFSR.from_pretrained(out / "weights")


@pytest.fixture(scope="module")
def teacher(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "teacher"
    assert run(matching_recipe, "tiny_teacher.yaml", out, *SIZES, "steps=20") == 0
    return out


@pytest.fixture(scope="module")
def student(run, teacher) -> Path:
    out = teacher.parent / "student"
    settings = [f"teacher={teacher / 'weights'}", "steps=20"]
    assert run(matching_recipe, "tiny_student.yaml", out, *SIZES, *settings) == 0
    return out


@pytest.fixture(scope="module")
def sife(run, teacher) -> Path:
    out = teacher.parent / "sife"
    assert run(recipe, "tiny_sife.yaml", out, "crop=32", "steps=20") == 0
    return out


@pytest.fixture(scope="module")
def rec(run, student, sife) -> Path:
    out = student.parent / "rec"
    init = f"init={{encoder: {student / 'weights'}, sife: {sife / 'weights'}}}"
    assert run(recipe, "tiny_rec.yaml", out, *CROP, init, "frozen=[sife]", "steps=20") == 0
    return out


def all_stage(rec: Path, vgg16: Path) -> list[str]:
    return [*CROP, f"init={{all: {rec / 'weights'}}}", "perceptual=vgg16", f"perceptual_weights={vgg16}"]


def test_teacher_and_student(teacher, student):
    for out in (teacher, student):
        assert_trained(out, "loss", 20)
        assert max(logged(out, "matching")) > 0
        assert len(logged(out, "match_error")) == 2  # before and after
        assert [picture.name for picture in sorted((out / "samples").iterdir())] == ["0000000.png", "0000020.png"]
    assert not logged(teacher, "distillation")
    assert len(logged(student, "distillation")) == 20
    assert "teacher" in json.loads((student / "checkpoints" / "0000020" / "pretrained.json").read_text())


def test_separate_encoders_both_learn(run, tmp_path):
    settings = [*SIZES, "model.shared_encoder=false", "teacher=null", "steps=2"]
    assert run(matching_recipe, "tiny_student.yaml", tmp_path / "still", *settings, "lr=0.0") == 0
    assert run(matching_recipe, "tiny_student.yaml", tmp_path / "run", *settings) == 0
    initial, trained = weights(tmp_path / "still"), weights(tmp_path / "run")
    for encoder in ("encoder.", "reference_encoder."):
        names = [name for name in trained if name.startswith(encoder)]
        assert names
        assert any(not torch.equal(initial[name], trained[name]) for name in names)


@pytest.mark.parametrize("encoders", [["encoder"], ["encoder", "reference_encoder"]])
def test_the_papers_encoders_start_from_vgg16(run, vgg16, tmp_path, monkeypatch, encoders):
    """Teacher and student of the paper's widths, from a file under torchvision's names."""
    monkeypatch.setattr(matching_recipe, "VALIDATION_VIEWS", 1)
    init = ", ".join(f"{part}: {vgg16}" for part in encoders)
    settings = [*PAPER, *SIZES, f"model.shared_encoder={len(encoders) == 1}", f"init={{{init}}}"]
    assert run(matching_recipe, "frfsr_teacher.yaml", tmp_path / "teacher", *settings) == 0
    settings.append(f"teacher={tmp_path / 'teacher' / 'weights'}")
    assert run(matching_recipe, "frfsr_student.yaml", tmp_path / "student", *settings) == 0
    initial = load_file(vgg16)["features.10.weight"]
    for out in (tmp_path / "teacher", tmp_path / "student"):
        for part in encoders:
            change = (weights(out)[f"{part}.conv3_1.weight"] - initial).abs().max()
            assert 0 < change < 2.1e-3  # two of Adam's steps


@pytest.mark.slow
def test_the_papers_rec_and_all(run, vgg16, tmp_path):
    init = f"init={{encoder: {vgg16}, pyramid: {vgg16}}}"
    assert run(recipe, "frfsr_rec.yaml", tmp_path / "rec", *PAPER, *CROP, init) == 0
    assert run(recipe, "frfsr_all.yaml", tmp_path / "all", *PAPER, *all_stage(tmp_path / "rec", vgg16)) == 0
    assert_trained(tmp_path / "rec", "l1", 2)
    assert_trained(tmp_path / "all", "critic", 2)


def test_sife_and_rec(student, sife, rec):
    for out in (sife, rec):
        assert_trained(out, "l1", 20)
    trained, encoder, single = weights(rec), weights(student), weights(sife)
    for name, value in trained.items():
        if name.startswith("encoder."):
            assert torch.equal(value, encoder[name]), name
        if name.startswith("sife."):
            assert torch.equal(value, single[name]), name


def test_sife_trains_a_base_network_beside_what_feeds_it(run, sife, tmp_path):
    settings = ["model.base=own", "model.base_fed=true", f"init={{sife: {sife / 'weights'}}}", "crop=32", "steps=3"]
    assert run(recipe, "tiny_sife.yaml", tmp_path / "fed", *settings) == 0
    assert_trained(tmp_path / "fed", "l1", 3)
    feeding, trained = weights(sife), weights(tmp_path / "fed")
    assert trained["base.conv_fed.weight"].any()
    assert all(torch.equal(value, feeding[name]) for name, value in trained.items() if name.startswith("sife."))


@pytest.mark.slow
@pytest.mark.parametrize(("reuse", "critic"), [(True, "wgan"), (False, "published")])
def test_all_losses(run, rec, vgg16, tmp_path, reuse, critic):
    changes = [f"model.reuse={str(reuse).lower()}", f"critic={critic}", "steps=5"]
    assert run(recipe, "tiny_all.yaml", tmp_path / "all", *all_stage(rec, vgg16), *changes) == 0
    assert_trained(tmp_path / "all", "critic", 5)
    assert len(logged(tmp_path / "all", "perceptual")) == 5
    before, after = weights(rec), weights(tmp_path / "all")
    first = {name: name.replace("aggregation.", "aggregation.first.") if reuse else name for name in before}
    changed = {name for name in before if not torch.equal(before[name], after[first[name]])}
    if reuse:
        assert not changed
        continued = [name for name in after if name.startswith("aggregation.second.tail")]
        assert all(not torch.equal(after[name], before[name.replace("second.", "")]) for name in continued)
    else:
        assert changed
        assert all(name.startswith("aggregation.") for name in changed)
    recorded = json.loads((tmp_path / "all" / "checkpoints" / "0000005" / "pretrained.json").read_text())
    assert recorded.keys() == {"all", "vgg16"}


def test_reuse_meets_the_same_critic(run, rec, vgg16, tmp_path):
    """The second network starts as the first, so that the first losses differ only if the critics do."""
    first = {}
    for reuse in ("true", "false"):
        out, settings = tmp_path / reuse, [*all_stage(rec, vgg16), "steps=1", f"model.reuse={reuse}"]
        assert run(recipe, "tiny_all.yaml", out, *settings) == 0
        first[reuse] = [logged(out, term)[0] for term in ("l1", "critic", "adversarial")]
    assert first["true"] == pytest.approx(first["false"], rel=1e-4)


def test_frozen_networks_infer_only(rec):
    config = TrainingConfig(data="x", out="y", stage="all", init={"all": str(rec / "weights")})
    network = FRFSR.from_pretrained(rec / "weights").config
    network.reuse = True
    model = FRFSR(network)
    assert initialise(model, config)["all"]
    for name, part in model.named_children():
        trained = name == "aggregation"
        assert part.training == trained, name
        second = part.second if trained else part
        assert all(parameter.requires_grad == trained for parameter in second.parameters()), name
    assert not model.aggregation.first.training
    assert not any(parameter.requires_grad for parameter in model.aggregation.first.parameters())


def test_frozen_networks_are_stored_once(rec):
    averaged = torch.load(rec / "checkpoints" / "0000020" / "custom_checkpoint_0.pkl", weights_only=True)
    assert any(name.startswith("module.aggregation.") for name in averaged)
    assert not any(name.startswith(("module.encoder.", "module.sife.")) for name in averaged)


def test_accumulated_gradients_are_those_of_the_whole_batch(run, tmp_path):
    settings = [*CROP, "init={}", "frozen=[]", "batch=4", "steps=3"]
    for accumulate in (1, 2):
        assert run(recipe, "tiny_rec.yaml", tmp_path / str(accumulate), *settings, f"accumulate={accumulate}") == 0
    whole, halves = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name in whole:
        torch.testing.assert_close(whole[name], halves[name], rtol=0, atol=1e-4)


def spoil(monkeypatch, samples: set[int]) -> None:
    """Let the truth of these samples be NaN."""
    intact = TrainingSamples.__getitem__

    def spoilt(self, i: int) -> dict[str, torch.Tensor]:
        sample = intact(self, i)
        return sample | {"hr": sample["hr"] * math.nan} if i in samples else sample

    monkeypatch.setattr(TrainingSamples, "__getitem__", spoilt)


def test_a_step_with_nan_is_skipped_and_counted(run, tmp_path, monkeypatch):
    spoil(monkeypatch, {3})
    assert run(recipe, "tiny_rec.yaml", tmp_path / "run", *CROP, "init={}", "frozen=[]", "steps=3") == 0
    assert logged(tmp_path / "run", "skipped") == [0, 1, 1]
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_a_run_of_nan_stops_with_advice(run, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, set(range(8)))
    monkeypatch.setattr(guard, "SKIPPED_LIMIT", 2)
    assert run(recipe, "tiny_rec.yaml", tmp_path / "run", *CROP, "init={}", "frozen=[]", "steps=4") == 2
    assert "3 steps had NaN or infinite losses or gradients, or offsets above offset_limit" in capsys.readouterr().err


def test_exploded_offsets_are_skipped(run, tmp_path):
    settings = [*CROP, "init={}", "frozen=[]", "steps=3", "offset_limit=1e-9"]
    assert run(recipe, "tiny_rec.yaml", tmp_path / "run", *settings) == 0
    assert logged(tmp_path / "run", "skipped") == [0, 0, 1]  # the first step trains the zero tail alone


def test_exploded_offsets_are_no_fault_of_the_critic(run, rec, vgg16, tmp_path, capsys):
    settings = [*all_stage(rec, vgg16), "steps=1", "offset_limit=1e-9"]
    assert run(recipe, "tiny_all.yaml", tmp_path / "run", *settings) == 2
    assert "1 of 1 steps were skipped" in capsys.readouterr().err
    assert logged(tmp_path / "run", "skipped") == [1]
    network, critic = (
        torch.load(tmp_path / "run" / "checkpoints" / "0000001" / file)["state"]
        for file in ("optimizer.bin", "optimizer_1.bin")
    )
    assert not network
    assert critic


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["init={}"], "give init={all: WEIGHTS}"),
        (["perceptual_weights=nowhere.safetensors"], "perceptual_weights: no model 'nowhere.safetensors'"),
        (["perceptual_weights=Makefile"], "perceptual_weights: Makefile"),
        (["perceptual=vgg19"], "has not all layers of vgg19"),
        (["init={all: nowhere}"], "init all: no model 'nowhere'"),
        (["init={sife: torchvision}"], "torchvision has no such network"),
        (["accumulate=3"], "accumulate (3) must divide batch (2)"),
        (["lr=fast"], "lr: should be a valid number"),
    ],
)
def test_mistakes_stop_before_the_first_step(run, rec, vgg16, tmp_path, capsys, settings, message):
    assert run(recipe, "tiny_all.yaml", tmp_path / "run", *all_stage(rec, vgg16), *settings) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
