"""`frfsr models`, `info` and `convert` for every architecture."""

import json

import numpy as np
import pytest
import torch

from frfsr.architectures import ARCHITECTURES
from frfsr.cli import main
from frfsr.imageio import Photo, read_photo, write_photo
from frfsr.parts import Extractor
from frfsr.peers import ttsr
from frfsr.publications import PUBLICATIONS
from frfsr.states import published_key


def test_every_architecture_was_published():
    assert tuple(ARCHITECTURES) == tuple(PUBLICATIONS)


def test_models_lists_what_there_is(capsys):
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    parameters = {entry["name"]: entry["parameters"] for entry in listed["architectures"]}
    assert list(parameters) == list(ARCHITECTURES)
    assert parameters["srcnn"] == 57_281
    assert all(entry[fact] for entry in listed["architectures"] for fact in ("paper", "licence", "weights", "needs"))
    packaged = {entry["name"]: entry for entry in listed["packaged"]}
    assert packaged["frfsr-tiny"]["architecture"] == "frfsr"
    assert packaged["frfsr-tiny"]["licence"] == "apache-2.0"


def test_models_is_a_table_of_lines(capsys, monkeypatch):
    monkeypatch.setattr("frfsr.listing.ARCHITECTURES", {"srcnn": ARCHITECTURES["srcnn"]})
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("srcnn")
    assert "0.06 M" in lines[1]
    assert any(line.startswith("frfsr-tiny ") for line in lines)


def test_info_of_an_architecture_and_of_a_part(tmp_path, capsys):
    assert main(["info", "ttsr"]) == 0
    assert "texture_channels" in capsys.readouterr().out
    extractor = Extractor.of(Extractor.config_class())
    extractor.save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    assert f"{sum(p.numel() for p in extractor.parameters()):,}" in capsys.readouterr().out
    assert main(["info", "tsr"]) == 2


def test_a_published_checkpoint_upscales_a_photo(tmp_path, monkeypatch, capsys):
    """As the help of `frfsr convert` shows it, with weights at random in the published layout."""
    monkeypatch.chdir(tmp_path)
    network = ttsr.TTSR(ttsr.TTSRConfig(channels=8, texture_channels=(4, 4, 8), blocks=(1, 1, 1, 1)))
    published = ttsr.names(network)
    state = {published_key(key, published): value for key, value in network.state_dict().items()}
    torch.save({f"module.{key}": value for key, value in state.items()}, "TTSR.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    write_photo(Photo(pixels), "sharp.png")
    write_photo(Photo(pixels[::4, ::4]), "photo.png")
    assert main(["convert", "TTSR.pt", "ttsr", "--arch", "ttsr"]) == 0
    arguments = ["upscale", "photo.png", "--reference", "sharp.png", "-o", "out.png", "--model", "./ttsr", "-q"]
    assert main(arguments) == 0
    with torch.inference_mode():
        lr, reference = (
            torch.from_numpy(read_photo(name).pixels / np.float32(255)).permute(2, 0, 1)[None]
            for name in ("photo.png", "sharp.png")
        )
        image = network.eval()(lr, reference).image[0].permute(1, 2, 0).clamp(0, 1).numpy()
    np.testing.assert_array_equal(read_photo("out.png").pixels, np.rint(image * 255))


@pytest.mark.parametrize(("arch", "hint"), [("ttssr", "did you mean ttsr"), ("x", "choose one of frfsr, ")])
def test_unknown_architectures(capsys, arch, hint):
    assert main(["convert", "a.pth", "out", "--arch", arch]) == 2
    assert hint in capsys.readouterr().err


def test_a_run_is_not_its_weights(tmp_path, monkeypatch, small_model, capsys):
    monkeypatch.chdir(tmp_path)
    small_model.save_pretrained("runs/rec/weights")
    assert main(["info", "runs/rec"]) == 2
    assert "did you mean runs/rec/weights" in capsys.readouterr().err
    assert main(["info", "runs/rec/weights"]) == 0


@pytest.mark.parametrize("path", ["./rec", "/nowhere/rec", "runs/rec/weights", "runs/nothing", "owner/rec.pth", "a\\b"])
def test_the_hub_is_not_asked_for_what_is_plainly_a_path(tmp_path, monkeypatch, capsys, path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    (tmp_path / "runs").mkdir()
    assert main(["info", path]) == 2
    assert capsys.readouterr().err.startswith("frfsr: no model ")
