"""TTSR against the published implementation, and its checkpoints."""

import pytest
import torch
from torch import Tensor

from frfsr.atlas import lay_out
from frfsr.network import Rates
from frfsr.peers.texture_transformer import search, soft_attention, transfer
from frfsr.peers.ttsr import TTSR, TTSRConfig, from_published, names, transferal_perceptual_loss

PRECISIONS = (torch.float64, torch.float32)
INPUTS = ("lr", "lrsr", "ref", "refsr")
# Parameters whose gradients a case stores: our name, and the part that is stored.
GRADIENTS = {
    "LTE.slice1.0.weight": "encoder.conv1_1.weight",
    "LTE.slice3.10.weight": ("encoder.conv3_1.weight", (slice(None, None, 16), slice(None, None, 8))),
    "MainNet.conv11_head.weight": (
        "main.stages.0.attention.conv.weight",
        (slice(None, None, 4), slice(None, None, 8)),
    ),
    "MainNet.conv33_head.weight": (
        "main.stages.2.attention.conv.weight",
        (slice(None, None, 4), slice(None, None, 8)),
    ),
    "MainNet.merge_tail.conv_tail2.weight": "main.tail.1.weight",
}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_search_and_transfer(peer_case, compare, dtype) -> None:
    case = peer_case("20_ttsr_search_a")
    inputs = ("lrsr_lv3", "refsr_lv3", "ref_lv1", "ref_lv2", "ref_lv3")
    query, key, *features = leaves = [case[name].to(dtype).requires_grad_() for name in inputs]
    correspondence = search(query, key)
    assert torch.equal(correspondence.index, case["index"])
    results = {"S": soft_attention(query, key, correspondence.flow)}
    for level, feature, scale in zip((1, 2, 3), features, (4, 2, 1), strict=True):
        results[f"T_lv{level}"] = transfer(feature, correspondence.flow, scale)
    for name, result in results.items():
        compare(f"{case.name} {name}", result, case[name])
    torch.autograd.backward(list(results.values()), [case[f"grad_out.{name}"].to(dtype) for name in results])
    for name, leaf in zip(inputs, leaves, strict=True):
        compare(f"{case.name} grad.{name}", leaf.grad, case[f"grad.{name}"], case.gradient_tolerance(dtype))


def test_a_patch_of_zeros_has_no_gradient_that_is_not_a_number() -> None:
    query, key = torch.zeros(1, 2, 4, 4, requires_grad=True), torch.ones(1, 2, 5, 5, requires_grad=True)
    attention = soft_attention(query, key, torch.zeros(1, 4, 4, 2))
    assert torch.equal(attention, torch.zeros(1, 1, 4, 4))
    attention.sum().backward()
    assert query.grad.isfinite().all()
    assert torch.equal(key.grad, torch.zeros_like(key))


def from_unit(image: Tensor) -> Tensor:
    """[-1, 1], as published, -> [0, 1]."""
    return (image + 1) / 2


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["20_ttsr_a", "20_ttsr_b2"])
def test_complete_network(peer_case, compare, compare_gradients, watch_probes, name, dtype) -> None:
    case = peer_case(name)
    network = from_published(case.state).to(dtype)
    lr, upsampled, reference, blurred = (from_unit(case[image].to(dtype)) for image in INPUTS)
    lr.requires_grad_("grad_out" in case.tensors)
    assert len(watch_probes(network, names(network), case)) == 19
    result = network(lr, reference, upsampled, reference_blurred=blurred)
    assert torch.equal(result.correspondence.index, case["index"])
    compare(f"{name} sr", 2 * result.image - 1, case["sr"])

    found = network.transfer(lr, upsampled, lay_out(network.encode_reference(reference, blurred)))
    compare(f"{name} S", found.attention, case["S"])
    large, medium, small = found.textures
    compare(f"{name} T_lv3", small[:, ::16], case["T_lv3_sub"])
    compare(f"{name} T_lv2", medium[:, ::32, ::2, ::2], case["T_lv2_sub"])
    compare(f"{name} T_lv1", large[:, ::16, ::3, ::3], case["T_lv1_sub"])
    if "grad_out" not in case.tensors:
        return

    result.image.backward(2 * case["grad_out"].to(dtype), retain_graph=True)
    compare(f"{name} grad.lr", lr.grad / 2, case["grad.lr"], case.gradient_tolerance(dtype))
    compare_gradients(network, case, dtype, GRADIENTS)
    for norm in ("l1", "l2"):
        for weighted, suffix in ((False, "plain"), (True, "S")):
            loss = transferal_perceptual_loss(network, result.image, found, norm, weighted)
            compare(f"{name} tpl_{norm}_{suffix}", loss[None], case[f"tpl_{norm}_{suffix}"])


def test_the_loss_trains_the_encoder_only_by_what_is_transferred(peer_case) -> None:
    case = peer_case("20_ttsr_b2")
    network = from_published(case.state)
    image = case["sr"].clone().requires_grad_()
    with torch.no_grad():
        found = network.transfer(case["lr"], image, lay_out(network.encode_reference(case["ref"])))
    transferal_perceptual_loss(network, image, found).backward()
    assert image.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_encoder_learns_more_slowly() -> None:
    network = TTSR(TTSRConfig(channels=4, texture_channels=(3, 3, 3), blocks=(0, 0, 0, 0)))
    rates = {rate["lr"]: {id(p) for p in rate["params"]} for rate in network.parameter_groups(Rates(1e-4))}
    assert rates == {
        1e-4: {id(p) for p in network.main.parameters()},
        1e-5: {id(p) for p in network.encoder.parameters()},
    }
    *_, encoder = network.parameter_groups(Rates(1e-4, parts={"encoder": 1e-6}))
    assert encoder["lr"] == 1e-6
