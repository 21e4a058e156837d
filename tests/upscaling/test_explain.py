"""`frfsr explain`: pictures and numbers that say where a result comes from."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import frfsr
from frfsr.cli import main
from frfsr.imageio import Photo, write_photo
from frfsr.peers.single_image import SRCNN
from frfsr.upscaling.explain import warp
from frfsr.upscaling.matches import Matches, in_reference
from frfsr.upscaling.options import View
from frfsr.upscaling.pictures import SOURCES, heat, source_colours
from frfsr.upscaling.references import seen


def picture(seed: int, height: int, width: int) -> Image.Image:
    """Smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def test_pictures_and_numbers(small_model, tmp_path):
    photo, references = picture(0, 16, 20), [picture(1, 51, 47), picture(2, 30, 60)]
    explained = frfsr.explain(photo, references, small_model, views="off")
    assert np.array_equal(explained.result.pixels, frfsr.upscale(photo, references, small_model, views="off"))
    assert np.array_equal(explained.alone.pixels, frfsr.upscale(photo, (), small_model))
    difference = explained.result.pixels.astype(float) - explained.alone.pixels
    np.testing.assert_allclose(explained.change, np.abs(difference).mean(2), rtol=1e-6)

    explained.save(tmp_path / "out")
    sizes = {file.stem: Image.open(file).size for file in (tmp_path / "out").glob("*.png")}
    whole = ("result", "without_references", "change", "matches", "warped")
    assert {name: sizes.pop(name) for name in whole} == dict.fromkeys(whole, (80, 64))
    assert sizes == {
        **dict.fromkeys(("confidence", "source"), (20, 16)),
        **dict.fromkeys(("view_1", "view_1_places"), (47, 51)),
        **dict.fromkeys(("view_2", "view_2_places"), (60, 30)),
    }
    numbers = json.loads((tmp_path / "out/explanation.json").read_text())
    assert [view["file"] for view in numbers["views"]] == ["reference 1", "reference 2"]
    assert sum(view["share"] for view in numbers["views"]) == pytest.approx(1)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (r["box"] for r in numbers["regions"])]
    assert sum(areas) == 64 * 80
    changes = np.average([region["change"] for region in numbers["regions"]], weights=areas)
    assert changes == pytest.approx(numbers["change"]["mean"])


def test_a_network_that_matches_nothing(tmp_path):
    torch.manual_seed(0)
    explained = frfsr.explain(picture(0, 9, 8), picture(1, 36, 32), SRCNN(SRCNN.config_class()).eval())
    assert explained.matched is None
    assert explained.place(3, 3) is None
    assert explained.numbers()["confidence"] is None
    assert not explained.change.any()
    assert set(explained.pictures()) == {"result", "without_references", "change"}


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("zoom", [1, 2])
def test_a_place_in_a_view_is_one_in_the_reference(turn, zoom):
    reference = torch.zeros(1, 3, 12, 20)
    reference[..., 3, 14] = 1
    view = View(0, zoom, turn)
    image = seen(reference, view)
    view = View(0, zoom, turn, size=(image.shape[-1], image.shape[-2]))
    weight = image[0, 0] / image.sum() * 3
    rows, columns = (torch.arange(side) + 0.5 for side in image.shape[-2:])
    middle = float((weight.sum(0) * columns).sum()), float((weight.sum(1) * rows).sum())
    assert in_reference(view, *middle) == pytest.approx((14.5, 3.5), abs=0.02)


def test_pixels_come_from_the_view_that_was_matched():
    views = [torch.full((1, 3, 8, 8), value) for value in (0.2, 0.8)]
    source = np.array([[0, 1], [1, 0]], np.int16)
    found = warp(views, Matches(np.ones((2, 2), np.float32), np.zeros((2, 2, 2), np.float32), source))
    assert np.array_equal(found[::4, ::4, 0], [[51, 204], [204, 51]])


def test_colours():
    assert np.array_equal(source_colours(np.array([[0, len(SOURCES)]])), [[SOURCES[0], SOURCES[0]]])
    brightness = heat(np.linspace(0, 1, 50)[None]).sum(-1)[0].astype(int)
    assert (np.diff(brightness) >= 0).all()
    assert np.array_equal(heat(np.array([[-1.0, 2.0]])), heat(np.array([[0.0, 1.0]])))


def test_the_command(tmp_path, monkeypatch, small_model_folder, capsys):
    monkeypatch.chdir(tmp_path)
    for name, size in (("photo.png", (10, 9)), ("sharp.png", (40, 36))):
        write_photo(Photo(np.asarray(picture(3, *size))), name)
    model = ["--model", str(small_model_folder), "--device", "cpu"]
    assert main(["explain", "photo.png", "--reference", "sharp.png", "-o", "out", *model]) == 0
    error = capsys.readouterr().err
    assert "of the pixels changed by the references" in error
    assert json.loads((tmp_path / "out/explanation.json").read_text())["views"][0]["file"] == "sharp.png"
    assert main(["explain", "photo.png", "-o", "out", *model]) == 2
    assert main(["explain", "--reference", "sharp.png", "photo.png", "-o", "out", *model]) == 2
    assert "--reference took sharp.png and photo.png" in capsys.readouterr().err
    assert main(["explain", "photo.png", "--reference", "sharp.png", "-o", "photo.png", *model]) == 2
