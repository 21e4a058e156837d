"""The block matching that moves a flow to a quarter of an LR pixel: known shifts, and its definition in plain loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frfsr.matching import BLOCK, blurred_luma, index_to_flow, refine

MARGIN = (BLOCK - 4) // 2


def textures(batch: int, height: int, width: int, seed: int) -> Tensor:
    coarse = torch.rand(batch, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, scale_factor=4, mode="bicubic", align_corners=False).clamp(0, 1)


def refined_by_definition(position: tuple[int, int], at: tuple[int, int], query: Tensor, key: Tensor, radius: int):
    """The step (x, y) in reference pixels of one LR position, matched at LR position ``at`` of the reference."""

    def block(image: Tensor, row: int, column: int) -> Tensor:
        rows, columns = (
            torch.arange(start, start + BLOCK).clamp(0, side - 1)
            for start, side in zip((row, column), image.shape, strict=True)
        )
        values = image[rows[:, None], columns].double()
        return values - values.mean()

    pattern = block(query, 4 * position[0] - MARGIN, 4 * position[1] - MARGIN)
    scores = {}
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            candidate = block(key, 4 * at[0] - MARGIN + y, 4 * at[1] - MARGIN + x)
            cosine = (pattern * candidate).sum() / (pattern.norm() * candidate.norm())
            scores[x, y] = cosine - 1e-4 * (x * x + y * y) ** 0.5
    return max(scores, key=scores.get)


@pytest.mark.parametrize("shift", [(0, 0), (3, 1), (-2, 4)])
def test_a_known_shift_is_found(shift: tuple[int, int]) -> None:
    """shift: (x, y) in reference pixels. Borders, whose blocks are made of replicated pixels, are left out."""
    scene = textures(1, 96, 120, seed=0)
    query = blurred_luma(scene)
    key = query.roll(shift, dims=(3, 2))
    flow = refine(torch.zeros(1, 24, 30, 2), query, key, radius=4)
    assert (flow[:, 3:-3, 3:-3] == torch.tensor(shift) / 4).all()


def test_equals_its_definition_up_to_the_borders() -> None:
    query, key = blurred_luma(textures(2, 20, 24, seed=1)), blurred_luma(textures(2, 28, 16, seed=2))
    index = torch.randint(7 * 4, (2, 5, 6), generator=torch.Generator().manual_seed(3))
    flow = index_to_flow(index, 4)
    steps = 4 * (refine(flow, query, key, radius=2) - flow)
    for b, row, column in [(0, 0, 0), (0, 4, 5), (1, 2, 3), (1, 0, 5), (1, 4, 0), (0, 1, 1)]:
        at = divmod(int(index[b, row, column]), 4)
        expected = refined_by_definition((row, column), at, query[b, 0], key[b, 0], radius=2)
        assert tuple(steps[b, row, column].int().tolist()) == expected
