"""The single-image networks against their published implementations, and their checkpoints' key styles."""

import pytest
import torch

from frfsr.errors import UserError
from frfsr.peers.layers import tensorflow_bicubic
from frfsr.peers.single_image import (
    DIV2K_MEAN,
    EDSR,
    NETWORKS,
    SRCNN,
    EnhanceNet,
    RankSRGAN,
    ResidualConfig,
    SingleImageNetwork,
    SRCNNConfig,
    SRResNet,
    recognise,
)
from frfsr.pixels import luma

CASES = {
    "31_enhancenet_a": EnhanceNet,
    "32_edsr_baseline_a": EDSR,
    "33_srresnet_a": SRResNet,
    "34_ranksrgan_a": RankSRGAN,
}


def published(network: SingleImageNetwork, *, style: int = 0) -> dict[str, torch.Tensor]:
    """The weights of a network under published keys, in the first or second style of its class."""
    names = {
        EDSR: {"conv_first": "head.0", "conv_body": "body.2", "conv_last": "tail.1"}
        | {"conv_up1": "tail.0.0", "conv_up2": "tail.0.2"}
        | {f"body.{n}.conv{i}": f"body.{n}.body.{2 * i - 2}" for n in (0, 1) for i in (1, 2)},
        SRResNet: {"conv_up1": "upconv1", "conv_up2": "upconv2"},
        RankSRGAN: {"conv_up1": "upconv1", "conv_up2": "upconv2", "conv_body": "LRconv", "conv_hr": "HRconv"}
        | {f"body.{n}": f"recon_trunk.{n}" for n in (0, 1)},
        EnhanceNet: {"conv_first": "head", "conv_up1": "up1", "conv_up2": "up2", "conv_hr": "hr", "conv_last": "last"},
        SRCNN: {},
    }[type(network)]
    if style and isinstance(network, EDSR):
        names = {"conv_body": "conv_after_body", "conv_up1": "upsample.0", "conv_up2": "upsample.2"}
    if style and isinstance(network, SRResNet):
        names = names | {"conv_hr": "HRconv"} | {f"body.{n}": f"recon_trunk.{n}" for n in (0, 1)}
    state = {}
    for key, value in network.state_dict().items():
        path = next((path for path in names if key.startswith(f"{path}.")), None)
        state[key if path is None else names[path] + key[len(path) :]] = value
    return state


def small(network: type[SingleImageNetwork]) -> SingleImageNetwork:
    """A network of other sizes than the published ones, in float64."""
    torch.manual_seed(1)
    config = SRCNNConfig((9, 1, 5), (6, 4)) if network is SRCNN else network.config_class(channels=6, blocks=2)
    return network(config).double().eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_equals_published(name: str, dtype: torch.dtype, peer_case, compare) -> None:
    case = peer_case(name)
    network = CASES[name].from_published(case.state).to(dtype)
    compare(name, network(case["x"].to(dtype)).image, case["out"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
def test_srcnn_equals_published(dtype: torch.dtype, peer_case, compare) -> None:
    case = peer_case("30_srcnn_a")
    network = SRCNN.from_published(case.state).to(dtype)
    y = case["x"].to(dtype)
    grey = ((y * 255 - 16) / 219).expand(-1, 3, -1, -1)  # whose luma, 16 ... 235 of 255, is y
    result = network(torch.zeros(2, 3, 5, 6, dtype=dtype), None, grey).image
    compare("30_srcnn_a", (16 + 219 * luma(result)) / 255, case["out"])
    assert torch.equal(result[:, 0], result[:, 1])


def test_tensorflow_bicubic(peer_case, compare) -> None:
    case = peer_case("31_enhancenet_a")
    compare("31_enhancenet_a bicubic", tensorflow_bicubic(case["x"].double()), case["bicubic"])


@torch.no_grad()
def test_srcnn_keeps_the_colour() -> None:
    network = small(SRCNN)
    upsampled = torch.rand(2, 3, 20, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    change = network(upsampled[..., :5, :7], None, upsampled).image - upsampled
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(change, change[:, :1].expand_as(change))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("style", [0, 1])
@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "module"])
def test_checkpoints_of_any_size_style_and_wrapper(network, style: int, wrapper: str | None) -> None:
    original = small(network)
    state = published(original, style=style)
    assert recognise(state) is network
    if wrapper == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    elif wrapper:
        state = {wrapper: state}
    loaded = network.from_published(state).double()
    assert loaded.config == original.config
    lr = torch.rand(2, 3, 1, 6, dtype=torch.float64)
    with torch.no_grad():
        image = loaded(lr, torch.rand(2, 3, 8, 8)).image  # a reference changes nothing
        assert image.shape == (2, 3, 4, 24)
        assert torch.equal(image, original(lr).image)


def test_edsr_constants_and_residual_scale() -> None:
    original = small(EDSR)
    mean = 255 * torch.tensor(DIV2K_MEAN)
    constants = {"sub_mean.weight": torch.eye(3)[..., None, None], "sub_mean.bias": -mean, "add_mean.bias": mean}
    state = published(original) | constants | {"add_mean.weight": torch.eye(3)[..., None, None]}
    assert EDSR.from_published(state).config.residual_scale == 1
    with pytest.raises(UserError, match="edsr: its colour mean"):
        EDSR.from_published(state | {"add_mean.bias": mean / 255})
    large = EDSR(ResidualConfig(channels=256, blocks=2))
    assert EDSR.from_published(published(large)).config.residual_scale == 0.1


@pytest.mark.parametrize("network", NETWORKS)
def test_wrong_checkpoints_are_refused(network) -> None:
    state = published(small(network))
    key = next(reversed(state))
    others = {
        "missing": {name: value for name, value in state.items() if name != key},
        "unknown": state | {"attention.weight": torch.zeros(1)},
        "of another shape": state | {key: state[key].new_zeros(*state[key].shape, 2)},
    }
    for problem, wrong in others.items():
        with pytest.raises(UserError, match=f"not a checkpoint of this architecture .*{problem}"):
            network.from_published(wrong)
    with pytest.raises(UserError, match="not a checkpoint"):
        network.from_published({"a": torch.zeros(1)})


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_reach_every_weight_and_the_image(network) -> None:
    model = small(network)
    lr = torch.rand(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    upsampled = torch.rand(1, 3, 20, 16, dtype=torch.float64)
    model(lr, None, upsampled if network is SRCNN else None).image.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert network is SRCNN or lr.grad.abs().sum() > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_saved_and_loaded(network, tmp_path) -> None:
    model = small(network).float()
    model.save_pretrained(tmp_path)
    lr = torch.rand(1, 3, 3, 4)
    assert torch.equal(network.from_pretrained(tmp_path)(lr).image, model(lr).image)
    with pytest.raises(UserError, match="takes no reference"):
        model.encode_reference(lr)
