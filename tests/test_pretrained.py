"""Pretrained weights from wherever they may lie, and what is said when they are not there."""

import hashlib
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from frfsr import FRFSR, FRFSRConfig
from frfsr.checkpoints import PACKAGED
from frfsr.errors import UserError
from frfsr.recipes import pretrained
from frfsr.recipes.pretrained import load_part, read
from frfsr.recipes.setup import build_network

RECIPES = sorted(Path(pretrained.__file__).parent.glob("*.yaml"))


@pytest.fixture
def paper() -> FRFSR:
    """The paper's encoders and pyramid, and little else."""
    return FRFSR(FRFSRConfig.paper(sife=False, blocks=(0, 0, 0), dynamic_blocks=(0, 0, 0), shared_encoder=False))


@pytest.mark.parametrize("part", ["encoder", "reference_encoder", "pyramid"])
def test_vgg_under_torchvisions_names(paper, vgg16, part):
    assert load_part(paper, part, str(vgg16)) == hashlib.sha256(vgg16.read_bytes()).hexdigest()
    assert torch.equal(paper.get_parameter(f"{part}.conv2_2.bias"), load_file(vgg16)["features.7.bias"])


def test_torchvisions_file_is_downloaded_once(vgg16, tmp_path, monkeypatch):
    downloads = []

    def download(url: str, file: str, hash_prefix: str) -> None:
        downloads.append((url, hash_prefix))
        torch.save(load_file(vgg16), file)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert read("torchvision", "init encoder", "vgg16").state.keys() == load_file(vgg16).keys()
    assert downloads == [("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af")]


def test_without_a_network_the_file_to_get_is_named(tmp_path, monkeypatch):
    def download(*_) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError, match=re.escape(pretrained.TORCHVISION["vgg19"])):
        read("torchvision", "perceptual_weights", "vgg19")


def test_hub_id(vgg16, monkeypatch):
    def download(name: str, file: str, **_) -> Path:
        return {("someone/vgg", "model.safetensors"): vgg16}[name, file]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert read("someone/vgg", "init encoder").state.keys() == load_file(vgg16).keys()


def test_an_unreachable_hub_id_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="init encoder: no model 'someone/vgg'") as caught:
        read("someone/vgg", "init encoder")
    assert "\n" not in str(caught.value)


def test_packaged_name():
    model = FRFSR(FRFSRConfig.tiny())
    load_part(model, "encoder", "frfsr-tiny")
    packaged = load_file(PACKAGED / "frfsr-tiny" / "model.safetensors")
    assert torch.equal(model.encoder.conv1_1.weight, packaged["encoder.conv1_1.weight"])


def test_the_mean_of_several(tmp_path: Path):
    FRFSR(FRFSRConfig.tiny()).save_pretrained(tmp_path)
    saved, file = load_file(tmp_path / "model.safetensors"), tmp_path / "changed.safetensors"
    save_file({name: value + 1 for name, value in saved.items()}, file)
    model = FRFSR(FRFSRConfig.tiny())
    sources = load_part(model, "sife", [str(tmp_path), str(file)])
    assert sources.split("+")[1] == hashlib.sha256(file.read_bytes()).hexdigest()
    torch.testing.assert_close(model.sife.conv_first.weight, saved["sife.conv_first.weight"] + 0.5)
    with pytest.raises(UserError, match="init sife: the list of weights is empty"):
        load_part(model, "sife", [])
    with pytest.raises(UserError, match="nowhere"):
        load_part(model, "sife", [str(tmp_path), "./nowhere"])


