"""CrossNet against the published implementation."""

import pytest
import torch

from frfsr.peers.crossnet import from_published, warp

PRECISIONS = (torch.float64, torch.float32)
INPUTS = ("img1_LR", "img1_SR", "img2_HR")
# Parameters whose gradients the case stores.
GRADIENTS = {
    "FlowNet.flow_12.0.bias": "flow.full.4.bias",
    "FlowNet.flow1.0.weight": "flow.heads.5.weight",
    "FlowNet.conv1.0.bias": "flow.down.0.0.bias",
    "Encoder.layer_f.0.weight": "encoder.first.0.weight",
    "UNet_decoder_2.final.0.weight": "decoder.final.weight",
}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_warp(peer_case, compare, dtype) -> None:
    case = peer_case("23_crossnet_warp_a")
    feature, flow = (case[name].to(dtype).requires_grad_() for name in ("x", "flow"))
    out = warp(feature, flow)
    compare(f"{case.name} out", out, case["out"])
    out.backward(case["grad_out"].to(dtype))
    compare(f"{case.name} grad.x", feature.grad, case["grad.x"], case.gradient_tolerance(dtype))
    compare(f"{case.name} grad.flow", flow.grad, case["grad.flow"], case.gradient_tolerance(dtype))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_complete_network(peer_case, compare, compare_gradients, watch_probes, golden_rule, dtype) -> None:
    case = peer_case("23_crossnet_a")
    network = from_published(case.state).to(dtype)
    upsampled, super_resolved, reference = (case[name].to(dtype) for name in INPUTS)
    # Probes are of convolution and activation together.
    modules = {"encoder.levels.0": "Encoder.conv1", "encoder.levels.3": "Encoder.conv4"}
    modules |= {
        "flow.down.0": "FlowNet.conv1",
        "flow.down.5": "FlowNet.conv6_1",
        "flow.feature_up.0": "FlowNet.deconv5",
    }
    modules |= {"flow.full.3": "FlowNet.concat0_conv2", "decoder.fusion": "UNet_decoder_2.post_fusion1"}
    modules |= {f"flow.heads.{6 - n}": f"FlowNet.flow{n}" for n in (6, 3, 2, 1)}
    modules |= {f"decoder.up.{4 - n}": f"UNet_decoder_2.warp_deconv{n}" for n in (4, 2)}
    assert len(watch_probes(network, modules, case)) == 13

    flows = network.flow(upsampled, reference)
    compare(f"{case.name} flow_full", flows[0][..., ::4, ::4], case["flow_full_sub"])
    compare(f"{case.name} flow_half", flows[1][..., ::2, ::2], case["flow_half_sub"])
    compare(f"{case.name} flow_quarter", flows[2], case["flow_quarter"])
    compare(f"{case.name} flow_eighth", flows[3], case["flow_eighth"])

    result = network(upsampled[..., ::4, ::4], reference, upsampled, super_resolved=super_resolved)
    compare(f"{case.name} out", result.image, case["out"])
    seed = case.entry["seed"]
    result.image.backward(golden_rule.golden_tensor("grad_out", result.image.shape, seed).to(dtype))
    compare_gradients(network, case, dtype, GRADIENTS)
