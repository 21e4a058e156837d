"""Any single-image network as the base image: how it is found and loaded, and what refines it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import save_file

from frfsr import FRFSR, upscale
from frfsr.base import load_single_image
from frfsr.cli import main
from frfsr.errors import UserError
from frfsr.evals.upscalers import load_upscaler
from frfsr.parts import RRDBNet
from frfsr.peers.single_image import EDSR, SRCNN, ResidualConfig, SRCNNConfig
from frfsr.recipes.pretrained import load_part

LR = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def edsr() -> EDSR:
    torch.manual_seed(0)
    return EDSR(ResidualConfig(channels=4, blocks=1)).eval()


@pytest.fixture
def edsr_file(edsr: EDSR, tmp_path: Path) -> Path:
    """Its weights as BasicSR saves them."""
    names = {"conv_body": "conv_after_body", "conv_up1": "upsample.0", "conv_up2": "upsample.2"}
    state = {
        names.get(key.partition(".")[0], key.partition(".")[0]) + key[key.index(".") :]: value
        for key, value in edsr.state_dict().items()
    }
    torch.save({"params": state}, tmp_path / "edsr.pth")
    return tmp_path / "edsr.pth"


def same(network: torch.nn.Module, expected: torch.Tensor) -> bool:
    lr = LR.clone()
    image = network(lr).image
    assert torch.equal(lr, LR), "the input changed"
    return bool(torch.equal(image, expected))


def test_published_file_of_our_own(edsr: EDSR, edsr_file: Path) -> None:
    network = load_single_image(edsr_file, "cpu")
    assert network.max_references == 0
    assert not network.training
    assert same(network, edsr(LR).image)
    assert load_single_image(str(edsr_file), "cpu", "bfloat16")(LR.bfloat16()).image.dtype == torch.bfloat16


@pytest.mark.parametrize("place", ["", "model.safetensors"])
def test_folder_of_our_own(edsr: EDSR, tmp_path: Path, place: str) -> None:
    edsr.save_pretrained(tmp_path / "edsr")
    assert same(load_single_image(tmp_path / "edsr" / place, "cpu"), edsr(LR).image)


def test_rrdb_folder(tmp_path: Path) -> None:
    network = RRDBNet(features=4, blocks=1, growth=2).eval()
    network.save_pretrained(tmp_path)
    loaded = load_single_image(tmp_path, "cpu")
    assert loaded.max_references == 0
    assert same(loaded, network.image(LR))


def test_spandrel_file(tmp_path: Path) -> None:
    compact = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG").SRVGGNetCompact
    network = compact(num_feat=8, num_conv=2, upscale=4).eval()
    save_file(network.state_dict(), tmp_path / "compact.safetensors")
    loaded = load_single_image(tmp_path / "compact.safetensors", "cpu")
    assert loaded.title == "RealESRGAN Compact"
    assert same(loaded, network(LR).clamp(0, 1))
    torch.save({"params_ema": network.state_dict()}, tmp_path / "compact.pth")
    assert same(load_single_image(tmp_path / "compact.pth", "cpu"), network(LR).clamp(0, 1))
    weight = torch.ones(1, requires_grad=True)
    (weight * loaded(LR).image).sum().backward()  # the image is one that training can use


def test_rcan_leaves_its_input_alone(tmp_path: Path) -> None:
    rcan = pytest.importorskip("spandrel.architectures.RCAN.__arch.rcan_arch").RCAN
    network = rcan(n_resgroups=1, n_resblocks=1, n_feats=16, reduction=4, scale=4).eval()
    torch.save(network.state_dict(), tmp_path / "rcan.pt")
    loaded = load_single_image(tmp_path / "rcan.pt", "cpu")
    assert loaded.title == "RCAN"
    assert same(loaded, network(LR.clone()).clamp(0, 1))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(upscale=2), "is a x2 network, 3 channels to 3: it must be x4, RGB to RGB"),
        (dict(num_in_ch=1, num_out_ch=1), "is a x4 network, 1 channels to 1: it must be x4, RGB to RGB"),
    ],
)
def test_spandrel_networks_of_other_kinds(tmp_path: Path, options: dict, reason: str) -> None:
    compact = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG").SRVGGNetCompact
    torch.save(compact(**(dict(num_feat=8, num_conv=2, upscale=4) | options)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=reason):
        load_single_image(tmp_path / "other.pth", "cpu")


def test_what_cannot_be_loaded(edsr_file: Path, tmp_path: Path, small_model_folder: Path) -> None:
    state = torch.load(edsr_file)["params"]
    save_file({key: value for key, value in state.items() if "upsample.2" not in key}, tmp_path / "x2.safetensors")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "unknown.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty").mkdir()
    reasons = {
        tmp_path / "x2.safetensors": "looks like x4 edsr of RGB images, but: .*missing: upsample.2.weight",
        tmp_path / "unknown.pth": "unknown.pth: neither frfsr nor spandrel knows a network with these weights",
        tmp_path / "list.pth": "list.pth",
        tmp_path / "text.pth": "text.pth is not a checkpoint",
        tmp_path / "empty": "has no config.json",
        tmp_path / "nothing.pth": "cannot read the checkpoint .*nothing.pth",
        "nothing": "no model 'nothing'",
        small_model_folder: "holds frfsr, which is no single-image network",
    }
    for place, reason in reasons.items():
        with pytest.raises(UserError, match=reason) as error:
            load_single_image(place, "cpu")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="unknown dtype 'int8'"):
        load_single_image(edsr_file, "cpu", "int8")


def test_without_spandrel(edsr_file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "unknown.pth")
    with pytest.raises(UserError, match=r"others need spandrel: pip install 'frfsr\[sisr\]'"):
        load_single_image(tmp_path / "unknown.pth", "cpu")
    assert load_single_image(edsr_file, "cpu")(LR).image.shape == (2, 3, 28, 36)


def test_srcnn_of_a_folder_sees_the_enlarged_image(tmp_path: Path) -> None:
    network = SRCNN(SRCNNConfig((3, 1, 3), (4, 2))).eval()
    network.save_pretrained(tmp_path)
    assert same(load_single_image(tmp_path, "cpu"), network(LR).image)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """An LR photo of 9x7 pixels and a reference."""
    rng = np.random.default_rng(0)
    for name, sides in (("lr.png", (7, 9, 3)), ("reference.png", (30, 41, 3))):
        Image.fromarray(rng.integers(0, 256, sides, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path / "lr.png", tmp_path / "reference.png"


def as_tensor(picture: Path | Image.Image) -> torch.Tensor:
    image = picture if isinstance(picture, Image.Image) else Image.open(picture)
    return rearrange(torch.from_numpy(np.float32(image) / 255), "h w c -> 1 c h w")


@torch.no_grad()
def test_base_is_refined(small_model, edsr: EDSR, edsr_file: Path, pictures: tuple[Path, Path]) -> None:
    lr, reference = (as_tensor(picture) for picture in pictures)
    base = edsr(lr).image
    expected = small_model(lr, reference, base=base).image
    assert not torch.allclose(expected, small_model(lr, reference).image, atol=1e-2)
    for given in (edsr, edsr_file):
        result = upscale(*pictures, model=small_model, base=given)
        torch.testing.assert_close(as_tensor(result), expected.clamp(0, 1), rtol=0, atol=0.51 / 255)
    alone = upscale(pictures[0], model=small_model, base=edsr)
    torch.testing.assert_close(as_tensor(alone), base.clamp(0, 1), rtol=0, atol=0.51 / 255)
    half = upscale(*pictures, model=small_model, base=edsr, strength=0.5)
    torch.testing.assert_close(as_tensor(half), ((base + expected) / 2).clamp(0, 1), rtol=0, atol=0.51 / 255)


@torch.no_grad()
def test_own_base_given_changes_nothing(small_model) -> None:
    reference = torch.rand(2, 3, 30, 33)
    own = small_model(LR).image
    torch.testing.assert_close(small_model(LR, reference, base=own).image, small_model(LR, reference).image)
    assert small_model(LR[..., :1, :2], reference, base=own[..., :4, :8]).image.shape == (2, 3, 4, 8)


def test_a_base_network_of_its_own(small_model, tmp_path: Path) -> None:
    """It makes the base image; SIFE keeps its features; its weights come from what stage sife trained."""
    trained = FRFSR(replace(small_model.config, base="sife")).eval()
    for parameter in trained.sife.parameters():
        parameter.data.normal_(0, 0.1)
    trained.save_pretrained(tmp_path)
    model = FRFSR(replace(small_model.config, base="own")).eval()
    load_part(model, "base", str(tmp_path))
    alone = model(LR).image
    torch.testing.assert_close(alone, trained(LR).image)
    reference = torch.rand(2, 3, 24, 32)
    torch.testing.assert_close(model(LR, reference, base=alone).image, model(LR, reference).image)
    for name, parameter in model.base.named_parameters():
        assert name.startswith("image_head.") or parameter.shape == model.sife.get_parameter(name).shape
    with pytest.raises(UserError, match="no part base"):
        load_part(model, "base", str(saved_without_image(small_model, tmp_path / "plain")))


def saved_without_image(model: FRFSR, folder: Path) -> Path:
    FRFSR(replace(model.config, base="bicubic")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("shape", [(2, 3, 28, 35), (2, 3, 14, 18), (1, 3, 28, 36), (2, 1, 28, 36)])
def test_base_of_another_size_is_refused(small_model, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"base has the shape .* four times"):
        small_model(LR, torch.rand(2, 3, 30, 33), base=torch.zeros(shape))


def test_networks_that_refine_no_base(edsr: EDSR, edsr_file: Path, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    for base in (edsr, edsr_file):
        with pytest.raises(UserError, match="edsr cannot refine another network's image"):
            upscale(pictures[0], model=edsr, base=base)
    edsr.save_pretrained(tmp_path / "edsr")
    with pytest.raises(UserError, match="edsr cannot refine another network's image"):
        load_upscaler(tmp_path / "edsr", device="cpu", base=str(edsr_file))


def test_command_line(
    small_model, small_model_folder: Path, edsr_file: Path, pictures: tuple[Path, Path], tmp_path: Path, capsys
) -> None:
    lr, reference = map(str, pictures)
    out = tmp_path / "out.png"
    command = ["upscale", lr, "--reference", reference, "-o", str(out), "--model", str(small_model_folder)]
    options = ["--device", "cpu", "-q", "--base"]
    assert main([*command, *options, str(edsr_file)]) == 0
    expected = upscale(lr, reference, model=small_model, base=edsr_file)
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(expected))
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "unknown.pth")
    assert main([*command, *options, str(tmp_path / "unknown.pth")]) == 2
    assert capsys.readouterr().err.startswith("frfsr: ")


def test_evaluation(small_model_folder: Path, edsr: EDSR, edsr_file: Path, pictures: tuple[Path, Path]) -> None:
    plain, based = (load_upscaler(small_model_folder, device="cpu", base=base) for base in (None, str(edsr_file)))
    assert based.name == f"{plain.name} on edsr"
    assert based.identity != plain.identity
    assert based.parameters["base"] == sum(parameter.numel() for parameter in edsr.parameters())
    lr, reference = (np.asarray(Image.open(picture)) for picture in pictures)
    assert not np.array_equal(based(lr, [reference]), plain(lr, [reference]))
