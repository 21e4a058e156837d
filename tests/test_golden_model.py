"""Every box of the model against the published implementation's numbers (tests/golden).

Cases and weights are the published code's: inputs and outputs are stored, weights are made from (seed, key, shape) by
tests/golden/golden_weights.py. `pytest tests/test_golden_model.py` ends with a table of all errors.
"""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from frfsr import published
from frfsr.aggregation import DFM, ESA, DynamicBlock, ResidualBlock
from frfsr.convert import from_published
from frfsr.features import ReferencePyramid
from frfsr.kernels.deform import tap_flows
from frfsr.matching import correspond, enlarge_flow, index_to_flow
from frfsr.network import Correspondence
from frfsr.states import load_published, published_key
from frfsr.unet import Textures

PRECISIONS = (torch.float64, torch.float32)
DFM_NAMES = {"spatial": "spatial_branch.0", "channel.0": "channel_branch.1", "channel.2": "channel_branch.3"}
SCALES = {"relu1_1": 4, "relu2_1": 2, "relu3_1": 1}


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


@pytest.mark.parametrize("dtype", PRECISIONS)
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


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_extractor(golden, weights, compare, dtype) -> None:
    case = golden("04_extractor_a")
    features = from_published(weights("extractor"), "extractor").to(dtype)(
        case["image1"].to(dtype), case["image2"].to(dtype)
    )
    for name, feature in features.items():
        compare(f"04 {name}", feature[:, ::4], case[f"{name}_sub"])


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_rrdb(golden, weights, compare, dtype) -> None:
    case = golden("05_rrdb_a")
    network = from_published(weights("rrdb", blocks=23), "rrdb").to(dtype)
    compare("05 trunk", network(case["lq"].to(dtype)), case["trunk"])
    compare("05 image", network.image(case["lq"].to(dtype)), case["image"])


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


@pytest.mark.parametrize("dtype", PRECISIONS)
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
        theirs = published_key(ours, names)
        if f"grad.{theirs}" in case:
            compare(f"{name} grad.{theirs}", parameter.grad, case[f"grad.{theirs}"])
        else:
            compare(f"{name} grad_norm.{theirs}", parameter.grad.norm(), case[f"grad_norm.{theirs}"])


@torch.no_grad()
@pytest.mark.parametrize("blocks", [2, 16])
def test_complete_chain(golden, weights, compare, blocks) -> None:
    case = golden(f"08_chain_n{blocks}")
    parts = {
        "net_g": weights("net_g", blocks, dynamic=(2, 2, 2, 2, 2)),
        "extractor": weights("extractor"),
        "vgg": weights("vgg"),
        "rrdb": weights("rrdb", blocks=23),
    }
    model = from_published(parts, "frfsr")
    names = published.aggregation_names(model.config.dynamic_blocks, model.config.blocks, sife=True)
    for dtype in PRECISIONS:
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
    for dtype in PRECISIONS:
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
    for dtype in PRECISIONS:
        network = network.to(dtype)
        lr = case["lq"].to(dtype)
        reused = golden_rule.golden_tensor("sisr0", (1, 64, 64, 80), 91).to(dtype)
        names = published.aggregation_names((2, 2, 1), (8, 8, 8), sife=False)
        compare_probes(network.aggregation, names, case, "09 texture_net", compare)
        features = network(lr, correspondence_of(case), pyramid_of(golden_rule, lr, 91), reused)
        compare("09 texture_net out", features[:, ::8], case["out_sub"])
        compare("09 texture_net channel mean", features.mean((2, 3)), case["channel_mean"])
        compare("09 texture_net channel deviation", features.std((2, 3)), case["channel_std"])
