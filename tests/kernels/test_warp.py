"""flow_warp: forward and both gradients in every implementation."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from frfsr.kernels import flow_warp, warp
from frfsr.kernels.warp import flow_warp_reference

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCES = [  # dtype, atol, rtol
    (torch.float32, 5e-5, 1e-4),
    (torch.float16, 2e-3, 2e-3),
    (torch.bfloat16, 2e-2, 2e-2),
]
SHAPES = [  # batch, channels, feature height and width, flow height and width
    (2, 5, 7, 11, 7, 11),
    (3, 70, 1, 5, 3, 2),
    (1, 1, 1, 1, 1, 1),
    (1, 3, 23, 17, 29, 19),
    (2, 65, 5, 4, 1, 37),
]

pytestmark = pytest.mark.usefixtures("poisoned")


def inputs(shape: tuple[int, ...], device: str = "cpu", dtype: torch.dtype = torch.float32, reach: int = 4):
    """Feature, and flow that stays clear of whole numbers, where the interpolation has kinks."""
    batch, channels, h, w, height, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    feature = torch.randn(batch, channels, h, w, generator=generator)
    whole = torch.randint(-reach, reach + 1, (batch, height, width, 2), generator=generator)
    flow = whole + 0.1 + 0.8 * torch.rand(whole.shape, generator=generator)
    return feature.to(device, dtype), flow.to(device)


def results(warp_function, feature: torch.Tensor, flow: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients by feature and flow, each on the CPU in float64."""
    feature, flow = feature.detach().requires_grad_(), flow.detach().requires_grad_()
    out = warp_function(feature, flow)
    gradients = torch.autograd.grad(out, (feature, flow), grad.to(out))
    return [tensor.detach().double().cpu() for tensor in (out, *gradients)]


def check(feature: torch.Tensor, flow: torch.Tensor, atol: float, rtol: float) -> None:
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(len(feature), feature.shape[1], *flow.shape[1:3], generator=generator)
    actual = results(flow_warp, feature, flow, grad.to(feature))
    expected = results(
        flow_warp_reference, feature.double().cpu(), flow.double().cpu(), grad.to(feature).double().cpu()
    )
    for ours, true in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, true, atol=atol * max(1, true.abs().max().item()), rtol=rtol)


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
def test_values_and_gradients(device, dtype, atol, rtol, order, shape):
    feature, flow = inputs(shape, device, dtype)
    check(feature.contiguous(memory_format=order), flow, atol, rtol)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_layout_is_kept(device, order):
    feature, flow = inputs((2, 5, 7, 6, 4, 3), device)
    feature = feature.contiguous(memory_format=order).requires_grad_()
    out = flow_warp(feature, flow)
    assert out.is_contiguous(memory_format=order)
    assert torch.autograd.grad(out.sum(), feature)[0].is_contiguous(memory_format=order)


def test_slices_are_taken_as_they_are(device):
    feature, flow = inputs((2, 6, 9, 12, 8, 10), device)
    check(feature[:, ::2, 1:, ::3], flow[:, ::2, 1:], 5e-5, 1e-4)


def test_a_whole_flow_copies_pixels(device):
    feature, flow = inputs((2, 5, 8, 9, 8, 9), device, reach=9)
    flow = flow.floor()
    feature[0, :, 3] = torch.inf
    feature.requires_grad_()
    out = flow_warp(feature, flow)
    y, x = torch.meshgrid(torch.arange(8), torch.arange(9), indexing="ij")
    row, column = y + flow[..., 1].cpu().long(), x + flow[..., 0].cpu().long()
    inside = (row >= 0) & (row < 8) & (column >= 0) & (column < 9)
    assert 0.1 < inside.float().mean() < 0.9
    copies = torch.stack(
        [image[:, r.clamp(0, 7), c.clamp(0, 8)] for image, r, c in zip(feature.cpu(), row, column, strict=True)]
    )
    assert torch.equal(out.cpu(), copies.where(inside[:, None], 0))

    (grad,) = torch.autograd.grad(out, feature, torch.ones_like(out))
    hits = torch.zeros(2, 72).scatter_add_(1, (row * 9 + column).where(inside, 0).flatten(1), inside.float().flatten(1))
    assert torch.equal(grad.cpu(), hits.view(2, 1, 8, 9).expand(2, 5, 8, 9))


def test_positions_far_outside_are_zero(device):
    feature, flow = inputs((1, 3, 6, 5, 6, 5), device)
    for far in (1e4, -1e12, 3e38):
        for axis in (0, 1):
            moved = flow.clone()
            moved[..., axis] = far
            out, grad_feature, grad_flow = results(flow_warp, feature, moved, torch.ones(1, 3, 6, 5))
            assert not out.any()
            assert not grad_feature.any()
            assert not grad_flow.any()


def test_half_flow_is_widened(device):
    feature, flow = inputs((1, 3, 6, 5, 6, 5), device)
    assert torch.equal(flow_warp(feature, flow.half()), flow_warp(feature, flow.half().float()))


