"""`checkpointing` and `compile`: the same gradients and losses in other ways."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import frfsr.recipes.train as recipe
from frfsr.network import Network
from frfsr.recipes.setup import build_network, checkpoint_stages


@pytest.fixture
def losses(training_pairs, small_training, tmp_path):
    """losses(settings...): L1 of the steps of a short run of stage rec."""

    def losses(*settings: str) -> list[float]:
        out = tmp_path / "-".join(settings)
        run = [f"data={training_pairs}", f"out={out}", "crop=32", "reference_side=48", "init={}", "frozen=[]"]
        start = ["--config", "tiny_rec", *small_training, *run, "steps=2", "validate_every=100"]
        assert recipe.main([*start, *settings]) == 0
        lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
        return [line["l1"] for line in lines if "l1" in line]

    return losses


def test_checkpointed_and_compiled_runs_have_the_same_losses(losses, monkeypatch):
    expected = losses("seed=0")
    assert losses("checkpointing=true") == pytest.approx(expected, rel=1e-5)
    compiled = []
    eager = partial(torch.compile, backend=lambda graph, _: compiled.append(graph) or graph.forward)
    monkeypatch.setattr(torch, "compile", eager)
    assert losses("compile=true") == pytest.approx(expected, rel=1e-5)
    assert compiled


@pytest.mark.parametrize("reuse", [False, True])
def test_checkpointed_stages_keep_less_and_have_the_same_gradients(reuse):
    plain, checkpointed = (kept_and_gradients(reuse, change) for change in (lambda network: None, checkpoint_stages))
    assert checkpointed[0] < 0.7 * plain[0]
    assert checkpointed[1].keys() == plain[1].keys()
    torch.testing.assert_close(checkpointed[1], plain[1])


def kept_and_gradients(reuse: bool, change: Callable[[Network], None]) -> tuple[int, dict[str, torch.Tensor]]:
    """How many numbers a network keeps for its gradients outside of checkpoints, and the gradients."""
    torch.manual_seed(0)
    network = build_network({"preset": "tiny", "channels": (8, 8, 8), "texture_channels": (8, 8, 8), "reuse": reuse})
    change(network)
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        image = network(torch.rand(1, 3, 8, 12), torch.rand(1, 3, 32, 48)).image
    image.square().sum().backward()
    return sum(kept), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
