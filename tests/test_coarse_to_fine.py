"""The coarse-to-fine search: its scores are those of the places that it names, and what moved is found."""

import pytest
import torch
import torch.nn.functional as F

from frfsr import coarse_to_fine
from frfsr.atlas import lay_out, match
from frfsr.coarse_to_fine import coarse_to_fine as search
from frfsr.kernels import patch_argmax
from frfsr.network import ReferenceFeatures


def features(seed: int, height: int, width: int) -> torch.Tensor:
    """Smooth maps of unit length per pixel, (2, 8, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 8, height // 3 + 2, width // 3 + 2, generator=generator)
    return F.normalize(F.interpolate(noise, (height, width), mode="bicubic"), dim=1)


@pytest.mark.parametrize("exact_pairs", [10**9, 1000])
def test_what_moved_is_found(monkeypatch, exact_pairs):
    """With few pairs allowed the search halves the resolution twice."""
    monkeypatch.setattr(coarse_to_fine, "EXACT_PAIRS", exact_pairs)
    key = features(0, 65, 71)
    query = key[..., 11:52, 6:49]
    score, index = search(query, key)
    expected = (torch.arange(39)[:, None] + 11) * 69 + torch.arange(41) + 6
    assert (index == expected).float().mean() > 0.97
    assert score[index == expected].min() > 0.999


def test_scores_belong_to_the_places_and_are_never_above_the_exact_ones():
    query, key = features(1, 37, 40), features(2, 44, 33)
    score, index = search(query, key)
    exact, _ = patch_argmax(query, key)
    patches = [F.normalize(F.unfold(feature, 3), dim=1) for feature in (query, key)]
    chosen = patches[1].gather(2, index.flatten(1)[:, None].expand_as(patches[0]))
    torch.testing.assert_close(score.flatten(1), (patches[0] * chosen).sum(1), atol=1e-4, rtol=0)
    assert (score <= exact + 1e-5).all()
    assert (exact - score).mean() < 0.1


@pytest.mark.parametrize("size", [(3, 3), (15, 40)])
def test_small_maps_are_searched_exactly(size):
    query, key = features(3, 20, 20), features(4, *size)
    for found, exact in zip(search(query, key), patch_argmax(query, key), strict=True):
        assert torch.equal(found, exact)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_an_atlas_says_how_it_is_searched(padding):
    query, key = features(5, 33, 30)[:1], features(6, 40, 42)[:1]
    atlas = lay_out(ReferenceFeatures(key, (key, key, key)))
    exact, fast = (match(query, atlas._replace(fast=fast), padding) for fast in (False, True))
    assert fast.flow.shape == exact.flow.shape
    assert 0.2 < (fast.index == exact.index).float().mean() < 1
    same = (fast.index == exact.index).nonzero()[0]
    assert torch.equal(fast.flow[tuple(same)], exact.flow[tuple(same)])
