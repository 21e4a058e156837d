"""MASA against its published implementation's numbers (case 11)."""

import pytest
import torch
from einops import rearrange
from torch import Tensor

from frfsr.network import resize_as_pillow
from frfsr.peers import masa
from frfsr.peers.masa_matching import match_blocks
from frfsr.pixels import pad_sides

PRECISIONS = (torch.float64, torch.float32)


def images(case, names: tuple[str, ...], dtype: torch.dtype) -> list[Tensor]:
    """A case's images as RGB in [0, 1]."""
    return [(case[name].to(dtype) / (255 if case[name].dtype == torch.uint8 else 1)).flip(1) for name in names]


def require_same_matches(network: masa.MASA, lr: Tensor, reference: masa.MASAReference, case, compare) -> None:
    """Compare both searches with the published ones."""
    match = match_blocks(network.aggregation.encoder(lr)[0], reference.encoded[0].reduced, (2, 3))
    assert torch.equal(rearrange(match.block, "b y x -> b (y x)"), case["block_index"])
    assert torch.equal(rearrange(match.index, "b y x p q -> (b y x) p q"), case["patch_index"])
    score = rearrange(match.score, "b y x p q -> (b y x) p q")
    compare(f"{case.name} patch_score", score, case["patch_score"])


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_network(peer_case, compare, dtype) -> None:
    case = peer_case("11_masa_net_b")
    network = masa.from_published(case.state).to(dtype)
    lr, reference, reduced = images(case, ("LR", "Ref", "Ref_down"), dtype)
    require_same_matches(network, lr, network.encode_reference(reference, reduced), case, compare)
    result = network(lr, reference, reference_reduced=reduced)
    compare("11_masa_net_b out", result.image, case["out"].flip(1))


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_published_data_path(peer_case, watch_probes, compare, dtype) -> None:
    """The reference as a file has it: the network pads and reduces it."""
    case = peer_case("11_masa_a")
    network = masa.from_published(case.state).to(dtype)
    lr, reduced = images(case, ("LR_pad", "Ref_down"), dtype)
    reference = rearrange(case["Ref_image"], "b h w c -> b c h w").flip(1).to(dtype) / 255
    padded = pad_sides(reference, 16, 16)
    own = network.encode_reference(reference)
    torch.testing.assert_close(resize_as_pillow(padded, 20, 24), reduced)
    without = ("decoder.conv_out",)  # here in the order of RGB
    assert len(watch_probes(network.aggregation, masa.NAMES, case, without)) == 8
    result = network(lr, padded, reference_reduced=reduced)
    compare("11_masa_a out_pad", result.image, case["out_pad"].flip(1))
    crop = result.image[..., 1:63, 3:93]
    compare("11_masa_a out_crop", crop, case["out_crop"].flip(1))
    require_same_matches(network, lr, own, case, compare)
