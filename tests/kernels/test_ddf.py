"""dynamic_filter: forward and all gradients in every implementation, with and without filter normalisation."""

from pathlib import Path

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from frfsr.kernels import ddf, dynamic_filter
from frfsr.kernels.ddf import FilterNorm, dynamic_filter_reference, normalise_filter

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCES = [  # dtype, atol, rtol, both times the largest value expected
    (torch.float32, 2e-6, 2e-6),
    (torch.float16, 2e-3, 2e-3),
    (torch.bfloat16, 1e-2, 1e-2),
]
SHAPES = [  # batch, channels, height, width, side of the filters
    (2, 5, 7, 11, 3),
    (3, 17, 1, 13, 3),
    (1, 1, 1, 1, 3),
    (1, 67, 3, 11, 3),
    (2, 4, 6, 5, 5),
    (1, 3, 4, 2, 1),
]

pytestmark = pytest.mark.usefixtures("poisoned")


def inputs(shape: tuple[int, ...], norm: bool, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list:
    """x, channel, spatial and, with ``norm``, the four parameters of the filter normalisation."""
    batch, channels, height, width, side = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = [(batch, channels, height, width), (batch, channels, side, side), (batch, side**2, height, width)]
    tensors = [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]
    if norm:
        sizes = [(channels, side, side), (channels, side, side), (side**2,), (side**2,)]
        tensors += [torch.randn(size, generator=generator).to(device) for size in sizes]
    return tensors


def ours(x, channel, spatial, *norm):
    return dynamic_filter(x, channel, spatial, FilterNorm(*norm) if norm else None)


def reference(x, channel, spatial, *norm):
    if norm:
        channel = normalise_filter(channel, norm[0], norm[1], dim=(-2, -1))
        spatial = normalise_filter(spatial, norm[2][:, None, None], norm[3][:, None, None], dim=1)
    return dynamic_filter_reference(x, channel, spatial)


def results(function, tensors: list[torch.Tensor], grad: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients on the CPU in float64."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return [tensor.detach().double().cpu() for tensor in (out, *torch.autograd.grad(out, leaves, grad.to(out)))]


def check(tensors: list[torch.Tensor], atol: float, rtol: float) -> None:
    grad = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1)).to(tensors[0])
    expected = results(reference, [tensor.double().cpu() for tensor in tensors], grad.double().cpu())
    for actual, true in zip(results(ours, tensors, grad), expected, strict=True):
        torch.testing.assert_close(actual, true, atol=atol * max(1e-30, true.abs().max().item()), rtol=rtol)


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "order"), [(False, torch.channels_last), (True, torch.contiguous_format)])
@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
def test_values_and_gradients(device, dtype, atol, rtol, order, norm, shape):
    if norm and shape[-1] == 1:
        pytest.skip("a single tap has no deviation")
    x, *others = inputs(shape, norm, device, dtype)
    check([x.contiguous(memory_format=order), *others], atol, rtol)


def test_layout_is_kept(device):
    for order in (torch.contiguous_format, torch.channels_last):
        x, channel, spatial = inputs((2, 5, 7, 6, 3), False, device)
        x = x.contiguous(memory_format=order).requires_grad_()
        out = dynamic_filter(x, channel, spatial)
        assert out.is_contiguous(memory_format=order)
        assert torch.autograd.grad(out.sum(), x)[0].is_contiguous(memory_format=order)


def test_slices_are_taken_as_they_are(device):
    x, channel, spatial = inputs((2, 6, 9, 12, 3), False, device)
    check([x[:, ::2, 1:, ::3], channel[:, ::2].transpose(2, 3), spatial[..., 1:, ::3]], 2e-6, 2e-6)


@pytest.mark.parametrize("magnitude", [1e-12, 1e12])
def test_any_magnitude(device, magnitude):
    x, channel, spatial = inputs((1, 3, 5, 7, 3), False, device)
    check([magnitude * x, channel, spatial / magnitude], 2e-6, 2e-6)


def test_not_a_number_stays_local(device):
    x, channel, spatial = inputs((1, 2, 7, 8, 3), False, device)
    x[0, 1, 3, 4] = torch.nan
    broken = dynamic_filter(x, channel, spatial).isnan()
    expected = torch.zeros(1, 2, 7, 8, dtype=torch.bool)
    expected[0, 1, 2:5, 3:6] = True
    assert torch.equal(broken.cpu(), expected)


def test_constant_filters_normalise_to_the_shift(device):
    x, channel, spatial, *norm = inputs((1, 3, 5, 6, 3), True, device)
    leaves = [x, torch.ones_like(channel), torch.ones_like(spatial), *norm]
    out, *gradients = results(ours, leaves, torch.ones_like(x))
    spatial_shift = rearrange(norm[3], "k -> 1 k 1 1").expand_as(spatial)
    expected = dynamic_filter_reference(x, norm[1][None], spatial_shift)
    torch.testing.assert_close(out, expected.double().cpu(), atol=1e-5, rtol=1e-5)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("case", ["small", "fast_path"])
def test_published_dynamic_filter(device, case):
    golden = {
        name.removeprefix(f"{case}."): tensor for name, tensor in load_file(GOLDEN / "06_ddf_op_a.safetensors").items()
    }
    tensors = [golden[name].to(device) for name in ("x", "channel_filter", "spatial_filter")]
    names = ("out", "grad_x", "grad_channel_filter", "grad_spatial_filter")
    for actual, name in zip(results(ours, tensors, golden["grad_out"]), names, strict=True):
        true = golden[name].double()
        torch.testing.assert_close(actual, true, atol=1e-5 * true.abs().max().item(), rtol=0)


