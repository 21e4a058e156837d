"""References too large for the memory: every tile takes the part of them that shows its content, at full size."""

import numpy as np
import pytest
import torch
from PIL import Image

from frfsr.imageio import Photo
from frfsr.pixels import to_pixels
from frfsr.upscaling import fitting, prepare
from frfsr.upscaling.matches import matched_place
from frfsr.upscaling.nearby import Nearby, locate
from frfsr.upscaling.options import Options, View
from frfsr.upscaling.prepare import color_tensor
from frfsr.upscaling.references import resized_pixels
from frfsr.upscaling.tiles import Span
from frfsr.upscaling.upscale import upscale_photo

HEIGHT, WIDTH = 192, 256


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    """A picture with structure of every size, (HEIGHT, WIDTH, 3) uint8."""
    rng, total = np.random.default_rng(0), np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for cell in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (HEIGHT // cell, WIDTH // cell, 3), np.uint8))
        total += cell**0.5 * np.asarray(noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    return np.uint8(255 * (total - total.min()) / np.ptp(total))


@pytest.fixture(scope="module")
def photo(sharp) -> Photo:
    small = resized_pixels(sharp, 0.25)[0]
    return Photo(np.uint8(255 * small.permute(1, 2, 0).numpy()))


@pytest.fixture
def little_memory(monkeypatch) -> None:
    """For 70 % of the reference's pixels."""
    monkeypatch.setattr(fitting, "LARGEST_REFERENCES", 7 * HEIGHT * WIDTH // 10)


OPTIONS = Options(tile=32, views="off")


@torch.inference_mode()
def test_with_memory_enough_references_are_taken_whole(small_model, photo, sharp):
    references = [Photo(sharp), Photo(np.ascontiguousarray(sharp[:, :128]))]
    result = upscale_photo(photo, references, small_model, Options(views="off", max_memory=10**12))
    assert result.report.notes == ()
    assert [(view.size, view.zoom) for view in result.report.views] == [((256, 192), 1.0), ((128, 192), 1.0)]
    encoded = [small_model.encode_reference(color_tensor(reference)) for reference in references]
    whole = small_model(color_tensor(photo), encoded).image
    np.testing.assert_array_equal(result.photo.pixels, to_pixels(whole[0]))


def test_tiles_that_leave_no_room_for_references_are_not_taken(small_model, monkeypatch):
    """Alone such a tile would fit."""

    def needed(self, references, side):
        return 200 * sum(height * width for height, width in references) + (
            2 * self.free if references and side > 100 else 0
        )

    monkeypatch.setattr(fitting.Fitting, "needed", needed)
    room = fitting.Fitting(small_model, small_model, (750, 1000), free=10**9, writing=0)
    preparation = prepare.Preparation(small_model, Options(), [], prepare.EncodedReferences(), room)
    side, factor = preparation.divided([(3000, 4000)], [View(0, size=(4000, 3000))])
    assert side > 4 * (96 + small_model.halo)  # enough for tiles of 96
    assert 0.3 < factor < 0.7


@pytest.mark.parametrize("zoom", [1.0, 0.77])
@torch.inference_mode()
def test_what_a_tile_takes_does_not_depend_on_the_tiles_before(small_model, photo, sharp, zoom):
    height, width = round(zoom * HEIGHT), round(zoom * WIDTH)
    view = View(0, zoom, size=(width, height))
    nearby = Nearby(
        [view, view],
        [sharp],
        [locate(color_tensor(photo), sharp, view, torch.device("cpu"))],
        whole=[resized_pixels(sharp, 0.3)],
        side=96,
        encode=small_model.encode_reference,
    )
    tiles = [(Span(0, 30, 0, 24, 0), Span(0, 30, 0, 24, 0)), (Span(18, 48, 24, 48, 8), Span(30, 64, 40, 64, 8))]
    states = []
    for tile in (*tiles, tiles[0]):
        atlas, numbers, shifts = nearby.near(*tile)
        assert numbers.tolist() == [0, 1]
        assert atlas.references[0].pyramid[0].shape[-2:] == (96, 96)
        states.append(
            [shifts, *(part.matching for part in atlas.references), *(map_.clone() for map_ in atlas.pyramid)]
        )
    assert all(map(torch.equal, states[0], states[2]))
    assert not torch.equal(states[0][0], states[1][0])


@pytest.mark.usefixtures("little_memory")
def test_tiles_take_the_part_that_shows_their_content(small_model, photo, sharp):
    shift = 12
    result = upscale_photo(photo, [Photo(np.roll(sharp, shift, axis=1))], small_model, OPTIONS)
    part, whole = result.report.views
    assert (part.zoom, part.size) == (1.0, (WIDTH, HEIGHT))
    assert whole.size[0] < 0.6 * WIDTH
    assert part.share > 0.8
    (note,) = result.report.notes
    assert "for each tile" in note
    assert "reduced to 59%" in note
    places = [
        matched_place(result.report, result.matches, x, y) for x in range(20, 220, 24) for y in range(20, 180, 24)
    ]
    truth = [(x + shift, y) for x in range(20, 220, 24) for y in range(20, 180, 24)]
    right = [abs(place.x - x) <= 4 and abs(place.y - y) <= 4 for place, (x, y) in zip(places, truth, strict=True)]
    assert np.mean(right) > 0.8


@pytest.mark.usefixtures("little_memory")
def test_parts_are_turned_as_their_view_is(small_model, photo, sharp, monkeypatch):
    monkeypatch.setattr(prepare.Preparation, "choose_views", lambda *_: [View(0, turn=90)])
    lying = upscale_photo(photo, [Photo(np.ascontiguousarray(np.rot90(sharp, -1)))], small_model, Options(tile=32))
    assert lying.report.views[0].share > 0.8
    place = matched_place(lying.report, lying.matches, 100, 60)
    assert (place.x, place.y) == pytest.approx((HEIGHT - 60, 100), abs=4)


@pytest.mark.usefixtures("little_memory")
def test_the_order_of_large_references_changes_nothing(small_model, photo, sharp):
    references = [Photo(sharp[:, :128]), Photo(sharp[:, 128:])]
    results = [upscale_photo(photo, order, small_model, OPTIONS) for order in (references, references[::-1])]
    shares = [[view.share for view in result.report.views] for result in results]
    assert shares[0] == pytest.approx([shares[1][1], shares[1][0], shares[1][3], shares[1][2]])
    pixels = [result.photo.pixels.astype(int) for result in results]
    np.testing.assert_allclose(*pixels, atol=1)  # sums are rounded by where a reference lies on the map
