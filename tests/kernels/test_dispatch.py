"""Which form serves a call, and when a call goes through PyTorch's operator machinery."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from frfsr import kernels
from frfsr.kernels import _dispatch, flow_warp, patch_argmax, warp
from frfsr.kernels._dispatch import TABLE, form_for

FEATURE, FLOW = torch.rand(1, 3, 5, 6), torch.zeros(1, 5, 6, 2)


@pytest.mark.parametrize(
    ("operation", "device", "dtype", "form"),
    [
        ("flow_warp", "cpu", torch.float32, "cpu"),
        ("flow_warp", "cpu", torch.float64, "cpu"),
        ("deform_conv", "cuda:1", torch.bfloat16, "triton"),
        ("refine_flow", "cuda:0", torch.float32, "triton"),
        ("flow_warp", "cuda:0", torch.float64, "reference"),
        ("patch_argmax", "cuda:0", torch.float64, "cpu"),
        ("refine_flow", "mps", torch.float32, "cpu"),
        ("dynamic_filter", "mps", torch.float32, "reference"),
    ],
)
def test_table(monkeypatch: pytest.MonkeyPatch, operation: str, device: str, dtype: torch.dtype, form: str) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(_dispatch, "_triton_is_installed", lambda: True)

    class Placed:
        pass

    tensor = Placed()
    tensor.device, tensor.dtype = torch.device(device), dtype
    assert form_for(operation, tensor) == form
    with kernels.use("reference"):
        assert form_for(operation, tensor) == "reference"


def test_interpreter_serves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(_dispatch, "_triton_is_installed", lambda: True)
    assert form_for("flow_warp", FEATURE) == "triton"
    assert form_for("flow_warp", FEATURE.double()) == "cpu"
    monkeypatch.setattr(_dispatch, "_triton_is_installed", lambda: False)
    assert form_for("flow_warp", FEATURE) == "cpu"


def test_every_row_says_why() -> None:
    assert all(rule.why for rule in TABLE)


def test_other_functions_take_an_operations_place() -> None:
    def identity(feature: Tensor, flow: Tensor) -> Tensor:
        return feature

    with kernels.use({"flow_warp": identity}):
        assert flow_warp(FEATURE, flow=FLOW + 1) is FEATURE
        assert patch_argmax(FEATURE, FEATURE)[1][0, 0, 0] == 0  # not named: as ever
        with kernels.use("reference"):
            assert not torch.equal(flow_warp(FEATURE, FLOW + 1), FEATURE)
        assert flow_warp(FEATURE, FLOW) is FEATURE
    assert flow_warp(FEATURE, FLOW) is not FEATURE


def test_an_error_ends_the_choice() -> None:
    with pytest.raises(ZeroDivisionError), kernels.use("reference"):
        assert 1 / 0
    assert form_for("flow_warp", FEATURE.double()) == "cpu"


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="stock"), kernels.use("stock"):
        pass


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list:
    """Arguments of the calls that go through the operator flow_warp is registered as."""
    calls, operator = [], warp._flow_warp.registered
    monkeypatch.setattr(warp._flow_warp, "registered", lambda *args: calls.append(args) or operator(*args))
    return calls


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_plain_inference_calls_the_form_itself(registered: list, context) -> None:
    with context():
        flow_warp(FEATURE, FLOW)
        with torch.no_grad():
            flow_warp(torch.nn.Parameter(FEATURE), FLOW)
    assert not registered


def test_whoever_takes_part_in_a_call_sees_the_operator(registered: list) -> None:
    def called(function) -> bool:
        registered.clear()
        function()
        return bool(registered)

    def under(context) -> None:
        with context:
            flow_warp(FEATURE, FLOW)

    assert called(lambda: flow_warp(FEATURE.clone().requires_grad_(), FLOW).sum().backward())
    assert called(lambda: under(FlopCounterMode(display=False)))
    assert called(lambda: under(torch.device("cpu")))  # a mode over functions
    assert called(lambda: flow_warp(FEATURE.to("meta"), FLOW.to("meta")))
    with torch._subclasses.FakeTensorMode() as mode:
        fake = [mode.from_tensor(tensor) for tensor in (FEATURE, FLOW)]
    assert called(lambda: flow_warp(*fake))


def test_graphs_hold_the_operator() -> None:
    class Warp(torch.nn.Module):
        def forward(self, feature: Tensor, flow: Tensor) -> Tensor:
            return flow_warp(feature, flow)

    exported = torch.export.export(Warp(), (FEATURE, FLOW))
    assert torch.ops.frfsr.flow_warp.default in {node.target for node in exported.graph.nodes}
    traced = torch.jit.trace(Warp(), (FEATURE, FLOW), check_trace=False)
    assert "frfsr::flow_warp" in str(traced.graph)


def test_one_photo_needs_no_compiler_and_no_data_sets(tmp_path) -> None:
    """Each of these takes longer to import than a small photo to enlarge."""
    program = """
import sys
from PIL import Image
from frfsr.cli import main
photo, sharp, out = sys.argv[1:]
Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(photo)
Image.radial_gradient("L").resize((128, 96)).convert("RGB").save(sharp)
assert main(["upscale", photo, "--reference", sharp, "-o", out, "--device", "cpu"]) == 0
heavy = ("torch._dynamo", "torch._inductor", "torchvision", "datasets", "pandas", "accelerate", "scipy", "matplotlib")
print(*(name for name in heavy if name in sys.modules))
"""
    files = [str(tmp_path / name) for name in ("photo.png", "sharp.png", "out.png")]
    command = [sys.executable, "-c", program, *files]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert (tmp_path / "out.png").exists()
    assert result.stdout.splitlines()[-1] == ""
