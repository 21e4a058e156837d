"""Several references: matched alone, on one map; no match crosses a border, and their order changes nothing."""

import pytest
import torch

from frfsr.atlas import GUARD, lay_out, match, relative, shelves
from frfsr.matching import correspond
from frfsr.network import ReferenceFeatures

SIZES = [(9, 14), (12, 5), (7, 7), (20, 3)]


def images(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 4 * height, 4 * width, generator=generator) for height, width in SIZES]


def features(generator: torch.Generator, size: tuple[int, int]) -> ReferenceFeatures:
    def random(channels: int, scale: int) -> torch.Tensor:
        return torch.rand(1, channels, *(scale * side for side in size), generator=generator)

    return ReferenceFeatures(random(5, 1), (random(2, 4), random(3, 2), random(4, 1)), random(1, 4))


@pytest.fixture
def references() -> list[ReferenceFeatures]:
    generator = torch.Generator().manual_seed(0)
    return [features(generator, size) for size in SIZES]


def test_references_lie_apart():
    (height, width), places = shelves(SIZES)
    owner = torch.zeros(height, width)
    for (row, column), (tall, wide) in zip(places, SIZES, strict=True):
        around = owner[row - GUARD : row + tall + GUARD, column - GUARD : column + wide + GUARD]
        assert around.shape == (tall + 2 * GUARD, wide + 2 * GUARD)
        assert (around == 0).all()
        owner[row : row + tall, column : column + wide] = 1


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_best_of_all_references_wins_and_the_first_of_equals(references, padding):
    query = torch.rand(1, 5, 8, 11)
    references = [*references, references[0]]
    atlas = lay_out(references)
    found = relative(match(query, atlas, padding), atlas)
    alone = [correspond(query, reference.matching, padding) for reference in references]
    scores = torch.stack([each.score for each in alone])
    assert torch.equal(found.score, scores.amax(0))
    assert found.source.max() < len(SIZES)  # never the copy of the first
    assert found.source.unique().numel() > 2
    inside = found.source if padding == "same" else found.source[:, :-2, :-2]
    flows = torch.stack([each.flow for each in alone]).gather(0, found.source[None, ..., None].expand(1, 1, 8, 11, 2))
    assert torch.equal(found.flow, flows[0])
    assert torch.equal(found.index, torch.stack([each.index for each in alone]).gather(0, inside[None])[0])


def test_the_map_holds_every_reference_between_zeros(references):
    atlas = lay_out(references)
    for level, scale in enumerate((4, 2, 1)):
        total = sum(reference.pyramid[level].sum() for reference in references)
        torch.testing.assert_close(atlas.pyramid[level].sum(), total)
        for reference, (row, column) in zip(references, atlas.places, strict=True):
            height, width = reference.pyramid[level].shape[-2:]
            there = atlas.pyramid[level][..., scale * row :, scale * column :][..., :height, :width]
            assert torch.equal(there, reference.pyramid[level])


def test_one_reference_is_its_own_map(references):
    atlas = lay_out(references[:1])
    assert atlas.pyramid is references[0].pyramid
    assert match(torch.rand(1, 5, 8, 11), atlas, "same").source is None


@torch.inference_mode()
def test_copies_of_one_reference_change_nothing(small_model):
    """Whichever copy a position takes, and wherever it lies on the map, the result is that of one."""
    lr, (reference, *_) = torch.rand(1, 3, 17, 23), images()
    encoded = small_model.encode_reference(reference)
    alone = small_model(lr, encoded)
    several = small_model(lr, [encoded, encoded, encoded])
    torch.testing.assert_close(several.image, alone.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(several.correspondence.flow, alone.correspondence.flow, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_order_of_references_changes_nothing(small_model):
    lr = torch.rand(1, 3, 17, 23)
    encoded = [small_model.encode_reference(reference) for reference in images()]
    forward, backward = small_model(lr, encoded), small_model(lr, encoded[::-1])
    assert forward.correspondence.source.unique().numel() > 2
    assert torch.equal(forward.correspondence.source, len(encoded) - 1 - backward.correspondence.source)
    torch.testing.assert_close(forward.image, backward.image, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_reference_that_matches_nowhere_changes_nothing(small_model):
    lr, (reference, *_) = torch.rand(1, 3, 17, 23), images()
    encoded = small_model.encode_reference(reference)
    useless = encoded._replace(matching=torch.zeros_like(encoded.matching))
    torch.testing.assert_close(
        small_model(lr, [useless, encoded]).image, small_model(lr, encoded).image, atol=1e-5, rtol=0
    )


@torch.inference_mode()
def test_a_tile_knows_its_place_in_the_photo(small_model):
    """Published networks also see the reference unwarped, at the position in the photo and not in the tile."""
    generator = torch.Generator().manual_seed(1)
    key = features(generator, (20, 24))
    atlas = lay_out(key)
    query = torch.rand(1, 5, 30, 40)
    whole = match(query, atlas, "same")
    tile = match(query[..., 10:22, 7:30], atlas._replace(corner=(10, 7)), "same")
    inner = (slice(None), slice(1, -1), slice(1, -1))  # at the border patches see replicated pixels
    expected = whole.index[:, 10:22, 7:30]
    assert torch.equal(tile.index[inner], expected[inner])
    place = relative(tile, atlas._replace(corner=(10, 7)))
    assert torch.equal(place.flow[inner], whole.flow[:, 10:22, 7:30][inner])
    assert torch.equal(tile.still[0, 0, 0], torch.tensor([7.0, 10.0]))
    assert (tile.still[0, 10:] < -1000).all()
    assert (tile.still[0, :, 17:] < -1000).all()
