"""DATSR against its published implementation's numbers (case 21)."""

import pytest
import torch
from torch import nn

from frfsr.network import Correspondence
from frfsr.peers import datsr
from frfsr.peers.swin import SwinBody, SwinSizes
from frfsr.states import load_published, published_key

PRECISIONS = (torch.float64, torch.float32)
ACTIVATED = tuple(f"dyn_agg_restore.{stage}_dyn_agg" for stage in datsr.STAGES)  # here with the activation after


def compare_gradients(compare, case, module: nn.Module, names: dict[str, str], dtype: torch.dtype) -> int:
    """Compare the parameters' gradients that the case has; their number."""
    found = 0
    for ours, parameter in module.named_parameters():
        theirs = f"grad.{published_key(ours, names)}"
        if theirs in case.tensors:
            found += 1
            compare(f"{case.name} {theirs}", parameter.grad, case[theirs], case.gradient_tolerance(dtype))
    return found


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_complete_chain(peer_case, watch_probes, compare, dtype) -> None:
    case = peer_case("21_datsr_a")
    network = datsr.from_published(case.parts).to(dtype)
    names = datsr.restoration_names(network.config)
    assert len(watch_probes(network.aggregation, names, case, without=ACTIVATED)) == 11
    result = network(case["lq"].to(dtype), case["ref"].to(dtype), upsampled=case["up"].to(dtype))
    assert torch.equal(result.correspondence.index, case["index"])
    compare("21_datsr_a out", result.image, case["out"])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gradients_of_a_batch(peer_case, compare, dtype) -> None:
    case = peer_case("21_datsr_b2")
    network = datsr.from_published(case.parts).to(dtype)
    lq = case["lq"].to(dtype).requires_grad_()
    reference = network.encode_reference(case["ref"].to(dtype))
    pyramid = tuple(feature.detach().requires_grad_() for feature in reference.pyramid)
    result = network(lq, reference._replace(pyramid=pyramid), upsampled=case["up"].to(dtype))
    assert torch.equal(result.correspondence.index, case["index"])
    compare("21_datsr_b2 out", result.image, case["out"])
    (result.image * case["grad_out"].to(dtype)).sum().backward()
    tolerance = case.gradient_tolerance(dtype)
    compare("21_datsr_b2 grad.lq", lq.grad, case["grad.lq"], tolerance)
    compare("21_datsr_b2 grad.relu3_1", pyramid[2].grad[:, ::16], case["grad.relu3_1_sub"], tolerance)
    compare("21_datsr_b2 grad.relu1_1", pyramid[0].grad[:, ::16, ::3, ::3], case["grad.relu1_1_sub"], tolerance)
    names = datsr.restoration_names(network.config)
    assert compare_gradients(compare, case, network.aggregation, names, dtype) == 7


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_deformable_aggregation(peer_case, compare, dtype) -> None:
    case = peer_case("21_datsr_dcn_a")

    module = datsr.BoundedFAM(1, 16, 1, 2, "valid")
    state = dict(case.state)
    for unused in ("offset_conv1", "offset_conv2"):
        state |= {f"{unused}.{name}": value for name, value in getattr(module, unused).state_dict().items()}
    names = {"offset_mask": "conv_offset_mask"}
    load_published(module, state, names, "dcn")
    module.to(dtype)
    x, features = (case[name].to(dtype).requires_grad_() for name in ("x", "features"))
    match = Correspondence(case["similarity"][:, 0], case["flow"], torch.empty(0))
    out = module.aggregate(x, features, match)
    compare("21_datsr_dcn_a out", out, case["out"])
    out.backward(case["grad_out"].to(dtype))
    tolerance = case.gradient_tolerance(dtype)
    compare("21_datsr_dcn_a grad.x", x.grad, case["grad.x"], tolerance)
    compare("21_datsr_dcn_a grad.features", features.grad, case["grad.features"], tolerance)
    weight = module.offset_mask.weight.grad[::3, ::2]
    compare("21_datsr_dcn_a grad.offset", weight, case["grad.conv_offset_mask.weight_sub"], tolerance)
    assert compare_gradients(compare, case, module, names, dtype) == 3


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_swin_body(peer_case, compare, dtype) -> None:
    case = peer_case("21_datsr_swin_a")
    sizes = case.entry["ctor"]
    depths, heads = tuple(sizes["depths"]), tuple(sizes["num_heads"])
    body = SwinBody(SwinSizes(sizes["embed_dim"], depths, heads, sizes["window_size"], hidden=64))
    names = {ours[1:]: theirs[1:] for ours, theirs in datsr.swin_names(depths).items() if ours}
    load_published(body, case.state, names, "SwinBlock")
    body.to(dtype).eval()
    x = case["x"].to(dtype).requires_grad_()
    out = body(x)
    compare("21_datsr_swin_a out", out, case["out"])
    out.backward(case["grad_out"].to(dtype))
    compare("21_datsr_swin_a grad.x", x.grad, case["grad.x"], case.gradient_tolerance(dtype))
    assert compare_gradients(compare, case, body, names, dtype) == 5
