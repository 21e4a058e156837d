"""SSEN against the unofficial implementation."""

import pytest
import torch
from torch import nn

from frfsr.peers.ssen import NonLocalBlock, from_published, names

PRECISIONS = (torch.float64, torch.float32)
# Parameters whose gradients a case stores.
GRADIENTS = {
    "SSEN_Network.deformblock1.offset_conv.bias": "stages.0.offset.bias",
    "SSEN_Network.deformblock3.offset_conv.weight": "stages.2.offset.weight",
    "outconv.weight": "reconstruction.last.weight",
}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["24_ssen_add_a", "24_ssen_concat_b2"])
def test_complete_network(peer_case, compare, compare_gradients, watch_probes, name, dtype) -> None:
    case = peer_case(name)
    network = from_published(case.state).to(dtype)
    lr, reference = (case[image].to(dtype).requires_grad_() for image in ("lr", "ref"))
    modules = names(network) | {"stages.0.estimator": "SSEN_Network.deformblock1.offset_estimator"}
    modules |= {f"stages.{n}": f"SSEN_Network.deformblock{n + 1}" for n in range(3)}
    modules["stages.0.estimator.attention.0"] = "SSEN_Network.deformblock1.offset_estimator.attentionblock1"
    before_activation = ("SSEN_Network.deformblock1.offset_estimator.downblock3",)
    assert len(watch_probes(network, modules, case, without=before_activation)) == 10
    result = network(lr, reference)
    compare(f"{name} out", result.image, case["out"])
    if "grad_out" not in case.tensors:
        return

    result.image.backward(case["grad_out"].to(dtype))
    tolerance = case.gradient_tolerance(dtype)
    compare(f"{name} grad.lr", lr.grad, case["grad.lr"], tolerance)
    compare(f"{name} grad.ref", reference.grad[..., ::2, ::2], case["grad.ref_sub"], tolerance)
    compare_gradients(network, case, dtype, GRADIENTS)


def test_a_non_local_block_starts_as_the_identity() -> None:
    x = torch.rand(2, 6, 4, 5)
    assert torch.equal(NonLocalBlock(6, 3)(x), x)


def test_offsets_are_watched(peer_case) -> None:
    network = from_published(peer_case("24_ssen_add_a").state)
    watched = list(network.watched())
    assert [module.out_channels for module in watched] == [18, 18, 18]
    assert all(isinstance(module, nn.Conv2d) for module in watched)