@pytest.mark.parametrize("scale", ["relu3_1", "relu2_1", "relu1_1"])
def test_published_warp(device, scale):
    golden = load_file(GOLDEN / "03_flow_warp_a.safetensors")
    feature, flow = golden[f"{scale}.x"].to(device), golden[f"{scale}.flow"].to(device)
    out, grad_feature, grad_flow = results(flow_warp, feature, flow, golden[f"{scale}.grad_out"])
    torch.testing.assert_close(out, golden[f"{scale}.out"].double(), atol=1e-4, rtol=0)
    for actual, name in ((grad_feature, "grad_x"), (grad_flow, "grad_flow")):
        expected = golden[f"{scale}.{name}"].double()
        torch.testing.assert_close(actual, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    whole = flow_warp(feature, golden[f"{scale}.flow_int"].to(device))
    torch.testing.assert_close(whole.cpu(), golden[f"{scale}.out_int"], atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), *[st.integers(1, 9)] * 5),
    seed=st.integers(0, 2**16),
    whole=st.booleans(),
)
def test_a_warp_is_linear_and_bounded(shape, seed, whole):
    generator = torch.Generator().manual_seed(seed)
    batch, channels, h, w, height, width = shape
    a, b = torch.randn(2, batch, channels, h, w, generator=generator)
    flow = 6 * torch.randn(batch, height, width, 2, generator=generator)
    flow = flow.round() if whole else flow
    torch.testing.assert_close(
        flow_warp(a + 2 * b, flow), flow_warp(a, flow) + 2 * flow_warp(b, flow), atol=1e-4, rtol=0
    )
    assert flow_warp(a, flow).abs().max() <= a.abs().max() * (1 + 1e-5)
    assert torch.equal(flow_warp(a, torch.zeros(batch, h, w, 2)), a)


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_those_of_the_forward(whole):
    feature, flow = inputs((2, 2, 3, 4, 4, 3), dtype=torch.float64)
    flow = flow.double().floor() if whole else flow.double().requires_grad_()
    assert torch.autograd.gradcheck(flow_warp, (feature.requires_grad_(), flow))


@pytest.mark.parametrize("needs_flow", [False, True])
def test_operator_is_registered_correctly(needs_flow):
    feature, flow = inputs((2, 3, 5, 6, 4, 7))
    arguments = (feature.requires_grad_(), flow.requires_grad_(needs_flow))
    torch.library.opcheck(torch.ops.frfsr.flow_warp.default, arguments)
    grad = torch.randn(2, 3, 4, 7)
    torch.library.opcheck(
        torch.ops.frfsr.flow_warp_backward.default, (grad, feature.detach(), flow.detach(), needs_flow)
    )


def test_works_under_compile_and_autocast(device):
    feature, flow = inputs((1, 3, 6, 5, 6, 5), device)
    grad = torch.ones(1, 3, 6, 5)
    expected = results(flow_warp, feature, flow, grad)
    compiled = results(torch.compile(flow_warp, backend="aot_eager", fullgraph=True), feature, flow, grad)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = results(flow_warp, feature, flow, grad)
    torch.testing.assert_close(compiled, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(cast, expected, atol=1e-6, rtol=0)


def test_reference_can_be_forced(monkeypatch):
    called = []
    monkeypatch.setattr(warp, "flow_warp_reference", lambda *args: called.append(1) or flow_warp_reference(*args))
    monkeypatch.setenv("FRFSR_KERNELS", "reference")
    feature, flow = inputs((1, 2, 4, 5, 6, 4))
    flow_warp(feature, flow.floor())
    assert called


@pytest.mark.parametrize(
    ("feature", "flow"),
    [((1, 2, 4, 4), (1, 4, 4, 3)), ((2, 4, 4), (1, 4, 4, 2)), ((1, 2, 4, 4), (2, 4, 4, 2))],
)
def test_misfits_are_refused(feature, flow):
    with pytest.raises(ValueError, match="flow_warp needs"):
        flow_warp(torch.zeros(feature), torch.zeros(flow))


@pytest.mark.compile_only
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_compiles_without_spills(compile_kernel, target, dtype, channels_last):
    from frfsr.kernels._warp_triton import CHANNELS_LAST_BLOCK, CONTIGUOUS_BLOCK, warp_backward_kernel, warp_kernel

    channels, pixels = CHANNELS_LAST_BLOCK if channels_last else CONTIGUOUS_BLOCK
    block = {"CHANNELS_LAST": channels_last, "BLOCK_C": channels, "BLOCK_P": pixels}
    compile_kernel(warp_kernel, target, {"feature": dtype, "flow": torch.float32, "out": dtype}, block)
    pointers = {"grad": dtype, "feature": dtype}
    pointers |= dict.fromkeys(("flow", "grad_feature", "grad_flow"), torch.float32)
    for needs_flow in (False, True):
        compile_kernel(warp_backward_kernel, target, pointers, block | {"NEEDS_FLOW": needs_flow})
