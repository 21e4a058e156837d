"""deform_conv: forward and all gradients in every implementation, with and without pre-offsets."""

import sys
from pathlib import Path

import pytest
import torch
from einops import repeat
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from frfsr.kernels import deform, deform_conv
from frfsr.kernels.deform import deform_conv_reference, tap_flows

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.append(str(GOLDEN))
from golden_weights import golden_state_dict  # noqa: E402

TOLERANCES = [  # layout, dtype, atol, rtol, both times the largest value expected
    (torch.contiguous_format, torch.float32, 1e-5, 1e-5),
    (torch.channels_last, torch.float32, 1e-5, 1e-5),
    (torch.channels_last, torch.float16, 3e-3, 3e-3),
    (torch.channels_last, torch.bfloat16, 2e-2, 2e-2),
]
SHAPES = [  # batch, groups, channels of a group, outputs, x's height and width, the flow's, flow scale, match padding
    (2, 2, 3, 5, 7, 11, 3, 5, 2, "valid"),
    (1, 1, 3, 4, 9, 8, 3, 2, 4, "same"),
    (3, 4, 5, 3, 1, 5, 1, 4, 1, "same"),
    (1, 8, 8, 17, 7, 5, 4, 5, 1, "valid"),
    (1, 1, 1, 1, 1, 1, 1, 1, 1, "valid"),
    (1, 1, 48, 70, 3, 4, 2, 3, 1, "same"),
]
SMALL = (2, 2, 3, 5, 4, 6, 2, 3, 2, "valid")

pytestmark = pytest.mark.usefixtures("poisoned")


