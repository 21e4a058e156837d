"""The published implementations' numbers for the peer networks, as ../shared/golden stores them.

`case = peer_case("20_ttsr_a")` is one case: `case["sr"]` a tensor, `case.state` the weights of its network under the
published keys, `case.states["net_extractor"]` those of a network of several parts. Tests that ask for a case skip
where that folder is missing. The errors of all comparisons are printed as a table at the end (tests/conftest.py).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from frfsr.states import Names

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
MANIFESTS = ("manifest_peers.json", "manifest.json")
MOVED = {"20_ttsr_b2": 3e-3}  # its first convolution by 1.1e-3 on a Xeon with AVX-512 and without AMX, in float32
PROBE_STRIDES = (slice(None), slice(None, None, 16), slice(None, None, 6), slice(None, None, 6))


@dataclass(frozen=True)
class PeerCase:
    """One case: its entry in the manifest, and what makes its weights."""

    name: str
    entry: dict[str, Any]
    golden_state_dict: Callable[[dict[str, list[int]], int], dict[str, Tensor]]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Inputs and expected results, float32 and int64, by name."""
        return load_file(GOLDEN / self.entry["file"])

    @cached_property
    def states(self) -> dict[str, dict[str, Tensor]]:
        """Weights under the published keys, by the name of the network's part; without its constants."""
        return {part["module"]: self._state(part) for part in self.entry["weights"]}

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights of a network that is one part."""
        (state,) = self.states.values()
        return state

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """Weights of a network that matches with the published extractor, by the names of its checkpoint files."""
        files = {"net_g": "net_g", "net_extractor": "extractor", "net_map": "vgg"}
        return {files[module]: state for module, state in self.states.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name].clone()

    def gradient_tolerance(self, dtype: torch.dtype) -> float:
        """Of the largest value: single elements move in float32, where a ReLU or clamp falls on its other side."""
        if dtype == torch.float64:
            return 2e-6
        return max(MOVED.get(self.name, 1e-3), 10 * self.entry.get("official_float32_gradient_error", 0))

    def _state(self, part: dict[str, Any]) -> dict[str, Tensor]:
        shapes, most = part["shapes"], None
        if isinstance(shapes, str):
            file, _, restriction = shapes.partition(" restricted to ")
            shapes = json.loads((GOLDEN / file).read_text())
            most = int(restriction.rpartition(" .. ")[2]) if restriction else None
        left_out = [re.compile(rule) for rule in part.get("constants", []) + part.get("drop", [])]
        blocks = re.compile(r"body\w*\.(\d+)\.")
        for key in list(shapes):
            block = blocks.search(key)
            if any(rule.search(key) for rule in left_out) or (most is not None and block and int(block[1]) > most):
                del shapes[key]
        state = self.golden_state_dict(shapes, part["seed"])
        for key, tensor in state.items():
            factors = (factor for text, factor in part.get("scale", []) if text in key)
            if tensor.dim() >= 2:
                tensor.mul_(next(factors, 1))
        return state


@pytest.fixture(scope="session")
def peer_case(golden_rule) -> Callable[[str], PeerCase]:
    """peer_case(name): a case of the published implementations; skips the test where they are not at hand."""

    @lru_cache(maxsize=1)  # tests run in both precisions one after the other
    def peer_case(name: str) -> PeerCase:
        for manifest in MANIFESTS:
            if not (GOLDEN / manifest).exists():
                pytest.skip(f"needs the published implementations' numbers in {GOLDEN}")
            cases = json.loads((GOLDEN / manifest).read_text())["cases"]
            if name in cases:
                return PeerCase(name, cases[name], golden_rule.golden_state_dict)
        raise KeyError(name)

    return peer_case


@pytest.fixture
def watch_probes(compare) -> Callable[..., list[str]]:
    """watch_probes(network, names, case): compare, at the next run, the intermediate results that the case has.

    names: our module -> published module, as `load_published` takes them. Only those are watched whose result is the
    published one: before any activation, so leave out the others with `without`. Gives the probes that are watched.
    """

    def watch_probes(network: nn.Module, names: Names, case: PeerCase, without: tuple[str, ...] = ()) -> list[str]:
        def watch(module: nn.Module, probe: str) -> None:
            def check(module: nn.Module, inputs: tuple, output: Tensor) -> None:
                compare(f"{case.name} {probe}", output[PROBE_STRIDES], case[f"probe.{probe}"])
                handle.remove()

            handle = module.register_forward_hook(check)

        modules = dict(network.named_modules())
        watched = {theirs: modules[ours] for ours, theirs in names.items() if f"probe.{theirs}" in case.tensors}
        for probe in without:
            watched.pop(probe, None)
        for probe, module in watched.items():
            watch(module, probe)
        return list(watched)

    return watch_probes


@pytest.fixture
def compare_gradients(compare) -> Callable[..., None]:
    """compare_gradients(network, case, dtype, names): the gradients that a case stores of some parameters.

    names: published name -> ours, or ours and the part that is stored.
    """

    def compare_gradients(
        network: nn.Module, case: PeerCase, dtype: torch.dtype, names: dict[str, str | tuple[str, Any]]
    ) -> None:
        for theirs, place in names.items():
            ours, part = (place, ...) if isinstance(place, str) else place
            gradient = network.get_parameter(ours).grad[part]
            compare(f"{case.name} grad.{theirs}", gradient, case[f"grad.{theirs}"], case.gradient_tolerance(dtype))

    return compare_gradients
