"""References too large for the memory: every tile takes the part of them that shows its content, at full size."""

import numpy as np
import pytest
from PIL import Image

from frfsr.imageio import Photo
from frfsr.upscaling import fitting, prepare
from frfsr.upscaling.matches import matched_place
from frfsr.upscaling.options import Options, View
from frfsr.upscaling.references import resized_pixels
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


@pytest.mark.usefixtures("little_memory")
def test_tiles_take_the_part_that_shows_their_content(small_model, photo, sharp):
    shift = 12
    result = upscale_photo(photo, [Photo(np.roll(sharp, shift, axis=1))], small_model, OPTIONS)
    part, whole = result.report.views
    assert (part.zoom, part.size) == (1.0, (WIDTH, HEIGHT))
    assert whole.size[0] < 0.6 * WIDTH
    assert part.share > 0.8
    assert "for each tile" in result.report.notes[0]
    assert "reduced to 59%" in result.report.notes[1]
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
