"""Every box of the model against the published implementation's numbers (tests/golden).

Cases and weights are the published code's: inputs and outputs are stored, weights are made from (seed, key, shape) by
tests/golden/golden_weights.py. `pytest tests/test_golden_model.py` ends with a table of all errors.
"""

import json
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from frfsr import published
from frfsr.aggregation import DFM, ESA, DynamicBlock, FilterNorm, ResidualBlock
from frfsr.convert import from_published, load_published
from frfsr.features import ReferencePyramid
from frfsr.kernels import deform_conv, dynamic_filter, flow_warp
from frfsr.kernels.deform import tap_flows
from frfsr.matching import Correspondence, correspond, enlarge_flow, index_to_flow
from frfsr.unet import Textures

TOLERANCE = {torch.float64: 2e-6, torch.float32: 5e-5}  # of the golden tensor's maximum; goldens are rounded to float32
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))
DFM_NAMES = {"spatial": "spatial_branch.0", "channel.0": "channel_branch.1", "channel.2": "channel_branch.3"}
SCALES = {"relu1_1": 4, "relu2_1": 2, "relu3_1": 1}


@pytest.fixture
def compare(record_property) -> Callable[..., None]:
    """compare(what, actual, expected): the largest error relative to the largest expected value is within tolerance."""

    def compare(what: str, actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
        tolerance = tolerance or TOLERANCE[actual.dtype]
        error = float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())
        record_property("golden", (what, str(actual.dtype).removeprefix("torch."), error, tolerance))
        assert actual.shape == expected.shape
        assert error <= tolerance

    return compare


@pytest.fixture(scope="session")
def weights(golden_folder, golden_rule) -> Callable[..., dict[str, Tensor]]:
    """weights(module, blocks, dynamic): golden weights under the published keys. The table has only first blocks."""
    shapes = json.loads((golden_folder / "model_shapes.json").read_text())

    def weights(module: str, blocks: int = 1, dynamic: tuple[int, ...] = ()) -> dict[str, Tensor]:
        unfolded = {}
        for key, shape in shapes[module].items():
            first = re.search(r"(ddf_block_(\d)|_body_\w+?|^body)\.0\.", key)
            if first is None:
                unfolded[key] = shape
                continue
            for n in range(dynamic[int(first[2]) - 1] if first[2] else blocks):
                unfolded[f"{key[: first.start()]}{first[1]}.{n}.{key[first.end() :]}"] = shape
        return golden_rule.golden_state_dict(unfolded, seed=0)

    return weights


def correspondence_of(case: dict[str, Tensor]) -> Correspondence:
    """From a case's index and score, as `correspond` builds it from a search."""
    width = case["index"].shape[-1]  # these cases have equally large references
    flow = F.pad(index_to_flow(case["index"], width), (0, 0, 0, 2, 0, 2))
    return Correspondence(F.pad(case["score"], (1, 1, 1, 1)), flow, case["index"])


