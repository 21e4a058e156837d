"""What C2-Matching, DATSR and MASA promise alike: sizes, checkpoints, feature reuse, training."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from frfsr.architectures import load
from frfsr.errors import UserError
from frfsr.network import Network, Rates
from frfsr.peers import c2_matching, datsr, masa
from frfsr.published import extractor_names
from frfsr.states import published_key


@dataclass(frozen=True)
class Peer:
    """A network and how small ones of it are made.

    Attributes:
        network: its class.
        from_published: of its file.
        sizes: changes to its tiny sizes, unlike any that the goldens have.
        names: aggregation -> published, for a configuration.
        parts: whether its checkpoint comes in parts.
    """

    network: type[Network]
    from_published: Callable[[Any], Network]
    sizes: dict[str, Any]
    names: Callable[[Any], dict[str, str]]
    parts: bool


MATCHED = dict(encoder_channels=(4, 6, 8), texture_channels=(8, 12, 16), groups=2, shared_encoder=False)
PEERS = {
    "c2-matching": Peer(
        c2_matching.C2Matching,
        c2_matching.from_published,
        dict(channels=10, blocks=2, **MATCHED),
        lambda config: c2_matching.restoration_names(),
        parts=True,
    ),
    "datsr": Peer(
        datsr.DATSR,
        datsr.from_published,
        dict(channels=12, depths=(2, 1), heads=(2, 3), window=4, hidden=20, **MATCHED),
        datsr.restoration_names,
        parts=True,
    ),
    "masa": Peer(
        masa.MASA,
        masa.from_published,
        dict(channels=6, encoder_blocks=(1, 2, 1), content_blocks=(2, 1, 1), blocks=(1, 2, 3)),
        lambda config: masa.NAMES,
        parts=False,
    ),
}


@pytest.fixture(params=PEERS)
def peer(request) -> Peer:
    return PEERS[request.param]


def small_network(peer: Peer, **changes: Any) -> Network:
    """A network with random weights, so that its result depends on all of them."""
    torch.manual_seed(0)
    network = peer.network(peer.network.config_class.tiny(**(peer.sizes | changes)))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def images(*sides: tuple[int, int], batch: int = 1) -> list[Tensor]:
    """Random images (batch, 3, height, width)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, 3, *size, generator=generator) for size in sides]


def published_state(network: Network, peer: Peer) -> Any:
    """The network's weights as its published checkpoints have them."""

    def renamed(module: torch.nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
        return {published_key(key, names): value.clone() for key, value in module.state_dict().items()}

    state = renamed(network.aggregation, peer.names(network.config))
    if not peer.parts:
        for key, dimension in (("enc.conv_L1.weight", 1), ("decoder.conv_out.weight", 0), ("decoder.conv_out.bias", 0)):
            state[key] = state[key].flip(dimension)
        return state
    encoders = torch.nn.ModuleDict({name: getattr(network, name) for name in ("encoder", "reference_encoder")})
    vgg = {f"vgg.vgg_net.{key}": value for key, value in network.pyramid.state_dict().items()}
    return {"net_g": state, "extractor": renamed(encoders, extractor_names()), "vgg": vgg}


@pytest.mark.parametrize(("lr_size", "reference_size"), [((1, 1), (1, 1)), ((5, 9), (30, 22)), ((20, 12), (7, 90))])
@torch.no_grad()
def test_any_size(peer, lr_size, reference_size) -> None:
    network = small_network(peer)
    lr, reference = images(lr_size, reference_size)
    result = network(lr, reference)
    size = tuple(4 * side for side in lr_size)
    assert result.image.shape == (1, 3, *size)
    assert result.image.isfinite().all()
    assert result.features.shape[-2:] == size
    assert result.correspondence.flow.shape == (1, *lr_size, 2)
    assert not torch.equal(result.image, network(lr, torch.zeros_like(reference)).image)
    assert network(lr).image.shape == (1, 3, *size)


@torch.no_grad()
def test_batch_and_encoded_reference(peer) -> None:
    network = small_network(peer).double()
    lr, reference = (image.double() for image in images((9, 14), (40, 52), batch=3))
    together = network(lr, reference)
    encoded = network.encode_reference(reference)
    assert torch.equal(network(lr, encoded).image, together.image)
    for n in range(3):
        alone = network(lr[n : n + 1], reference[n : n + 1])
        torch.testing.assert_close(together.image[n : n + 1], alone.image)
        torch.testing.assert_close(together.correspondence.flow[n : n + 1], alone.correspondence.flow)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.network.max_references is None])
def test_several_references_in_any_order(name) -> None:
    network, (lr, upsampled) = small_network(PEERS[name], shared_encoder=True), images((16, 16), (64, 64))
    encoded = [network.encode_reference(half) for half in (upsampled[..., :36], upsampled[..., 28:])]
    result = network(lr, encoded, upsampled)
    torch.testing.assert_close(network(lr, encoded[::-1], upsampled).image, result.image)
    assert (result.correspondence.source[:, :, 1:5] == 0).all()
    assert (result.correspondence.source[:, :, 10:14] == 1).all()
    assert result.correspondence.score[:, 1:-1, 1:-1].mean() > 0.99


