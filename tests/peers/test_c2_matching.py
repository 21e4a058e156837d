"""C2-Matching against its published implementation's numbers (case 10)."""

import pytest
import torch

from frfsr.peers import c2_matching

PRECISIONS = (torch.float64, torch.float32)
ACTIVATED = tuple(f"dyn_agg_restore.{scale}_dyn_agg" for scale in c2_matching.SCALES)  # here with the activation after


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["10_c2_chain_n2", "10_c2_chain_n16"])
@torch.no_grad()
def test_complete_chain(peer_case, watch_probes, compare, name, dtype) -> None:
    case = peer_case(name)
    network = c2_matching.from_published(case.parts).to(dtype)
    watched = watch_probes(network.aggregation, c2_matching.restoration_names(), case, without=ACTIVATED)
    assert len(watched) == 7
    result = network(case["lq"].to(dtype), case["ref"].to(dtype), upsampled=case["up"].to(dtype))
    assert torch.equal(result.correspondence.index, case["index"])
    compare(f"{name} out", result.image, case["out"])
