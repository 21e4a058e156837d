"""frfsr.upscale() of everything that people have in Python: what comes back, with which pixels, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import frfsr
from frfsr.cli import main
from frfsr.errors import UserError
from frfsr.imageio import Photo, write_photo
from frfsr.upscaling.kinds import as_photos, as_references


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with photo.png and sharp.png."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(noise(9, 13, 3)).save(folder / "photo.png")
    Image.fromarray(noise(40, 31, 3)).save(folder / "sharp.png")
    return folder


@pytest.fixture(scope="module")
def expected(files, small_model_folder) -> np.ndarray:
    """What the command line makes of them."""
    command = [str(files / "photo.png"), "--reference", str(files / "sharp.png"), "-o", str(files / "out.png"), "-q"]
    assert main(["upscale", *command, "--model", str(small_model_folder), "--device", "cpu"]) == 0
    return np.asarray(Image.open(files / "out.png"))


@pytest.mark.parametrize("kind", [str, Path, Path.read_bytes, lambda file: io.BytesIO(file.read_bytes()), Image.open])
def test_files_come_back_as_pillow_images(files, small_model, expected, kind):
    result = frfsr.upscale(kind(files / "photo.png"), kind(files / "sharp.png"), small_model)
    assert isinstance(result, Image.Image)
    np.testing.assert_array_equal(result, expected)


def test_an_open_file(files, small_model, expected):
    with open(files / "photo.png", "rb") as photo, open(files / "sharp.png", "rb") as sharp:
        np.testing.assert_array_equal(frfsr.upscale(photo, [sharp], small_model), expected)


def test_an_array_comes_back_as_an_array(small_model, expected):
    photo, sharp = noise(9, 13, 3), noise(40, 31, 3)
    np.testing.assert_array_equal(frfsr.upscale(photo, sharp, small_model), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_is_not_rounded(small_model, expected, dtype):
    photo, sharp = (noise(*shape).astype(dtype) / 255 for shape in ((9, 13, 3), (40, 31, 3)))
    result = frfsr.upscale(photo, sharp, small_model)
    assert result.dtype == dtype
    np.testing.assert_array_equal(np.rint(result * 255), expected)
    assert (np.abs(result * 255 - expected) > 0.1).any()


def test_16_bits_of_colour_stay(small_model, tmp_path, small_model_folder):
    photo, sharp = noise(6, 5, 3, dtype=np.uint16), noise(24, 30, 3)
    result = frfsr.upscale(photo, [sharp], small_model)
    write_photo(Photo(photo), tmp_path / "photo.png")
    Image.fromarray(sharp).save(tmp_path / "sharp.png")
    command = ["upscale", str(tmp_path / "photo.png"), "--reference", str(tmp_path / "sharp.png"), "-q"]
    main([*command, "-o", str(tmp_path / "out.png"), "--model", str(small_model_folder), "--device", "cpu"])
    (written,) = as_photos(tmp_path / "out.png", "out")
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, written.pixels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_comes_back_as_a_tensor(small_model, expected, dtype):
    pair = [channels_first(noise(*shape)) for shape in ((9, 13, 3), (40, 31, 3))]
    photo, sharp = pair if dtype == torch.uint8 else ((image.float() / 255).to(dtype) for image in pair)
    result = frfsr.upscale(photo, sharp, small_model)
    assert (result.dtype, result.shape) == (dtype, (3, 36, 52))
    values = result if dtype == torch.uint8 else (result.float() * 255).round()
    assert (values - channels_first(expected).float()).abs().max() <= (
        0 if dtype in (torch.uint8, torch.float32) else 8
    )


def test_a_batch_is_enlarged_one_by_one(small_model):
    photos, sharp = torch.rand(2, 3, 7, 8), torch.rand(2, 3, 20, 30)
    result = frfsr.upscale(photos, sharp, small_model)
    for number in range(2):
        assert torch.equal(result[number], frfsr.upscale(photos[number], sharp[number], small_model))
    same = frfsr.upscale(photos, [sharp[:1]], small_model)
    assert torch.equal(same[1], frfsr.upscale(photos[1], sharp[0], small_model))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 2), (6, 5, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_axes_and_channels_stay(small_model, shape, dtype):
    photo = noise(*shape)
    photo = photo if dtype == np.uint8 else (photo / 255).astype(dtype)
    result = frfsr.upscale(photo, noise(20, 20), small_model)
    assert (result.shape, result.dtype) == ((24, 20, *shape[2:]), dtype)
    if dtype == np.float32:
        np.testing.assert_array_equal(np.rint(result * 255), frfsr.upscale(noise(*shape), noise(20, 20), small_model))


def test_explanations_take_the_same(small_model):
    photo, sharp = torch.rand(3, 9, 9), noise(30, 30, 3)
    explained = frfsr.explain(photo, sharp, small_model, views="off")
    result = frfsr.upscale(photo, sharp, small_model, views="off")
    assert torch.equal(channels_first(explained.result.pixels), result)
    assert explained.pictures()["result"].dtype == np.uint8
    with pytest.raises(UserError, match="one at a time"):
        frfsr.explain(torch.rand(2, 3, 9, 9), sharp, small_model)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (noise(3, 8, 9), r"\(3, 8, 9\).*moveaxis"),
        (noise(2, 8, 9, 3), r"\(2, 8, 9, 3\)"),
        (noise(8, 9, 5), "C is 1"),
        (noise(0, 9, 3), "9x0"),
        (noise(8, 9, 3).astype(np.int64), "int64"),
        (noise(8, 9, 3) > 3, "bool"),
        (noise(8, 9, 3).astype(np.float32), r"leave \[0, 1\]"),
        (np.full((8, 9, 3), -0.5), r"-0\.5"),
        (np.full((8, 9, 3), np.nan), "NaN"),
        (torch.rand(8, 9, 3), r"\(8, 9, 3\)"),
        (torch.rand(8, 9), r"\(8, 9\)"),
        (torch.rand(0, 3, 8, 9), "empty"),
        (torch.full((3, 8, 9), 2.0), r"leave \[0, 1\]"),
        (torch.zeros(3, 8, 9, dtype=torch.int64), "int64"),
        (torch.full((3, 8, 9), torch.inf, dtype=torch.bfloat16), "infinite"),
        (Image.new("F", (3, 3)), "floating-point"),
        (b"no image", "known format"),
        (io.BytesIO(), "empty"),
        ([noise(8, 9, 3)], "a list is no image"),
        (None, "NoneType"),
        ("missing.png", "No such file"),
    ],
)
def test_what_is_no_image_is_named_in_one_line(small_model, image, message):
    with pytest.raises(UserError, match=message) as raised:
        frfsr.upscale(image, model=small_model)
    assert "\n" not in str(raised.value)


def test_references_are_counted_in_messages(small_model):
    photo = noise(8, 9, 3)
    with pytest.raises(UserError, match=r"^reference 2: .*uint8, uint16"):
        frfsr.upscale(photo, [photo, photo.astype(int)], small_model)
    with pytest.raises(UserError, match="a batch of 3 for 1 photo: "):
        as_references(torch.rand(3, 3, 8, 8), photos=1)