@torch.no_grad()
def test_finds_its_own_patches(peer) -> None:
    """Where the reference is the LR image enlarged, the matches lie where the patches come from."""
    lr = torch.nn.functional.interpolate(images((6, 6))[0], size=(24, 24), mode="bicubic").clamp(0, 1)
    upsampled = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic").clamp(0, 1)
    network = small_network(peer, **({"shared_encoder": True} if peer.parts else {}))
    keywords = {} if peer.parts else {"reference_reduced": lr}
    match = network(lr, upsampled, upsampled, **keywords).correspondence
    assert (match.flow[:, 1:-2, 1:-2] == 0).all()
    assert match.score[:, 1:-1, 1:-1].min() > 0.999


@torch.no_grad()
def test_bfloat16(peer) -> None:
    network, (lr, reference) = small_network(peer), images((16, 8), (48, 32))
    expected = network(lr, reference).image
    image = network.bfloat16()(lr.bfloat16(), reference.bfloat16()).image
    assert image.dtype == torch.bfloat16
    assert (image - expected).abs().mean() < 0.1 * expected.abs().mean()


@torch.no_grad()
def test_from_published_with_other_sizes(peer) -> None:
    network, (lr, reference) = small_network(peer), images((16, 8), (48, 32))
    expected = network(lr, reference).image
    state = published_state(network, peer)
    loaded = peer.from_published(state)
    assert asdict(loaded.config) == asdict(network.config)
    torch.testing.assert_close(loaded(lr, reference).image, expected)

    def wrapped(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        return {"params": {f"module.{key}": value for key, value in state.items()}}

    files = {part: wrapped(value) for part, value in state.items()} if peer.parts else wrapped(state)
    torch.testing.assert_close(peer.from_published(files)(lr, reference).image, expected)


@torch.no_grad()
@pytest.mark.parametrize("reuse", [False, True])
def test_saved_and_loaded(peer, reuse, tmp_path) -> None:
    network, (lr, reference) = small_network(peer, reuse=reuse), images((16, 8), (48, 32))
    network.save_pretrained(tmp_path)
    loaded = load(str(tmp_path), "cpu")
    assert type(loaded) is peer.network
    assert torch.equal(loaded(lr, reference).image, network(lr, reference).image)


@pytest.mark.parametrize("fault", ["missing", "unknown", "of another shape"])
def test_wrong_checkpoints_are_refused(peer, fault) -> None:
    checkpoint = published_state(small_network(peer), peer)
    state = checkpoint["net_g"] if peer.parts else checkpoint
    key = [key for key in state if key.endswith("conv2.weight")][-1]
    if fault == "missing":
        del state[key]
    elif fault == "unknown":
        key = "decoder.other.weight"
        state[key] = torch.zeros(1)
    else:
        state[key] = state[key][:, :-1]
    with pytest.raises(UserError, match=f"{fault}: .*{key}") as error:
        peer.from_published(checkpoint)
    assert "\n" not in str(error.value)


def test_weights_of_any_other_shape_are_refused(peer) -> None:
    checkpoint = published_state(small_network(peer), peer)
    for part in checkpoint if peer.parts else [None]:
        state = checkpoint if part is None else checkpoint[part]
        for key in list(state)[::60]:
            for other in (torch.tensor(1.0), state[key].flatten()[1:], state[key][None]):
                changed = state | {key: other}
                with pytest.raises(UserError):
                    peer.from_published(changed if part is None else checkpoint | {part: changed})


def test_other_files_are_refused(peer) -> None:
    for checkpoint in ({}, {"net_g": {}}, {"weight": torch.zeros(1)}):
        with pytest.raises(UserError):
            peer.from_published(checkpoint)


def test_reuse_starts_as_the_first_network(peer) -> None:
    first, (lr, reference) = small_network(peer), images((16, 8), (48, 32))
    network = small_network(peer, reuse=True)
    network.load_state_dict(first.state_dict())
    result = network(lr, reference)
    assert torch.equal(result.image, first(lr, reference).image)
    result.image.square().mean().backward()
    widened = [
        parameter.grad[:, -first.config.channels :]
        for name, parameter in network.aggregation.second.named_parameters()
        if parameter.shape != first.aggregation.state_dict()[name].shape
    ]
    assert len(widened) == (2 if isinstance(first, datsr.DATSR) else 1)
    assert all(gradient.abs().max() > 0 for gradient in widened)
    assert all(parameter.grad is None for parameter in network.aggregation.first.parameters())


def test_training_lowers_the_loss(peer) -> None:
    torch.manual_seed(0)
    network = peer.network(peer.network.config_class.tiny())
    lr, reference = images((16, 16), (64, 64), batch=2)
    truth = network(lr, reference).image.detach() + 0.1 * reference
    optimizer = torch.optim.Adam(network.parameter_groups(Rates(2e-3, (1e-3, 1e-3, 1e-3))))
    losses = []
    for _ in range(6):
        loss = (network(lr, reference).image - truth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_parameter_groups(peer) -> None:
    network = small_network(peer)
    groups = network.parameter_groups(Rates(1e-3))
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, parameters)) == sorted(map(id, network.parameters()))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    names = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
    expected = {"large": 1e-4, "medium": 1e-5, "small": 1e-6}
    for name, rate in names.items():
        assert rate == (expected[name.split(".")[1].rpartition("_")[2]] if "offset" in name else 1e-3)
    assert len(list(network.watched())) == sum(name.endswith("offset_mask.weight") for name in names)


@torch.no_grad()
def test_compiles_without_a_break() -> None:
    """C2-Matching; the others do too, but take minutes to trace."""
    network, (lr, reference, upsampled) = small_network(PEERS["c2-matching"]), images((16, 8), (64, 32), (64, 32))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(lr, reference, upsampled).image, network(lr, reference, upsampled).image)
