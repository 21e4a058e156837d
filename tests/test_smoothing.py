"""The flow between matches: continuous where they agree, untouched where they do not."""

import pytest
import torch
from torch import Tensor

from frfsr.alignment import FAM
from frfsr.config import FRFSRConfig
from frfsr.errors import UserError
from frfsr.kernels import deform_conv, flow_warp
from frfsr.matching import enlarge_flow
from frfsr.network import Correspondence
from frfsr.smoothing import interpolate_flow, smooth_flow, smooth_taps

SCALE = 4


def zoomed(zoom: float, side: int) -> Tensor:
    """The flow (1, side, side, 2) to a reference that shows everything `zoom` times as large."""
    step = (zoom - 1) * torch.arange(side, dtype=torch.float64)
    return torch.stack(torch.meshgrid(step, step, indexing="xy"), dim=-1)[None]


@pytest.fixture
def scattered() -> Tensor:
    """Displacements of which no neighbours agree."""
    return 4.0 * torch.arange(2 * 7 * 9).reshape(1, 7, 9, 2).float()


def test_matches_that_do_not_agree_stay(scattered: Tensor) -> None:
    assert torch.equal(smooth_flow(scattered), scattered)
    fine = interpolate_flow(scattered, scattered, SCALE)
    assert torch.equal(fine, enlarge_flow(scattered, SCALE))
    others = [tap for tap in range(9) if tap != 4]
    change = smooth_taps(scattered, fine, SCALE).unflatten(1, (9, 2))
    assert not change[:, others, :, SCALE:-SCALE, SCALE:-SCALE].any()  # at the border a neighbour is the pixel itself


@pytest.mark.parametrize("zoom", [0.6, 0.75, 1.33, 1.7])
def test_a_zoomed_reference_is_followed_between_the_pixels(zoom: float) -> None:
    """To a tenth of an LR pixel, from displacements that were rounded to quarters of one."""
    flow = (SCALE * zoomed(zoom, 20)).round() / SCALE
    fine = interpolate_flow(smooth_flow(flow), flow, SCALE) / SCALE
    position = (torch.arange(20 * SCALE, dtype=torch.float64) + 0.5) / SCALE - 0.5
    inner = slice(8 * SCALE, -8 * SCALE)
    for axis, got in ((0, fine[0, 40, inner, 0]), (1, fine[0, inner, 40, 1])):
        assert (got - (zoom - 1) * position[inner]).abs().max() < 0.1, axis


def test_the_border_between_two_pieces_stays_sharp() -> None:
    flow = torch.zeros(1, 6, 10, 2)
    flow[:, :, 5:] = torch.tensor([30.0, -7.0])
    fine = interpolate_flow(smooth_flow(flow), flow, SCALE)
    assert torch.equal(fine, enlarge_flow(flow, SCALE))


def test_taps_follow_the_smooth_flow() -> None:
    """With its middle tap alone the deformable convolution is the warp by the smooth flow."""
    torch.manual_seed(0)
    flow, reference = zoomed(1.33, 8).float(), torch.randn(1, 2, 60, 60)
    fine = interpolate_flow(smooth_flow(flow), flow, SCALE)
    weight = torch.zeros(2, 2, 3, 3)
    weight[range(2), range(2), 1, 1] = 1
    offset = smooth_taps(flow, fine, SCALE)
    mask = torch.ones(1, 9, *offset.shape[-2:])
    got = deform_conv(reference, offset, mask, weight, None, flow=flow, flow_scale=SCALE, match_padding="same")
    torch.testing.assert_close(got, flow_warp(reference, fine), atol=1e-4, rtol=1e-4)
    outer = smooth_taps(flow, fine, SCALE).unflatten(1, (9, 2))[0, 0, :, 16, 16]
    neighbour = fine[0, 17, 17].flip(-1) - SCALE * flow[0, 5, 5].flip(-1)  # tap (0, 0): the patch below on the right
    torch.testing.assert_close(outer, neighbour)


def test_mixed_precision_rounds_no_place() -> None:
    flow = zoomed(1.33, 8).float() + 700
    exactly = interpolate_flow(smooth_flow(flow), flow, SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        fine = interpolate_flow(smooth_flow(flow), flow, SCALE)
        change = smooth_taps(flow, fine, SCALE)
    assert torch.equal(fine, exactly)
    assert torch.equal(change, smooth_taps(flow, exactly, SCALE))


def test_alignment_is_the_same_where_the_flow_is_constant() -> None:
    torch.manual_seed(0)
    module = FAM(4, 8, SCALE, 2, "same")
    flow = torch.full((2, 5, 6, 2), 2.0)
    lr, reference = torch.randn(2, 4, 20, 24), torch.randn(2, 8, 40, 40)

    def aligned(smooth: Tensor | None) -> Tensor:
        index = torch.zeros(2, 5, 6, dtype=torch.int64)
        return module(lr, reference, Correspondence(torch.zeros(2, 5, 6), flow, index, smooth=smooth))

    torch.testing.assert_close(aligned(smooth_flow(flow)), aligned(None))
    flow[:, :, 3:] = 1.0  # neighbours that agree, but differ
    assert not torch.allclose(aligned(smooth_flow(flow)), aligned(None))


def test_smooth_flow_needs_matches_in_the_middle_of_their_patches() -> None:
    with pytest.raises(UserError, match="flow: smooth needs match_padding: same"):
        FRFSRConfig.tiny(refine=0, match_padding="valid")
