"""WTRN against the published implementation."""

import pytest
import torch

from frfsr.atlas import lay_out
from frfsr.peers.wtrn import HAAR, HIGH_PASS, WaveletEncoder, from_published, wavelet_names

PRECISIONS = (torch.float64, torch.float32)
INPUTS = ("lr", "lrsr", "ref", "refsr")
# Parameters whose gradients a case stores.
GRADIENTS = {
    "LTE.slice1.0.weight": "encoder.conv1_1.weight",
    "MainNet.conv12_head.bias": "main.enlarge.0.branches.LH.head.bias",
    "MainNet.unpool1.LH.bias": "main.enlarge.0.branches.LH.up.bias",
    "MainNet.merge_tail.conv_tail2.weight": "main.tail.1.weight",
}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["25_wtrn_a", "25_wtrn_b2"])
def test_complete_network(peer_case, compare, compare_gradients, watch_probes, name, dtype) -> None:
    case = peer_case(name)
    network = from_published(case.state).to(dtype)
    lr, upsampled, reference, blurred = ((case[image].to(dtype) + 1) / 2 for image in INPUTS)
    lr.requires_grad_("grad_out" in case.tensors)
    assert len(watch_probes(network, wavelet_names(network), case)) == 14
    result = network(lr, reference, upsampled, reference_blurred=blurred)
    assert torch.equal(result.correspondence.index, case["index"])
    compare(f"{name} sr", 2 * result.image - 1, case["sr"])

    found = network.transfer(lr, upsampled, lay_out(network.encode_reference(reference, blurred)))
    compare(f"{name} S", found.attention, case["S"])
    large, _, small = found.textures
    _, details_medium, details_small = found.details
    compare(f"{name} T_lv3", small[:, ::32], case["T_lv3_sub"])
    compare(f"{name} T_lv1", large[:, ::32, ::3, ::3], case["T_lv1_sub"])
    low_high, high_low, _ = details_small.chunk(3, dim=1)
    compare(f"{name} LH_lv3", low_high[:, ::32], case["LH_lv3_sub"])
    compare(f"{name} HL_lv3", high_low[:, ::32], case["HL_lv3_sub"])
    compare(f"{name} HH_lv2", details_medium.chunk(3, dim=1)[2][:, ::16, ::2, ::2], case["HH_lv2_sub"])
    if "grad_out" not in case.tensors:
        return

    result.image.backward(2 * case["grad_out"].to(dtype))
    compare(f"{name} grad.lr", lr.grad / 2, case["grad.lr"], case.gradient_tolerance(dtype))
    compare_gradients(network, case, dtype, GRADIENTS)


def test_wavelets_keep_all_there_is() -> None:
    x = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    encoder = WaveletEncoder((2, 3, 4)).double()
    low, details = encoder.pool(x)
    assert torch.allclose(low, 2 * torch.nn.functional.avg_pool2d(x, 2))
    bands = torch.stack([low, *details.chunk(len(HIGH_PASS), dim=1)], 1)
    kernels = torch.tensor(list(HAAR.values()), dtype=torch.float64)
    again = torch.einsum("bkchw,kij->bchiwj", bands, kernels).flatten(4, 5).flatten(2, 3)
    assert torch.allclose(again, x)
