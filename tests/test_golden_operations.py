"""The operations and filter normalisation against the published implementation's numbers (tests/golden)."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from frfsr.kernels import deform_conv, dynamic_filter, flow_warp
from frfsr.kernels.ddf import normalise_filter

PRECISIONS = (torch.float64, torch.float32)
SCALES = ("relu1_1", "relu2_1", "relu3_1")


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_warp(golden, compare, dtype) -> None:
    case = golden("03_flow_warp_a")
    for layer in SCALES:
        x, flow = (case[f"{layer}.{name}"].to(dtype) for name in ("x", "flow"))
        compare(f"03 {layer}", flow_warp(x, flow), case[f"{layer}.out"], tolerance={8: 1e-5, 4: 1e-4}[dtype.itemsize])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_dynamic_filter(golden, compare, dtype) -> None:
    case = golden("06_ddf_op_a")
    for size in ("small", "fast_path"):
        names = ("x", "channel_filter", "spatial_filter")
        inputs = [case[f"{size}.{name}"].to(dtype).requires_grad_() for name in names]
        out = dynamic_filter(*inputs)
        compare(f"06 ddf {size}.out", out, case[f"{size}.out"], tolerance=1e-5)
        gradients = torch.autograd.grad(out, inputs, case[f"{size}.grad_out"].to(dtype))
        for name, gradient in zip(names, gradients, strict=True):
            compare(f"06 ddf {size}.grad_{name}", gradient, case[f"{size}.grad_{name}"], tolerance=1e-5)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "filters", "gain", "learned"),
    [
        ("spatial", 1, 2**0.5, False),
        ("spatial_learned", 1, 1, True),
        ("spatial_head2", 2, 1, False),
        ("channel", 6, 2**0.5, False),
        ("channel_learned", 6, 1, True),
    ],
)
def test_filter_norm(golden, golden_rule, compare, name, filters, gain, learned, dtype) -> None:
    case = golden("06_filter_norm_a")
    scale, shift = torch.full((filters, 9, 1, 1), gain / 3, dtype=dtype), torch.zeros(filters, 9, 1, 1, dtype=dtype)
    if learned:
        scale, shift = (
            golden_rule.golden_param(key, (filters * 9,), 0).to(scale).view_as(scale) for key in ("std", "mean")
        )
    taps = rearrange(case[f"{name}.x"].to(dtype), "b (n k) h w -> b n k h w", n=filters)
    out = rearrange(normalise_filter(taps, scale, shift, dim=2), "b n k h w -> b (n k) h w")
    compare(f"06 filter_norm {name}", out.view(case[f"{name}.out"].shape), case[f"{name}.out"], tolerance=1e-5)


def whole_pixel_offsets(pre_offset: Tensor, groups: int) -> Tensor:
    """(B, 9, H, W, 2) as (x, y) -> (B, groups*9*2, H, W) as [group, tap, (y, x)]."""
    return repeat(pre_offset.flip(-1), "b k h w d -> b (g k d) h w", g=groups)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_deformable_alignment(golden, weights, compare, dtype) -> None:
    case = golden("07_dcn_pre_offset_a")
    parameters = {key: value.to(dtype).requires_grad_() for key, value in weights("07_dcn_pre_offset_a").items()}
    x, features = (case[name].to(dtype).requires_grad_() for name in ("x", "features"))
    learned = F.conv2d(features, parameters["conv_offset_mask.weight"], parameters["conv_offset_mask.bias"], padding=1)
    offset, mask = learned.tensor_split([2 * 8 * 9], dim=1)
    offset, mask = offset + whole_pixel_offsets(case["pre_offset"].to(dtype), groups=8), mask.sigmoid()
    compare("07 offset", offset, case["offset"])
    compare("07 mask", mask, case["mask"])
    out = deform_conv(x, offset, mask, parameters["weight"], parameters["bias"])
    compare("07 out", out, case["out"])
    out.backward(case["grad_out"].to(dtype))
    for name, gradient in (("grad_x", x.grad), ("grad_features", features.grad)):
        compare(f"07 {name}", gradient, case[name])
    for key, parameter in parameters.items():
        compare(f"07 grad.{key}", parameter.grad, case[f"grad.{key}"])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_deformable_alignment_at_its_initial_state(golden, weights, compare, dtype) -> None:
    case = golden("07_dcn_initial_state_a")
    state = weights("07_dcn_initial_state_a")
    offset = whole_pixel_offsets(case["pre_offset"].to(dtype), groups=4).requires_grad_()
    mask = torch.full((1, 4 * 9, 9, 11), 0.5, dtype=dtype, requires_grad=True)
    x = case["x"].to(dtype).requires_grad_()
    out = deform_conv(x, offset, mask, state["weight"].to(dtype), state["bias"].to(dtype))
    compare("07 initial out", out, case["out"], tolerance=1e-4)
    out.backward(case["grad_out"].to(dtype))
    compare("07 initial grad_x", x.grad, case["grad_x"], tolerance=1e-4)
    compare("07 initial grad_mask", mask.grad, case["grad_mask"], tolerance=1e-4)
    # At a coordinate of exactly -1 the published kernel's gradient is zero instead of one-sided.
    inner = 1 - repeat(case["edge_minus_one"], "b k h w -> b (g k d) h w", g=4, d=2)
    compare("07 initial grad_offset", offset.grad * inner, case["grad_offset"] * inner, tolerance=1e-4)
