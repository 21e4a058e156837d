"""Views: the zoom and the turn at which a reference matches are found; unrelated references are named."""

from math import prod

import numpy as np
import pytest
import torch
from PIL import Image

from frfsr.imageio import Photo
from frfsr.matching import index_to_flow
from frfsr.peers import crossnet, ssen
from frfsr.upscaling import references
from frfsr.upscaling.options import Options, View
from frfsr.upscaling.prepare import EncodedReferences
from frfsr.upscaling.references import (
    UNRELATED,
    Found,
    choose,
    is_unrelated,
    judged,
    resized,
    resized_pixels,
    search,
    seen,
)
from frfsr.upscaling.upscale import upscale_photo

CPU = torch.device("cpu")


def texture(seed: int, height: int = 192, width: int = 256) -> torch.Tensor:
    """A picture with structure of every size, (1, 3, height, width)."""
    rng, total = np.random.default_rng(seed), 0.0
    for cell in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (height // cell, width // cell, 3), np.uint8))
        total = total + cell**0.5 * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    total = (total - total.min()) / np.ptp(total)
    return torch.from_numpy(total).permute(2, 0, 1)[None].contiguous()


def pixels(image: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) as (H, W, 3)."""
    return image[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("factor", [0.3, 1, 1.5])
def test_large_references_are_resized_in_bands_to_the_same_bytes(factor):
    image = texture(1, 300, 64)
    assert torch.equal(resized_pixels(pixels(image), factor), resized(image, factor))


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return resized(texture(0), 0.25)


@pytest.mark.parametrize(("zoom", "turn"), [(1.0, 0), (1.0, 90), (1.4, 270)])
def test_the_view_that_matches_is_found(photo, zoom, turn):
    """`zoom` and `turn` bring the reference back to what the photo shows."""
    reference = seen(texture(0)[..., 10:, :240], View(0, 1 / zoom, -turn % 360))
    (view,) = choose(0, search(photo, pixels(reference), CPU), most=1)
    assert view.turn == turn
    assert view.zoom == pytest.approx(zoom, rel=0.07)
    assert view.coherence > 2 * UNRELATED


def test_a_turned_view_is_the_reference_turned():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(seen(image, View(0, turn=90))[0, 0, :, 0], torch.tensor([3.0, 2.0, 1.0, 0.0]))
    assert seen(torch.rand(1, 3, 20, 30), View(0, zoom=0.5, turn=270)).shape == (1, 3, 15, 10)


@pytest.mark.parametrize("size", [(1, 3), (2, 40), (4, 4), (6, 5), (9, 12), (40, 40)])
def test_what_neighbours_share_by_chance_counts_nothing(size):
    """In a small view many matches of a photo that it does not show are neighbours all the same."""
    index = torch.randint(prod(size), (1, 24, 64), generator=torch.Generator().manual_seed(0))
    assert judged(index_to_flow(index, size[1]), 1.0, size).coherence < UNRELATED


def test_matches_that_stay_together_are_all_coherent():
    assert judged(torch.ones(1, 24, 64, 2), 1.0, (30, 70)).coherence == 1


def test_a_reference_stays_as_it_is_unless_another_view_is_clearly_better():
    close = {(0, 1.0): Found(0.2, 1.0), (0, 2.0): Found(0.3, 2.0), (90, 1.0): Found(0.1, 1.0)}
    clear = close | {(0, 2.0): Found(0.4, 2.0)}
    assert [(view.turn, view.zoom) for view in choose(3, close, 1)] == [(0, 1.0)]
    assert [(view.turn, view.zoom) for view in choose(3, clear, 1)] == [(0, 2.0)]
    assert [(view.turn, view.zoom) for view in choose(3, clear, 2)] == [(0, 2.0), (0, 1.0)]
    assert choose(3, {}, 1) == [View(3)]
    unsure, nothing = ({view: Found(each.coherence / by, each.zoom) for view, each in clear.items()} for by in (12, 20))
    assert [is_unrelated(found) for found in (clear, unsure, nothing)] == [False, False, True]
    assert [(view.turn, view.zoom) for view in choose(3, unsure, 1)] == [(0, 1.0)]
    assert [(view.turn, view.zoom) for view in choose(3, nothing, 1)] == [(0, 1.0)]


def test_a_turned_reference_is_treated_as_it_would_be_unturned():
    upright = {(0, 1.0): Found(0.2, 1.0), (0, 1.1): Found(0.25, 1.1), (90, 1.0): Found(0.01, 1.0)}
    lying = {(90 - turn, zoom): found for (turn, zoom), found in upright.items()}
    assert [(view.turn, view.zoom) for view in choose(0, upright, 1)] == [(0, 1.0)]
    assert [(view.turn, view.zoom) for view in choose(0, lying, 1)] == [(90, 1.0)]


def test_zooms_that_the_network_bridges_itself_do_not_resize():
    found = {(0, 1.0): Found(0.1, 1.02), (0, 1.02): Found(0.3, 1.02)}
    assert choose(0, found, 1)[0].zoom == 1


def test_photos_too_small_to_tell_are_not_searched():
    assert search(torch.rand(1, 3, 12, 90), np.zeros((90, 90, 3), np.uint8), CPU) == {}


def test_what_shows_nothing_of_the_photo_is_named_and_not_left_out(small_model, monkeypatch):
    found = iter([{(90, 1.0): Found(each, 1.0)} for each in (0.3, UNRELATED / 2, 0.2)])
    monkeypatch.setattr(references, "search", lambda *_: next(found))
    rng = np.random.default_rng(0)
    photo, *images = (Photo(rng.integers(0, 256, (12, 20, 3), np.uint8)) for _ in range(4))
    result = upscale_photo(photo, images, small_model, names=["a.png", "b.png", "c.png"])
    assert [(view.reference, view.turn) for view in result.report.views] == [(0, 90), (1, 0), (2, 90)]
    (warning,) = result.report.warnings
    assert warning.startswith("b.png ")
    assert sum(view.share for view in result.report.views) == pytest.approx(1)
    assert result.matches is not None
    assert result.matches.score.shape == result.matches.source.shape == photo.pixels.shape[:2]


def test_without_views_nothing_is_searched(small_model, monkeypatch):
    monkeypatch.setattr(references, "search", None)
    photo = Photo(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8))
    report = upscale_photo(photo, [photo, photo], small_model, Options(views="off")).report
    assert [(view.turn, view.zoom) for view in report.views] == [(0, 1.0), (0, 1.0)]
    assert report.warnings == ()


@pytest.mark.parametrize("network", [crossnet.CrossNet, ssen.SSEN])
def test_networks_that_search_nothing_see_references_as_they_are(network, monkeypatch):
    """They need what the photo shows in its place; a turned view would move it."""
    sizes = {
        crossnet.CrossNet: dict(channels=2, flow_channels=(2,) * 6, refine_channels=(2,) * 6, full_channels=2),
        ssen.SSEN: dict(channels=6, offset_channels=5, attention_channels=3, stages=2, blocks=(1, 2)),
    }
    model = network(network.config_class(**sizes[network])).eval()
    monkeypatch.setattr(references, "search", None)
    rng = np.random.default_rng(0)
    photo, *images = (Photo(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((12, 20), (48, 80), (80, 48)))
    seen_as = upscale_photo(photo, images, model, Options(views=3), names=["a.png", "b.png"]).report
    assert [(view.reference, view.zoom, view.turn, view.size) for view in seen_as.views] == [(0, 1.0, 0, (80, 48))]
    as_they_are = f"{model.architecture} takes references only as they are: views change nothing"
    assert seen_as.notes == (as_they_are, "the network takes 1 reference: a.png")


def test_the_next_photo_finds_the_references_of_the_last_one_encoded(small_model, monkeypatch):
    """The same bytes; and no more is held than one photo needs."""
    rng = np.random.default_rng(0)
    photos = [Photo(rng.integers(0, 256, (20 + n, 24, 3), np.uint8)) for n in range(3)]
    a, b, c = (Photo(rng.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(3))
    batches = [(photos[0], [a, b]), (photos[1], [b, a]), (photos[2], [a, c])]
    expected = [upscale_photo(photo, given, small_model, Options(views="off")) for photo, given in batches]
    encoded, encode = [], small_model.encode_reference
    monkeypatch.setattr(small_model, "encode_reference", lambda image: encoded.append(0) or encode(image))
    kept, counts = EncodedReferences(), []
    for (photo, given), alone in zip(batches, expected, strict=True):
        result = upscale_photo(photo, given, small_model, Options(views="off"), kept=kept)
        np.testing.assert_array_equal(result.photo.pixels, alone.photo.pixels)
        assert len(kept.held) == 2
        counts.append(len(encoded))
    assert counts == [2, 2, 3]
    held = kept.nbytes()
    upscale_photo(photos[0], [a], small_model, Options(views="off"), kept=kept)
    assert kept.nbytes() == held / 2
