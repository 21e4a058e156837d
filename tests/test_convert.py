"""Published checkpoints: names, wrappers, sizes, refusals, and the folders that `frfsr convert` writes."""

import re
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from frfsr import FRFSR, FRFSRConfig, published
from frfsr.cli import main
from frfsr.convert import Extractor, ReuseNetwork, RRDBNet, convert_files, from_published, read_checkpoint
from frfsr.errors import UserError
from frfsr.states import Names, published_key

# Unlike the published sizes, and different wherever sizes may differ.
CONFIG = FRFSRConfig.published(
    encoder_channels=(4, 6, 10),
    texture_channels=(8, 12, 16),
    sife_features=6,
    sife_blocks=2,
    sife_growth=3,
    groups=4,
    channels=(10, 12, 14),
    dynamic_blocks=(1, 2, 0),
    blocks=(2, 1, 3),
)
SIFE_SIZES = dict(features=6, blocks=2, growth=3)


def random_weights(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return module.eval()


def as_published(module: nn.Module, names: Names) -> dict[str, Tensor]:
    return {published_key(key, names): value.contiguous() for key, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def model() -> FRFSR:
    return random_weights(FRFSR(CONFIG))


@pytest.fixture(scope="module")
def parts(model) -> dict[str, dict[str, Tensor]]:
    """Checkpoints, in the published form, that make `model`."""
    encoders = nn.ModuleDict({"encoder": model.encoder, "reference_encoder": model.reference_encoder})
    network = random_weights(RRDBNet(**SIFE_SIZES))
    network.load_state_dict(model.sife.state_dict(), strict=False)
    names = published.aggregation_names(CONFIG.dynamic_blocks, CONFIG.blocks, sife=True)
    return {
        "net_g": as_published(model.aggregation, names),
        "extractor": as_published(encoders, published.extractor_names()),
        "vgg": as_published(model.pyramid, published.vgg_names({})),
        "rrdb": network.state_dict(),
    }


def assert_same(ours: nn.Module, expected: nn.Module) -> None:
    assert ours.state_dict().keys() == expected.state_dict().keys()
    for key, value in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_sizes_are_read_from_the_shapes(model, parts) -> None:
    converted = from_published(parts, "frfsr")
    assert converted.config == CONFIG
    assert_same(converted, model)
    assert not converted.training
    lr, reference = torch.rand(1, 3, 7, 9), torch.rand(1, 3, 30, 50)
    assert converted(lr, reference).image.shape == (1, 3, 28, 36)


def test_published_keys() -> None:
    """One key of each kind; tests/test_golden_model.py loads the complete table."""
    names = published.aggregation_names((2, 2, 2), (16, 16, 16), sife=True)
    for ours, theirs in {
        "head.weight": "unet_head.weight",
        "fam_small.weight": "up_small_dyn_agg.weight",
        "fam_small.offset_mask.bias": "up_small_dyn_agg.conv_offset_mask.bias",
        "taam_down_large.drb.1.filter2.channel.2.bias": "ddf_block_1.1.conv2.channel_branch.3.bias",
        "taam_up_medium.drb.17.esa.conv3_.weight": "up_body_medium.15.ESA.conv3_.weight",
        "taam_small.fusion.weight": "high_q_conv1.weight",
    }.items():
        assert published_key(ours, names) == f"dyn_agg_restore.{theirs}"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"params": state},
        lambda state: {"params": {}, "params_ema": state},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda state: {key: value.half().double() for key, value in state.items()},
    ],
    ids=["params", "params_ema", "module", "double"],
)
def test_wrapped_checkpoints(parts, wrap) -> None:
    network = from_published(wrap(parts["rrdb"]), "rrdb")
    assert torch.allclose(network.conv_first.weight, parts["rrdb"]["conv_first.weight"], atol=1e-3)
    assert network.conv_first.weight.dtype == torch.float32


def test_names_of_esrgans_first_release(parts) -> None:
    renamed = {}
    for key, value in parts["rrdb"].items():
        key = re.sub(r"^body\.(\d+)\.rdb(\d)", r"RRDB_trunk.\1.RDB\2", key)
        for new, old in (("conv_body", "trunk_conv"), ("conv_up", "upconv"), ("conv_hr", "HRconv")):
            key = key.replace(new, old)
        renamed[key] = value
    assert_same(from_published(renamed, "rrdb"), from_published(parts["rrdb"], "rrdb"))


def test_torchvision_vgg(model, parts) -> None:
    numbers = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}
    vgg = {f"features.{numbers[key.split('.')[-2]]}.{key.split('.')[-1]}": v for key, v in parts["vgg"].items()}
    vgg |= {"features.12.weight": torch.zeros(1), "classifier.0.bias": torch.zeros(1)}  # deeper layers
    assert_same(from_published(parts | {"vgg": vgg}, "frfsr"), model)


