"""upscale(): every size, mode and bit depth; tiles that join without seams; strength; settings out of range."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from frfsr import upscale
from frfsr.architectures import DTYPES, load
from frfsr.errors import UserError
from frfsr.imageio import Photo
from frfsr.pixels import to_pixels
from frfsr.upscaling.options import Options
from frfsr.upscaling.prepare import color_tensor
from frfsr.upscaling.tiles import FADE, spans
from frfsr.upscaling.upscale import upscale_photo


def random_image(mode: str, height: int, width: int) -> Image.Image:
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    values = np.random.default_rng(height).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(values.squeeze(2) if bands == 1 else values)


def random_photo(channels: int, dtype: type, height: int, width: int) -> Photo:
    return Photo(np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype))


class Nearest(torch.nn.Module):
    """Stands in for the network: repeats pixels, and adds a brightness of its own to every tile."""

    halo, tile_step, max_references, searches, takes_views = 16, 1, 1, False, True

    def __init__(self, brightness: float = 0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.brightness = brightness
        self.references, self.tiles = [], []

    def encode_reference(self, reference):
        self.references.append(reference)
        return "encoded"

    def forward(self, lr, reference, upsampled):
        assert reference == "encoded"
        self.tiles.append(tuple(lr.shape[-2:]))
        image = F.interpolate(lr, scale_factor=4, mode="nearest") + self.brightness * (len(self.tiles) % 2)
        return SimpleNamespace(image=image, correspondence=None)


@pytest.mark.parametrize(
    ("mode", "height", "width", "reference_height", "reference_width"),
    [
        ("RGB", 1, 1, 1, 1),
        ("RGB", 2, 5, 40, 31),
        ("L", 17, 3, 5, 64),
        ("LA", 7, 9, 33, 2),
        ("RGBA", 13, 11, 8, 8),
    ],
)
def test_four_times_any_size_in_the_same_mode(small_model, mode, height, width, reference_height, reference_width):
    result = upscale(
        random_image(mode, height, width), random_image("RGB", reference_height, reference_width), small_model
    )
    assert result.size == (4 * width, 4 * height)
    assert result.mode == mode


def test_alpha_is_enlarged_by_pillows_bicubic(small_model):
    image = random_image("RGBA", 6, 5)
    image.putalpha(image.getchannel("A").point(lambda value: 64 + value // 2))  # between its passes Pillow also clips
    alpha = upscale(image, model=small_model).getchannel("A")
    expected = image.getchannel("A").resize((20, 24), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(np.asarray(alpha, int), np.asarray(expected, int), atol=1)


def test_16_bits_say_the_same_as_8_but_finer(small_model):
    photo = random_photo(3, np.uint8, 12, 10)
    deep = Photo(photo.pixels.astype(np.uint16) * 257)
    result, deep_result = (upscale_photo(p, [photo], small_model).photo.pixels for p in (photo, deep))
    assert deep_result.dtype == np.uint16
    np.testing.assert_allclose(deep_result / 257, result, atol=0.5 + 1e-3)
    assert np.unique(deep_result % 257).size > 100


def test_the_reference_matters_and_without_one_nothing_is_invented(small_model):
    photo, other = random_photo(3, np.uint8, 12, 10), random_photo(3, np.uint8, 30, 50)
    with torch.inference_mode():
        alone = to_pixels(small_model(color_tensor(photo), None).image[0])
    np.testing.assert_array_equal(upscale_photo(photo, [], small_model).photo.pixels, alone)
    with_other = upscale_photo(photo, [other], small_model)
    assert np.abs(with_other.photo.pixels.astype(int) - alone).max() > 1
    assert [view.size for view in with_other.report.views] == [(50, 30)]


def test_strength_lies_between_the_single_image_and_the_whole_result(small_model):
    photo, other = random_photo(3, np.uint8, 12, 10), random_photo(3, np.uint8, 30, 50)
    none, third, whole = (
        upscale_photo(photo, [other], small_model, Options(strength=strength)).photo.pixels.astype(float)
        for strength in (0, 1 / 3, 1)
    )
    np.testing.assert_array_equal(none, upscale_photo(photo, [], small_model).photo.pixels)
    inside = ((none > 0) & (none < 255)) & ((whole > 0) & (whole < 255))  # elsewhere something was clipped
    np.testing.assert_allclose(third[inside], (none + (whole - none) / 3)[inside], atol=1.01)


@pytest.mark.parametrize(("halo", "step"), [(0, 1), (5, 1), (16, 1), (24, 6), (5, 4)])
@pytest.mark.parametrize("size", [1, 7, 8, 32, 33, 47, 48, 49, 100, 211])
def test_tiles_cover_everything_once_or_fade(size, halo, step):
    covered = 0
    for span in spans(size, 32, halo, step):
        assert span.first + span.fade == covered
        assert span.fade == (FADE if span.first else 0)
        assert 2 * FADE < span.last - span.first <= 32 or span.last - span.first == size
        assert (span.start % step, span.stop) == (0, min(size, span.last + halo))
        assert min(halo, span.first) <= span.first - span.start < halo + step
        covered = span.last
    assert covered == size


@pytest.mark.parametrize(("height", "width"), [(80, 33), (32, 90), (61, 61)])
def test_tiles_of_a_local_network_join_exactly(height, width):
    photo = random_photo(3, np.uint8, height, width)
    model = Nearest()
    result = upscale_photo(photo, [photo], model, Options(tile=32)).photo.pixels
    np.testing.assert_array_equal(result, photo.pixels.repeat(4, axis=0).repeat(4, axis=1))
    assert len(model.references) == 1
    assert max(max(tile) for tile in model.tiles) <= 32 + 2 * Nearest.halo


def test_tiles_that_differ_fade_into_each_other():
    flat = Photo(np.full((70, 90, 3), 100, np.uint8))
    model = Nearest(brightness=0.2)
    result = upscale_photo(flat, [flat], model, Options(tile=32)).photo.pixels[..., 0].astype(int)
    assert len(model.tiles) > 4
    assert result.max() - result.min() == 51  # 0.2 of 255
    assert max(np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)) <= 2  # 51 over 64 pixels, rounded twice


def test_many_references_of_any_kind(small_model, tmp_path):
    random_image("L", 30, 20).save(tmp_path / "grey.jpg")
    result = upscale(random_image("RGB", 6, 5), [tmp_path / "grey.jpg", random_image("RGBA", 9, 30)], small_model)
    assert result.size == (20, 24)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close(small_model, small_model_folder, dtype):
    photo, reference = random_photo(3, np.uint8, 20, 18), random_photo(3, np.uint8, 40, 50)
    half = load(small_model_folder, "cpu", dtype)
    assert next(half.parameters()).dtype == DTYPES[dtype]
    exact, close = (upscale_photo(photo, [reference], model).photo.pixels.astype(int) for model in (small_model, half))
    assert np.abs(exact - close).mean() < 3


def test_models_by_folder(small_model, small_model_folder):
    image = random_image("RGB", 6, 5)
    by_folder = upscale(image, image, str(small_model_folder), device="cpu")
    np.testing.assert_array_equal(np.asarray(by_folder), np.asarray(upscale(image, image, small_model)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"device": "no-such-device"}, "no-such-device"),
        ({"dtype": "int8"}, "int8"),
        ({"tile": 31}, "tile"),
        ({"strength": 1.5}, "strength"),
        ({"upsampled": "9-bit"}, "9-bit"),
        ({"search": "quick"}, "quick"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": "1"}, "strength"),
        ({"tile": "64"}, "tile"),
        ({"tile": 64.5}, "tile"),
        ({"max_memory": "2GB"}, "max_memory"),
        ({"max_memory": 0}, "max_memory"),
        ({"views": "²"}, "views"),
        ({"model": torch.nn.Conv2d(3, 3, 1)}, "Conv2d is no network"),
        ({"model": "x" * 300}, "no model"),
        ({"base": 5}, "int is no single-image network"),
        ({"references": [None]}, "NoneType is no image"),
        ({"lr": "missing.png"}, "missing.png: No such file"),
    ],
)
def test_settings_that_do_not_exist(small_model_folder, options, message):
    image = random_image("RGB", 3, 3)
    with pytest.raises(UserError, match=message):
        upscale(**{"lr": image, "references": image, "model": small_model_folder, **options})


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_out_of_memory_says_what_to_do(small_model, monkeypatch, device):
    def encode_reference(image):
        if device == "cpu":
            torch.empty(10**15)  # what the CPU raises is no OutOfMemoryError
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(small_model, "encode_reference", encode_reference)
    with pytest.raises(UserError, match="reduce the references"):
        upscale(random_image("RGB", 3, 3), random_image("RGB", 9, 9), small_model)


def test_other_faults_are_not_taken_for_a_lack_of_memory(small_model, monkeypatch):
    monkeypatch.setattr(small_model, "encode_reference", lambda image: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        upscale(random_image("RGB", 3, 3), random_image("RGB", 9, 9), small_model)


@pytest.mark.parametrize("reference", [(), random_image("RGB", 9, 9)])
def test_a_result_that_is_no_image_is_refused(small_model, reference):
    model = deepcopy(small_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e30)
    with pytest.raises(UserError, match="take others"):
        upscale(random_image("RGB", 9, 9), reference, model)