def test_blocks_that_the_weights_lack_change_nothing_at_first(tmp_path: Path):
    """The deeper trunk gives the same image, all its layers but those behind the new zeros can learn at once."""
    shallow, deep = FRFSR(FRFSRConfig.tiny()).eval(), FRFSR(FRFSRConfig.tiny(sife_blocks=3)).eval()
    torch.nn.init.normal_(shallow.sife.image_head[0].weight, std=0.02)
    shallow.save_pretrained(tmp_path)
    load_part(deep, "sife", str(tmp_path))
    lr = torch.rand(1, 3, 9, 12)
    torch.testing.assert_close(deep(lr).image, shallow(lr).image)
    deep(lr).image.square().sum().backward()
    assert all(layer.conv5.weight.grad.any() for block in deep.sife.body for layer in block.children())


@pytest.mark.parametrize("lost", ["body.0.rdb2.conv5.weight", "conv_body.weight", "body.0."])
def test_weights_with_a_hole_are_not_taken_for_a_shallower_trunk(lost, tmp_path: Path):
    packaged = load_file(PACKAGED / "frfsr-tiny" / "model.safetensors")
    file = tmp_path / "hole.safetensors"
    save_file({name: value for name, value in packaged.items() if not name.startswith(f"base.{lost}")}, file)
    with pytest.raises(UserError, match=f"lacks {lost}"):
        load_part(FRFSR(FRFSRConfig.tiny(sife_blocks=2)), "sife", str(file))


@pytest.mark.parametrize("part", ["all", "base"])
def test_a_base_network_that_is_fed_changes_nothing_at_first(part, tmp_path: Path):
    plain, fed = (FRFSR(FRFSRConfig.tiny(base="own", base_fed=fed)).eval() for fed in (False, True))
    torch.nn.init.normal_(plain.base.image_head[0].weight, std=0.02)
    plain.save_pretrained(tmp_path)
    load_part(fed, part, str(tmp_path))
    lr = torch.rand(1, 3, 9, 12)
    torch.testing.assert_close(fed(lr).image, plain(lr).image)
    fed(lr).image.square().sum().backward()
    assert fed.base.conv_fed.weight.grad.any()
    torch.nn.init.normal_(fed.base.conv_fed.weight, std=0.02)
    fed.save_pretrained(tmp_path / "fed")
    again = FRFSR(fed.config).eval()
    load_part(again, "all", str(tmp_path / "fed"))
    torch.testing.assert_close(again(lr).image, fed(lr).image)
    again.sife.conv_body.weight.data.zero_()
    assert not torch.allclose(again(lr).image, fed(lr).image)


@pytest.mark.parametrize("changes", [{}, {"base": "own", "sife": False}])
def test_only_a_base_network_beside_sife_can_be_fed(changes):
    with pytest.raises(UserError, match="base_fed: true needs base: own and sife: true"):
        FRFSRConfig.tiny(base_fed=True, **changes)


def test_weights_of_a_network_that_was_fed_do_not_pass_for_one_that_is_not():
    alone, beside = FRFSR(FRFSRConfig.tiny()), FRFSR(FRFSRConfig.tiny(base="own"))
    with pytest.raises(UserError, match="init: the model's sife has no place for conv_fed"):
        load_part(alone, "sife", "frfsr-tiny")
    with pytest.raises(UserError, match=r"init: the model has no place for base\.conv_fed"):
        load_part(beside, "all", "frfsr-tiny")


@pytest.mark.parametrize("recipe", [recipe.stem for recipe in RECIPES if ": frfsr-tiny" in recipe.read_text()])
def test_a_recipe_that_starts_from_packaged_weights_fits_those_of_today(recipe):
    settings = yaml.safe_load(Path(pretrained.__file__).with_name(f"{recipe}.yaml").read_text())
    model = build_network(settings["model"])
    for part, weights in settings["init"].items():
        if weights.startswith("frfsr-tiny"):
            load_part(model, part, weights)


def test_another_network_than_vgg_is_a_user_error(paper, tmp_path: Path):
    file = tmp_path / "alexnet.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 11, 11), "features.3.weight": torch.zeros(192, 64, 5, 5)}, file)
    with pytest.raises(UserError, match="no part encoder; give torchvision, a VGG under torchvision's names"):
        load_part(paper, "encoder", str(file))