def test_imagenet_constants_must_be_imagenets(parts) -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    key = "feature_extraction_image1.mean"
    from_published(parts["extractor"] | {key: mean}, "extractor")
    with pytest.raises(UserError, match=key):
        from_published(parts["extractor"] | {key: mean * 255}, "extractor")


def without(key: str) -> Callable[[dict], dict]:
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("net_g", without("dyn_agg_restore.high_q_conv1.bias"), "missing: dyn_agg_restore.high_q_conv1.bias"),
        ("net_g", without("dyn_agg_restore.unet_head.weight"), "unet_head.weight"),
        ("net_g", lambda s: s | {"dyn_agg_restore.extra": torch.zeros(1)}, "unknown: dyn_agg_restore.extra"),
        ("net_g", lambda s: s | {"dyn_agg_restore.unet_head.bias": torch.zeros(3)}, "another shape: .*unet_head.bias"),
        ("net_g", lambda s: s | {"step": 3}, "'step' is a int"),
        ("rrdb", lambda s: s | {"conv_last.scale": torch.zeros(1), "body.x": torch.zeros(1)}, "(missing|unknown)"),
        ("extractor", without("feature_extraction_image2.model.conv2_2.weight"), "image2.model.conv2_2.weight"),
        ("vgg", lambda s: {}, "missing: vgg.vgg_net.conv1_1.weight"),
        ("vgg", lambda s: [1, 2], "vgg is not a checkpoint of weights but a list"),
    ],
)
def test_what_does_not_fit_is_named(parts, part, change, message) -> None:
    with pytest.raises(UserError, match=message):
        from_published(parts | {part: change(parts[part])}, "frfsr")


def test_all_parts_are_needed(parts) -> None:
    with pytest.raises(UserError, match="net_g, extractor, vgg, rrdb"):
        from_published(without("rrdb")(parts), "frfsr")
    with pytest.raises(UserError, match="use frfsr, frfsr-reuse, extractor, rrdb"):
        from_published(parts, "esrgan")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_convert_the_complete_model(model, parts, suffix, tmp_path) -> None:
    files = []
    for part, state in parts.items():
        file = tmp_path / f"{part}{suffix}"
        save_file(state, file) if suffix == ".safetensors" else torch.save({"params": state}, file)
        files.append(f"{part}={file}")
    assert main(["convert", *files, str(tmp_path / "out"), "--arch", "frfsr"]) == 0
    loaded = FRFSR.from_pretrained(tmp_path / "out")
    assert loaded.config == CONFIG
    assert_same(loaded, model)


def test_convert_single_parts(parts, tmp_path) -> None:
    reuse = random_weights(ReuseNetwork(FRFSRConfig.published(**{**vars(CONFIG), "sife": False})))
    names = published.aggregation_names(CONFIG.dynamic_blocks, CONFIG.blocks, sife=False)
    states = {
        "frfsr-reuse": (ReuseNetwork, as_published(reuse.aggregation, names)),
        "extractor": (Extractor, parts["extractor"]),
        "rrdb": (RRDBNet, parts["rrdb"]),
    }
    for arch, (module, state) in states.items():
        torch.save(state, tmp_path / "weights.pth")
        convert_files([str(tmp_path / "weights.pth")], tmp_path / arch, arch)
        assert_same(module.from_pretrained(tmp_path / arch), from_published(state, arch))


class Payload:
    """Unpickled, it would create a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_checkpoint_cannot_run_code(tmp_path) -> None:
    torch.save({"params": Payload(tmp_path / "executed")}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weights.pth", "--arch", "frfsr"], "net_g=FILE extractor=FILE vgg=FILE rrdb=FILE"),
        (["net_g=weights.pth", "--arch", "frfsr"], "frfsr needs the parts"),
        (["weights.pth", "weights.pth", "--arch", "rrdb"], "needs one checkpoint"),
        (["missing.pth", "--arch", "rrdb"], "cannot read the checkpoint missing.pth"),
        (["text.pth", "--arch", "rrdb"], "text.pth is not a checkpoint"),
        (["text.safetensors", "--arch", "rrdb"], "text.safetensors is not a checkpoint"),
        (["weights.pth", "--arch", "extractor"], "lacks 'feature_extraction_image1"),
    ],
)
def test_mistakes_leave_nothing_behind(parts, tmp_path, monkeypatch, capfd, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(parts["rrdb"], "weights.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("no weights here")
    files, options = arguments[:-2], arguments[-2:]
    assert main(["convert", *files, "out", *options]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