def inputs(shape: tuple, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[list, torch.Tensor]:
    """x, offset, mask, weight, bias, with offsets clear of whole numbers (kinks); and the flow."""
    batch, groups, group_channels, outputs, x_height, x_width, h, w, scale, _ = shape
    height, width = h * scale, w * scale
    generator = torch.Generator().manual_seed(sum(shape[:-1]))

    def normal(*size):
        return torch.randn(size, generator=generator).to(device, dtype)

    whole = torch.randint(-2, 3, (batch, groups * 18, height, width), generator=generator)
    offset = (whole + 0.1 + 0.8 * torch.rand(whole.shape, generator=generator)).to(device, dtype)
    mask = torch.rand(batch, groups * 9, height, width, generator=generator).to(device, dtype)
    x = normal(batch, groups * group_channels, x_height, x_width)
    weight, bias = normal(outputs, groups * group_channels, 3, 3), normal(outputs)
    flow = torch.randint(-2, 3, (batch, h, w, 2), generator=generator).to(device, torch.float32)
    return [x, offset, mask, weight, bias], flow


def results(function, tensors: list[torch.Tensor], grad: torch.Tensor, *flow) -> list[torch.Tensor]:
    """Output and all gradients on the CPU in float64."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves, *flow)
    return [tensor.detach().double().cpu() for tensor in (out, *torch.autograd.grad(out, leaves, grad.to(out)))]


def check(tensors: list[torch.Tensor], flow: torch.Tensor | None, scale, padding, atol: float, rtol: float) -> None:
    x, offset, _, weight, _ = tensors
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(len(x), len(weight), *offset.shape[-2:], generator=generator).to(x)
    flow64 = None if flow is None else flow.double().cpu()
    doubles = [tensor.double().cpu() for tensor in tensors]
    expected = results(deform_conv_reference, doubles, grad.double().cpu(), flow64, scale, padding)
    for actual, true in zip(results(deform_conv, tensors, grad, flow, scale, padding), expected, strict=True):
        torch.testing.assert_close(actual, true, atol=atol * max(1e-30, true.abs().max().item()), rtol=rtol)


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("order", "dtype", "atol", "rtol"), TOLERANCES)
def test_values_and_gradients(device, order, dtype, atol, rtol, shape):
    (x, offset, mask, *rest), flow = inputs(shape, device, dtype)
    spatial = [tensor.contiguous(memory_format=order) for tensor in (x, offset, mask)]
    check([*spatial, *rest], flow, *shape[-2:], atol, rtol)


def test_without_flow_or_bias(device):
    (x, offset, mask, weight, _), _ = inputs(SMALL, device)
    grad = torch.ones(2, 5, 4, 6, device=device)
    actual = results(deform_conv, [x, offset, mask, weight], grad)
    expected = results(deform_conv_reference, [t.double().cpu() for t in (x, offset, mask, weight)], grad.double())
    for ours, true in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, true, atol=1e-5 * true.abs().max().item(), rtol=1e-5)


def test_layout_is_kept(device):
    for order in (torch.contiguous_format, torch.channels_last):
        (x, *rest), _ = inputs(SMALL, device)
        x = x.contiguous(memory_format=order).requires_grad_()
        out = deform_conv(x, *rest)
        assert out.is_contiguous(memory_format=order)
        assert torch.autograd.grad(out.sum(), x)[0].is_contiguous(memory_format=order)


def test_slices_are_taken_as_they_are(device):
    (x, offset, mask, weight, bias), flow = inputs(SMALL, device)
    both = torch.cat([offset, mask], 1).contiguous(memory_format=torch.channels_last)
    offset, mask = both.tensor_split([36], dim=1)
    check([x[..., ::2], offset, mask, weight.transpose(2, 3), bias], flow, *SMALL[-2:], 1e-5, 1e-5)


def test_several_blocks_of_rows(monkeypatch):
    monkeypatch.setattr("frfsr.kernels._deform_cpu._BLOCK_ELEMENTS", 1)
    shape = (2, 2, 1, 3, 3, 4, 5, 6, 2, "valid")
    tensors, flow = inputs(shape)
    check(tensors, flow, *shape[-2:], 1e-5, 1e-5)


@pytest.mark.parametrize("magnitude", [1e-12, 1e12])
def test_any_magnitude(device, magnitude):
    (x, offset, mask, weight, _), flow = inputs(SMALL, device)
    no_bias = torch.zeros(5, device=device)
    check([magnitude * x, offset, mask, weight / magnitude, no_bias], flow, *SMALL[-2:], 1e-5, 1e-5)


def test_positions_far_outside_are_zero(device):
    (x, offset, mask, weight, _), _ = inputs(SHAPES[2], device)
    for far in (1e4, -1e12):
        out, *gradients = results(deform_conv, [x, offset + far, mask, weight], torch.ones(3, 3, 1, 4))
        assert not out.any()
        assert not any(gradient.any() for gradient in gradients)


def test_not_a_number_reaches_only_what_samples_it(device):
    (x, offset, mask, weight, _), _ = inputs((1, 1, 3, 4, 9, 8, 9, 8, 1, "valid"), device)
    x[0, 1, 4, 4] = torch.nan
    broken = deform_conv(x, 0.5 * torch.ones_like(offset), mask, weight).isnan().any(1).cpu()
    expected = torch.zeros(1, 9, 8, dtype=torch.bool)
    expected[:, 2:6, 2:6] = True
    assert torch.equal(broken, expected)


@pytest.mark.parametrize(("layer", "scale"), [("relu3_1", 1), ("relu2_1", 2), ("relu1_1", 4)])
def test_published_pre_offsets(layer, scale):
    golden = load_file(GOLDEN / "02_pre_offset_a.safetensors")
    flows = scale * tap_flows(golden["pre_flow.relu3_1"].float(), "valid")
    offsets = repeat(flows, "b k d h w -> b k (h s) (w t) d", s=scale, t=scale).flip(-1)
    assert torch.equal(offsets, golden[f"pre_offset.{layer}"].float())


def test_taps_of_centred_patches():
    flow = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="xy"), -1)[None]
    taps = tap_flows(flow, "same")
    for i in range(3):
        for j in range(3):
            for y in range(flow.shape[1]):
                row = min(max(y - i + 1, 0), flow.shape[1] - 1)
                column = min(max(2 - j + 1, 0), flow.shape[2] - 1)
                assert torch.equal(taps[0, 3 * i + j, :, y, 2], flow[0, row, column].flip(0))


def test_published_deformable_convolution(device):
    golden = load_file(GOLDEN / "07_dcn_pre_offset_a.safetensors")
    shapes = {
        "weight": [32, 32, 3, 3],
        "bias": [32],
        "conv_offset_mask.weight": [216, 32, 3, 3],
        "conv_offset_mask.bias": [216],
    }
    weights = golden_state_dict(shapes, 0)
    tensors = [golden["x"], golden["offset"], golden["mask"], weights["weight"], weights["bias"]]
    actual = results(deform_conv, [tensor.to(device) for tensor in tensors], golden["grad_out"])
    for ours, name in zip(
        [actual[0], actual[1], *actual[4:]], ("out", "grad_x", "grad.weight", "grad.bias"), strict=True
    ):
        true = golden[name].double()
        torch.testing.assert_close(ours, true, atol=5e-5 * true.abs().max().item(), rtol=0)


def test_published_initial_state(device):
    """Whole-pixel positions: the gradient by the offset is the right-hand one."""
    golden = load_file(GOLDEN / "07_dcn_initial_state_a.safetensors")
    weights = golden_state_dict({"weight": [16, 16, 3, 3], "bias": [16]}, 0)
    offset = repeat(golden["pre_offset"].flip(-1), "b k h w d -> b (g k d) h w", g=4)
    mask = torch.full((1, 36, 9, 11), 0.5)
    tensors = [golden["x"], offset, mask, weights["weight"], weights["bias"]]
    actual = results(deform_conv, [tensor.to(device) for tensor in tensors], golden["grad_out"])
    # At a coordinate of exactly -1 torchvision and ours give the one-sided derivative, the published kernel zero.
    compared = 1 - repeat(golden["edge_minus_one"], "b k h w -> b (g k d) h w", g=4, d=2)
    for ours, name in zip(actual, ("out", "grad_x", "grad_offset", "grad_mask"), strict=False):
        true = golden[name].double()
        factor = compared if name == "grad_offset" else 1
        torch.testing.assert_close(ours * factor, true * factor, atol=1e-4 * true.abs().max().item(), rtol=0)


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(1, 3), *[st.integers(1, 4)] * 2, *[st.integers(1, 9)] * 4),
    scale=st.sampled_from([1, 2, 4]),
    padding=st.sampled_from(["valid", "same"]),
)
def test_any_size(sizes, scale, padding):
    shape = (*sizes, scale, padding)
    tensors, flow = inputs(shape, dtype=torch.float64)
    check(tensors, flow.double(), scale, padding, 1e-10, 1e-10)


def test_no_offset_is_a_convolution(device):
    (x, _, _, weight, bias), _ = inputs((2, 2, 8, 5, 9, 7, 9, 7, 1, "valid"), device)
    out = deform_conv(x, x.new_zeros(2, 36, 9, 7), x.new_ones(2, 18, 9, 7), weight, bias)
    expected = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-5)


def test_gradients_are_those_of_the_forward():
    tensors, flow = inputs((1, 2, 1, 2, 3, 4, 2, 1, 2, "valid"), dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(lambda *leaves: deform_conv(*leaves, flow.double(), 2, "valid"), leaves)


def test_operator_is_registered_correctly():
    tensors, flow = inputs(SMALL)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(torch.ops.frfsr.deform_conv.default, (*leaves, flow, 2, "valid"))
    torch.library.opcheck(torch.ops.frfsr.deform_conv.default, (*leaves[:4], None, None, 1, "valid"))
    arguments = [tensor.detach() for tensor in leaves[:4]]
    grad = torch.randn(2, 5, 4, 6)
    torch.library.opcheck(torch.ops.frfsr.deform_conv_backward.default, (grad, *arguments, flow, 2, "valid"))


def test_works_under_compile_and_autocast(device):
    tensors, flow = inputs(SMALL, device)
    grad = torch.ones(2, 5, 4, 6)
    expected = results(deform_conv, tensors, grad, flow, 2, "valid")
    compiled = results(torch.compile(deform_conv, backend="aot_eager", fullgraph=True), tensors, grad, flow, 2, "valid")
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = results(deform_conv, tensors, grad, flow, 2, "valid")
    torch.testing.assert_close(compiled, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(cast, expected, atol=1e-4, rtol=1e-5)


def test_offsets_may_be_wider_than_the_features(device):
    (x, offset, mask, weight, bias), flow = inputs(SMALL, device)
    half = deform_conv(x.half(), offset, mask, weight.half(), bias.half(), flow, 2, "valid")
    assert half.dtype == torch.float16
    full = deform_conv(x.half().float(), offset, mask, weight.half().float(), bias.half().float(), flow, 2, "valid")
    torch.testing.assert_close(half.float(), full, atol=3e-2, rtol=3e-3)


def test_reference_can_be_forced(monkeypatch):
    called = []
    monkeypatch.setattr(deform, "deform_conv_reference", lambda *args: called.append(1) or deform_conv_reference(*args))
    monkeypatch.setenv("FRFSR_KERNELS", "reference")
    tensors, flow = inputs(SMALL)
    deform_conv(*tensors, flow, 2, "valid")
    assert called


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(4, 5, 3, 3)}, "weight must be"),
        ({"mask": torch.zeros(1, 36, 5, 6), "offset": torch.zeros(1, 72, 5, 6)}, "groups must divide"),
        ({"mask": torch.zeros(1, 18, 5, 7)}, "offset must be"),
        ({"flow": torch.zeros(1, 5, 5, 2)}, "flow must be"),
        ({"flow": torch.zeros(1, 2, 3, 2), "flow_scale": 2}, "flow must be"),
        ({"flow": torch.zeros(1, 5, 6, 2)}, "match_padding"),
        ({"match_padding": "reflect"}, "match_padding"),
    ],
)
def test_misfits_are_refused(change, message):
    fitting = {
        "x": torch.zeros(1, 6, 7, 8),
        "offset": torch.zeros(1, 36, 5, 6),
        "mask": torch.zeros(1, 18, 5, 6),
        "weight": torch.zeros(4, 6, 3, 3),
    }
    with pytest.raises(ValueError, match=message):
        deform_conv(**(fitting | change))
