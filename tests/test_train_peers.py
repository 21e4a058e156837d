"""The recipes train every architecture: other networks than FRFSR, with and without feature reuse."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import frfsr.recipes.train as recipe
import frfsr.recipes.train_matching as matching_recipe
from frfsr.recipes.config import RECIPES, MatchingConfig, load_config
from frfsr.recipes.setup import build_network

SHORT = ["crop=48", "reference_side=64", "held_back=1", "batch=2", "workers=0", "steps=2", "warmup=0", "log_every=1"]


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_every_recipe_describes_a_network_that_there_is(name):
    config = load_config(name, ["data=x", "out=y"])
    assert isinstance(config, MatchingConfig) == (config.stage in ("teacher", "student"))
    assert config.validate_every <= config.steps
    with torch.device("meta"):
        assert build_network(config.model).config.reuse == (config.stage == "all")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "frozen"), [("masa", ()), ("c2", ("encoder.", "pyramid."))])
def test_rec_then_all_with_reuse(training_pairs, vgg16, tmp_path, name, frozen):
    run = [*SHORT, f"data={training_pairs}"]
    assert recipe.main(["--config", f"tiny_{name}", *run, f"out={tmp_path / 'rec'}"]) == 0
    init = f"init={{all: {tmp_path / 'rec' / 'weights'}}}"
    vgg = ["perceptual=vgg16", f"perceptual_weights={vgg16}"]
    assert recipe.main(["--config", f"tiny_{name}_all", *run, *vgg, init, f"out={tmp_path / 'all'}"]) == 0
    rec, both = (weights(tmp_path / stage) for stage in ("rec", "all"))
    for part in frozen:
        assert all(torch.equal(both[key], rec[key]) for key in rec if key.startswith(part))
    first = [key for key in both if key.startswith("aggregation.first.")]
    assert first
    assert all(torch.equal(both[key], rec[key.replace("aggregation.first.", "aggregation.")]) for key in first)
    assert any(
        not torch.equal(both[key], both[key.replace(".first.", ".second.", 1)]) for key in first if key.endswith("bias")
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "weights" / "model.safetensors")


def test_a_network_without_a_texture_encoder_is_not_trained_to_match(training_pairs, tmp_path, capsys):
    arguments = ["--config", "tiny_student", f"data={training_pairs}", f"out={tmp_path}", "held_back=1"]
    assert matching_recipe.main([*arguments, "model={architecture: masa, preset: tiny}"]) == 2
    assert "masa has no texture encoder that is trained apart" in capsys.readouterr().err