def pyramid_of(golden_rule, lr: Tensor, seed: int) -> tuple[Tensor, ...]:
    """The reference features of the cases that state them as relu of random numbers."""
    height, width = lr.shape[-2:]
    shapes = [(1, 64 * 4 // s, s * height, s * width) for s in SCALES.values()]
    return tuple(
        golden_rule.golden_tensor(layer, shape, seed).relu().to(lr.dtype)
        for layer, shape in zip(SCALES, shapes, strict=True)
    )


def compare_probes(network: nn.Module, names: dict[str, str], case: dict[str, Tensor], what: str, compare) -> None:
    """Compare, at the network's next run, the intermediate results that the case has: "probe.<published module>"."""

    def hook_on(module: nn.Module, probe: str) -> None:
        def check(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            compare(f"{what} {probe.rpartition('.')[2]}", output[:, ::16, ::6, ::6], case[probe])
            handle.remove()

        handle = module.register_forward_hook(check)

    modules = dict(network.named_modules())
    for ours, theirs in names.items():
        # A FAM's result here is already activated; the published tail's probe is one channel.
        if f"probe.{theirs}" in case and not ours.startswith("fam_") and ours != "tail":
            hook_on(modules[ours], f"probe.{theirs}")


@DTYPES
def test_correspondence(golden, weights, compare, dtype) -> None:
    case = golden("02_correspondence_a")
    found = correspond(case["dense_features1"].to(dtype), case["dense_features2"].to(dtype), "valid")
    assert torch.equal(found.index, case["index"])
    assert case["gap"].min() > 1e-5
    assert torch.equal(found.flow, case["pre_flow.relu3_1"])
    torch.testing.assert_close(found.score[:, None], case["pre_similarity.relu3_1"], rtol=0, atol=1e-5)
    for layer, scale in SCALES.items():
        taps = rearrange(tap_flows(found.flow, "valid"), "b k d h w -> b k h w d").flip(-1) * scale
        taps = taps.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        if scale == 1:
            assert torch.equal(taps, case["pre_offset.relu3_1"])
        else:
            assert torch.equal(taps[:, :, ::3, ::3], case[f"pre_offset.{layer}_sub"])
            assert torch.equal(enlarge_flow(found.flow, scale)[:, ::3, ::3], case[f"pre_flow.{layer}_sub"])

    pyramid = ReferencePyramid()
    state = {key: value for key, value in weights("vgg").items() if not key.endswith((".mean", ".std"))}
    load_published(pyramid, state, published.vgg_names(state), "vgg")
    for layer, feature in zip(SCALES, pyramid.to(dtype)(case["img_ref"].to(dtype)), strict=True):
        compare(f"02 vgg.{layer}", feature[:, ::16], case[f"vgg.{layer}_sub"])


@DTYPES
def test_warp(golden, compare, dtype) -> None:
    case = golden("03_flow_warp_a")
    for layer in SCALES:
        x, flow = (case[f"{layer}.{name}"].to(dtype) for name in ("x", "flow"))
        compare(f"03 {layer}", flow_warp(x, flow), case[f"{layer}.out"], tolerance={8: 1e-5, 4: 1e-4}[dtype.itemsize])


@DTYPES
def test_extractor(golden, weights, compare, dtype) -> None:
    case = golden("04_extractor_a")
    features = from_published(weights("extractor"), "extractor").to(dtype)(
        case["image1"].to(dtype), case["image2"].to(dtype)
    )
    for name, feature in features.items():
        compare(f"04 {name}", feature[:, ::4], case[f"{name}_sub"])


@DTYPES
@torch.no_grad()
def test_rrdb(golden, weights, compare, dtype) -> None:
    case = golden("05_rrdb_a")
    network = from_published(weights("rrdb", blocks=23), "rrdb").to(dtype)
    compare("05 trunk", network(case["lq"].to(dtype)), case["trunk"])
    compare("05 image", network.image(case["lq"].to(dtype)), case["image"])


@DTYPES
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


def plain_residual_block(channels: int) -> ResidualBlock:
    block = ResidualBlock(channels)
    block.esa = nn.Identity()
    return block


BLOCKS = {
    "06_ddf_pack_a": (DFM(20, filter_norm=False), (2, 20, 11, 13), DFM_NAMES),
    "06_esa_a": (ESA(64), (1, 64, 20, 25), {}),
    "06_residual_block_esa_a": (ResidualBlock(64), (1, 64, 16, 19), {"esa": "ESA"}),
    "06_residual_block_plain_a": (plain_residual_block(32), (1, 32, 9, 12), {}),
    "06_residual_ddf_block_a": (
        DynamicBlock(64, filter_norm=False),
        (1, 64, 14, 17),
        {f"filter{n}.{ours}": f"conv{n}.{theirs}" for n in (1, 2) for ours, theirs in DFM_NAMES.items()},
    ),
}


@DTYPES
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(golden, golden_rule, weights, compare, name, dtype) -> None:
    block, shape, names = BLOCKS[name]
    case = golden(name)
    load_published(block, weights(name), names, name)
    block = block.to(dtype)
    x = golden_rule.golden_tensor("x", shape, 61).to(dtype).requires_grad_()
    out = block(x)
    compare(f"{name} out", out, case["out"])
    block.zero_grad()
    out.backward(golden_rule.golden_tensor("grad_out", shape, 61).to(dtype))
    compare(f"{name} grad_x", x.grad, case["grad_x"])
    for ours, parameter in block.named_parameters():
        theirs = published.published_key(ours, names)
        if f"grad.{theirs}" in case:
            compare(f"{name} grad.{theirs}", parameter.grad, case[f"grad.{theirs}"])
        else:
            compare(f"{name} grad_norm.{theirs}", parameter.grad.norm(), case[f"grad_norm.{theirs}"])


@DTYPES
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
    norm = FilterNorm(filters, gain=gain).to(dtype)
    if learned:
        for parameter, key in ((norm.gamma, "std"), (norm.beta, "mean")):
            parameter.data = golden_rule.golden_param(key, (filters * 9,), 0).to(dtype).view(filters, 9)
    taps = rearrange(case[f"{name}.x"].to(dtype), "b (n k) h w -> b n k h w", n=filters)
    out = rearrange(norm(taps), "b n k h w -> b (n k) h w")
    compare(f"06 filter_norm {name}", out.view(case[f"{name}.out"].shape), case[f"{name}.out"], tolerance=1e-5)


def whole_pixel_offsets(pre_offset: Tensor, groups: int) -> Tensor:
    """(B, 9, H, W, 2) as (x, y) -> (B, groups*9*2, H, W) as [group, tap, (y, x)]."""
    return repeat(pre_offset.flip(-1), "b k h w d -> b (g k d) h w", g=groups)


@DTYPES
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


@DTYPES
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


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "dtypes"), [(2, TOLERANCE), (16, [torch.float32])])
def test_complete_chain(golden, weights, compare, blocks, dtypes) -> None:
    case = golden(f"08_chain_n{blocks}")
    parts = {
        "net_g": weights("net_g", blocks, dynamic=(2, 2, 2, 2, 2)),
        "extractor": weights("extractor"),
        "vgg": weights("vgg"),
        "rrdb": weights("rrdb", blocks=23),
    }
    model = from_published(parts, "frfsr")
    names = published.aggregation_names(model.config.dynamic_blocks, model.config.blocks, sife=True)
    for dtype in dtypes:
        model = model.to(dtype)
        compare_probes(model.aggregation, names, case, f"08 chain n{blocks}", compare)
        result = model(case["lq"].to(dtype), case["ref"].to(dtype), upsampled=case["up"].to(dtype))
        assert torch.equal(result.correspondence.index, case["index"])
        compare(f"08 chain n{blocks} out", result.image, case["out"])


@torch.no_grad()
def test_aggregation_network(golden, golden_rule, weights, compare) -> None:
    case = golden("08_netg_direct_n2")
    parts = {
        "net_g": weights("net_g", 2, dynamic=(2, 2, 2, 2, 2)),
        "extractor": weights("extractor"),
        "vgg": weights("vgg"),
        "rrdb": weights("rrdb", blocks=1),
    }
    network = from_published(parts, "frfsr").aggregation
    for dtype in TOLERANCE:
        network = network.to(dtype)
        lr = case["lq"].to(dtype)
        sife = golden_rule.golden_tensor("sife", (1, 64, 24, 32), 81).to(dtype)
        base = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        textures = Textures(correspondence_of(case), pyramid_of(golden_rule, lr, 81), sife, base)
        assert torch.equal(textures.correspondence.flow, case["pre_flow.relu3_1"])
        names = published.aggregation_names((2, 2, 2), (2, 2, 2), sife=True)
        compare_probes(network, names, case, "08 net_g", compare)
        compare("08 net_g out", network.reconstruct(network(textures), textures), case["out"])


@torch.no_grad()
def test_reuse_network(golden, golden_rule, weights, compare) -> None:
    case = golden("09_texture_net_n8")
    network = from_published(weights("texture_net", 8, dynamic=(2, 2, 1, 2, 2)), "frfsr-reuse")
    for dtype in TOLERANCE:
        network = network.to(dtype)
        lr = case["lq"].to(dtype)
        reused = golden_rule.golden_tensor("sisr0", (1, 64, 64, 80), 91).to(dtype)
        names = published.aggregation_names((2, 2, 1), (8, 8, 8), sife=False)
        compare_probes(network.aggregation, names, case, "09 texture_net", compare)
        features = network(lr, correspondence_of(case), pyramid_of(golden_rule, lr, 91), reused)
        compare("09 texture_net out", features[:, ::8], case["out_sub"])
        compare("09 texture_net channel mean", features.mean((2, 3)), case["channel_mean"])
        compare("09 texture_net channel deviation", features.std((2, 3)), case["channel_std"])