def test_published_filter_norm():
    golden = load_file(GOLDEN / "06_filter_norm_a.safetensors")
    gain = 2**0.5 / 3
    spatial = normalise_filter(golden["spatial.x"], torch.tensor(gain), torch.tensor(0.0), dim=1)
    torch.testing.assert_close(spatial, golden["spatial.out"], atol=1e-5, rtol=0)
    taps = rearrange(golden["channel.x"], "b (c k) 1 1 -> b c k", k=9)
    channel = normalise_filter(taps, torch.tensor(gain), torch.tensor(0.0), dim=2)
    torch.testing.assert_close(rearrange(channel, "b c k -> b (c k)"), golden["channel.out"], atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 9)] * 2, st.sampled_from([1, 3, 5])))
def test_identity_and_shift(shape):
    x, channel, spatial = inputs(shape, False)
    side = shape[-1]
    centre = torch.zeros(side, side)
    centre[side // 2, side // 2] = 1
    ones = torch.ones_like(spatial)
    assert torch.equal(dynamic_filter(x, centre.expand_as(channel), ones), x)
    depthwise = torch.nn.functional.conv2d(x[:1], channel[0, :, None], padding=side // 2, groups=shape[1])
    torch.testing.assert_close(dynamic_filter(x[:1], channel[:1], ones[:1]), depthwise, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_gradients_are_those_of_the_forward(norm):
    tensors = [tensor.double().requires_grad_() for tensor in inputs((2, 2, 3, 4, 3), norm)]
    assert torch.autograd.gradcheck(ours, tensors)


@pytest.mark.parametrize("norm", [False, True])
def test_operator_is_registered_correctly(norm):
    x, channel, spatial, *parameters = [tensor.requires_grad_() for tensor in inputs((2, 3, 5, 6, 3), norm)]
    scale, shift = parameters[2:] if norm else (None, None)
    torch.library.opcheck(torch.ops.frfsr.dynamic_filter.default, (x, channel, spatial, scale, shift))
    arguments = [tensor.detach() for tensor in (x, x, channel, spatial)]
    torch.library.opcheck(torch.ops.frfsr.dynamic_filter_backward.default, arguments)


def test_works_under_compile_and_autocast(device):
    tensors = inputs((1, 3, 6, 5, 3), True, device)
    grad = torch.ones_like(tensors[0])
    expected = results(ours, tensors, grad)
    compiled = results(torch.compile(ours, backend="aot_eager", fullgraph=True), tensors, grad)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = results(ours, tensors, grad)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cast, expected, atol=1e-5, rtol=1e-5)


def test_filters_may_be_wider_than_the_features(device):
    x, channel, spatial = inputs((1, 3, 6, 5, 3), False, device)
    out = dynamic_filter(x.half(), channel, spatial)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out, dynamic_filter(x.half().float(), channel, spatial).half(), atol=1e-3, rtol=1e-3)


def test_reference_can_be_forced(monkeypatch):
    called = []
    monkeypatch.setattr(
        ddf, "dynamic_filter_reference", lambda *args: called.append(1) or dynamic_filter_reference(*args)
    )
    monkeypatch.setenv("FRFSR_KERNELS", "reference")
    dynamic_filter(*inputs((1, 2, 4, 5, 3), False))
    assert called


@pytest.mark.parametrize(
    ("channel", "spatial", "message"),
    [
        ((1, 2, 2, 2), (1, 4, 5, 6), "k odd"),
        ((1, 3, 3, 3), (1, 9, 5, 6), "channel must be"),
        ((1, 2, 3, 3), (1, 9, 6, 5), "spatial must be"),
    ],
)
def test_misfits_are_refused(channel, spatial, message):
    with pytest.raises(ValueError, match=message):
        dynamic_filter(torch.zeros(1, 2, 5, 6), torch.zeros(channel), torch.zeros(spatial))


@pytest.mark.compile_only
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_compiles_without_spills(compile_kernel, target, dtype, channels_last):
    triton_ddf = pytest.importorskip("frfsr.kernels._ddf_triton")
    common = {"ALL_CHANNELS": 64, "SIDE": 3, "CHANNELS_LAST": channels_last}
    block_c, block_p, num_warps = triton_ddf.CHANNELS_LAST_BLOCK if channels_last else triton_ddf.CONTIGUOUS_BLOCK
    pointers = dict.fromkeys(("x", "channel", "spatial", "out"), dtype)
    for transposed in (False, True):
        pointers |= dict.fromkeys(("scale", "shift"), None if transposed else torch.float32)  # gradients need no norm
        constants = common | {"TRANSPOSED": transposed, "BLOCK_C": block_c, "BLOCK_P": block_p}
        compile_kernel(triton_ddf.filter_kernel, target, pointers, constants, num_warps)

    block_c, block_p, num_warps = (
        triton_ddf.CHANNELS_LAST_GRADIENT_BLOCK if channels_last else triton_ddf.CONTIGUOUS_GRADIENT_BLOCK
    )
    pointers = dict.fromkeys(("grad", "x", "channel", "spatial", "grad_spatial"), dtype)
    pointers["grad_channel"] = torch.float32
    constants = common | {"PADDED_TAPS": 16, "BLOCK_C": block_c, "BLOCK_P": block_p}
    compile_kernel(triton_ddf.filter_gradient_kernel, target, pointers, constants, num_warps)
