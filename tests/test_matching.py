"""What matches tell of turn and scale."""

import math

import pytest
import torch
from torch import Tensor

from frfsr.matching import NO_CHANGE, similarity


def found_at(zoom: float, turn: float, height: int = 30, width: int = 40) -> Tensor:
    """Displacements in whole LR pixels of a photo that the reference shows at another zoom, turned (radians)."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    a, b = zoom * math.cos(turn), zoom * math.sin(turn)
    x, y = column - width / 2, row - height / 2
    return torch.stack([a * x - b * y - x, b * x + a * y - y], dim=-1).round()[None]


@pytest.mark.parametrize(("zoom", "turn"), [(1, 0), (0.75, 0), (1.33, 0), (1, 0.2), (1.2, -0.15)])
def test_zoom_and_turn_are_found(zoom: float, turn: float):
    """By as much as few votes for no change leave, half a tenth among four at each position."""
    expected = torch.tensor([zoom * math.cos(turn), zoom * math.sin(turn)])
    inside = similarity(found_at(zoom, turn), 4, 15)[0, 8:-8, 8:-8]
    left = NO_CHANGE / (4 + NO_CHANGE)
    torch.testing.assert_close(
        inside.mean((0, 1)), expected + left * (expected.new_tensor([1, 0]) - expected), rtol=0, atol=0.01
    )
    torch.testing.assert_close(inside, expected.expand_as(inside), rtol=0, atol=0.06)


def test_matches_that_tell_nothing_change_nothing():
    flow = 300 * torch.rand(2, 20, 24, 2, generator=torch.Generator().manual_seed(0))
    change = similarity(flow, 4, 15) - torch.tensor([1.0, 0.0])
    assert change.abs().max() < 0.15
    assert change.abs().mean() < 0.02


def test_some_wrong_matches_hardly_count():
    flow = found_at(1.25, 0)
    wrong = torch.rand(flow.shape[:3], generator=torch.Generator().manual_seed(1)) < 0.3
    flow[wrong] += 30
    inside = similarity(flow, 4, 15)[0, 8:-8, 8:-8]
    torch.testing.assert_close(inside.mean((0, 1)), torch.tensor([1.25, 0.0]), rtol=0, atol=0.03)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (4, 5), (5, 1)])
def test_photos_of_few_pixels(size: tuple[int, int]):
    torch.testing.assert_close(
        similarity(torch.zeros(1, *size, 2), 4, 15), torch.tensor([1.0, 0.0]).expand(1, *size, 2)
    )
