"""Several references: matched alone, on one map; no match crosses a border, and their order changes nothing."""

import pytest
import torch
from einops import rearrange

from frfsr.atlas import GUARD, lay_out, match, prominence, relative, replaced, settled, shelves
from frfsr.matching import best_patch, correspond, index_to_flow
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
def test_what_stands_out_most_of_all_references_wins_and_the_first_of_equals(padding):
    generator = torch.Generator().manual_seed(1)
    three = [features(generator, size) for size in ((9, 16), (12, 25), (8, 14))]
    query = torch.cat([three[0].matching[..., :8, :14], three[1].matching[..., 2:10, 5:25], three[2].matching], -1)
    references = [*three, three[0]]
    atlas = lay_out(references)
    found = relative(match(query, atlas, padding), atlas)
    alone = [best_patch(query, reference.matching, padding) for reference in references]
    border = 0 if padding == "same" else 2
    widths = [reference.matching.shape[-1] - border for reference in references]
    evidence = [prominence(score, index_to_flow(index, w)) for (score, index), w in zip(alone, widths, strict=True)]
    source = torch.stack(evidence).argmax(0)
    assert source.unique().tolist() == [0, 1, 2]  # never the copy of the first
    inside = (slice(None), slice(8 - border), slice(48 - border))
    assert torch.equal(found.source[inside], source)
    assert torch.equal(found.index, torch.stack([index for _, index in alone]).gather(0, source[None])[0])
    each = torch.stack([correspond(query, reference.matching, padding).flow for reference in references])
    flow = each.gather(0, found.source[None, ..., None].expand(1, 1, 8, 48, 2))[0]
    assert torch.equal(found.flow[inside], flow[inside])


def test_matches_stand_out_where_their_neighbours_agree():
    """A shift, and places in order with a little drift, are coherent; one place for all, and chance, are not."""
    score = torch.full((1, 20, 24), 0.5)
    column = torch.arange(24.0).expand(20, 24)
    flows = {
        "shift": torch.full((1, 20, 24, 2), 3.0),
        "drift": torch.stack([(column / 6).round(), column * 0], -1)[None],
        "one place": torch.stack([-column, column * 0], -1)[None],
        "chance": 40 * torch.rand(1, 20, 24, 2, generator=torch.Generator().manual_seed(0)),
    }
    found = {name: float(prominence(score, flow).mean()) for name, flow in flows.items()}
    assert found["shift"] == pytest.approx(1.5)
    assert found["drift"] == pytest.approx(1.5, abs=0.01)
    assert found["one place"] == pytest.approx(1.0, abs=0.05)  # agrees along the columns only
    assert found["chance"] < 0.6


def test_a_coherent_match_wins_against_a_slightly_better_score():
    """The reference shows the photo's own texture at a distance, noisily; the other one holds copies of its pixels."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 16, 24, 30, generator=generator)
    same = torch.roll(query, 3, -1) + 0.6 * torch.randn(query.shape, generator=generator)
    blocks = rearrange(query[..., :24, :30], "b c (i h) (j w) -> (i j) b c h w", h=3, w=3)
    mixed = blocks[torch.randperm(80, generator=generator)]
    mixed = rearrange(mixed, "(i j) b c h w -> b c (i h) (j w)", i=8) + 0.4 * torch.randn(
        query.shape, generator=generator
    )
    encoded = [features(generator, (24, 30))._replace(matching=matching) for matching in (mixed, same)]
    found = match(query, lay_out(encoded), "same")
    assert (found.source == 1).float().mean() > 0.98
    better = correspond(query, mixed, "same").score > correspond(query, same, "same").score
    assert better.float().mean() > 0.1


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
    lr = torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(3))
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


def test_a_reference_takes_the_place_of_another_on_the_map(references):
    old, new = (features(torch.Generator().manual_seed(seed), SIZES[1]) for seed in (5, 6))
    atlas = settled(lay_out([references[0], old, *references[2:]]))
    for layer, own in zip(atlas.pyramid, atlas.references[1].pyramid, strict=True):
        assert own.untyped_storage().data_ptr() == layer.untyped_storage().data_ptr()  # no second copy is kept
    changed, expected = replaced(atlas, 1, new), lay_out([references[0], new, *references[2:]])
    assert all(map(torch.equal, (*changed.pyramid, changed.luma), (*expected.pyramid, expected.luma)))
    for one, other in zip(changed.references, expected.references, strict=True):
        assert torch.equal(one.matching, other.matching)
        assert all(map(torch.equal, one.pyramid, other.pyramid))
        assert torch.equal(one.luma, other.luma)


def test_one_reference_alone_of_a_map_is_matched_where_it_lies(references):
    atlas, query = lay_out(references), torch.rand(1, 5, 8, 11)
    alone = atlas._replace(references=atlas.references[1:2], places=atlas.places[1:2])
    expected = match(query, lay_out(references[1]), "same")
    assert torch.equal(relative(match(query, alone, "same"), alone).flow, expected.flow)
