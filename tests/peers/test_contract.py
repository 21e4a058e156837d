"""What every reference-based peer does alike: sizes, batches, precisions, feature reuse, files."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from frfsr.errors import UserError
from frfsr.peers import crossnet, ssen, ttsr, wtrn
from frfsr.reuse import FeatureReuse
from frfsr.states import published_key


class Peer(NamedTuple):
    """A peer, in a size for tests that differs from the published one wherever it can.

    build: config -> network; names: network -> its published names; box: the name of what feature reuse doubles;
    injection: the convolution of it that takes F_rec; constants: what published files have and we have built in;
    unused: a key that they may have.
    """

    build: Callable[[Any], nn.Module]
    sizes: dict[str, Any]
    names: Callable[[Any], dict[str, str]]
    from_published: Callable[[Any], nn.Module]
    box: str
    injection: str
    constants: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


TRANSFORMER = dict(channels=6, texture_channels=(4, 5, 7), blocks=(1, 0, 2, 1))
NORMALISATION = ("LTE.sub_mean.weight", "LTE.sub_mean.bias")
PEERS = {
    "ttsr": Peer(
        lambda **sizes: ttsr.TTSR(ttsr.TTSRConfig(**sizes)),
        TRANSFORMER,
        ttsr.names,
        ttsr.from_published,
        "main",
        "stages.2.exchange.2.merge",
        NORMALISATION,
        ("LTE_copy.slice1.0.weight",),
    ),
    "wtrn": Peer(
        lambda **sizes: wtrn.WTRN(ttsr.TTSRConfig(**sizes)),
        TRANSFORMER,
        wtrn.wavelet_names,
        wtrn.from_published,
        "main",
        "stages.2.exchange.2.merge",
        NORMALISATION,
        ("MainNet.unpool1.LL.weight", "MainNet.ex12.conv12.bias", "MainNet.wave_cross2.convHH_merge.1.weight"),
    ),
    "crossnet": Peer(
        lambda **sizes: crossnet.CrossNet(crossnet.CrossNetConfig(**sizes)),
        dict(channels=5, flow_channels=(4, 5, 6, 7, 8, 9), refine_channels=(9, 8, 7, 6, 5, 4), full_channels=3),
        crossnet.names,
        crossnet.from_published,
        "decoder",
        "fusion.0",
        unused=("UNet_decoder_2.post_fusion2.0.weight",),
    ),
    "ssen": Peer(
        lambda **sizes: ssen.SSEN(ssen.SSENConfig(**sizes)),
        dict(channels=6, offset_channels=5, attention_channels=3, stages=2, blocks=(1, 2), mode="concat"),
        ssen.names,
        ssen.from_published,
        "reconstruction",
        "fusion",
    ),
}


def small(name: str, **changes: Any) -> nn.Module:
    """The small network with random weights, in evaluation mode, whose result depends on everything."""
    peer = PEERS[name]
    network = peer.build(**(peer.sizes | changes)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() < 4:
            nn.init.normal_(parameter, std=0.05, generator=generator)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
    return network


def images(batch: int, lr: tuple[int, int], reference: tuple[int, int], dtype: torch.dtype = torch.float32):
    """Random LR image and reference in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(batch, 3, *size, generator=generator).to(dtype) for size in (lr, reference))


everywhere = pytest.mark.parametrize("name", PEERS)


@everywhere
@torch.no_grad()
@pytest.mark.parametrize(("lr", "reference"), [((1, 1), (3, 5)), ((7, 10), (29, 37)), ((18, 5), (90, 66))])
def test_any_sizes(name, lr, reference) -> None:
    network = small(name)
    low, sharp = images(1, lr, reference)
    result = network(low, sharp)
    assert result.image.shape == (1, 3, 4 * lr[0], 4 * lr[1])
    assert result.image.isfinite().all()
    assert result.features is not None
    assert not torch.equal(result.image, network(low, 1 - sharp).image)


@everywhere
@torch.no_grad()
def test_a_batch_is_its_images(name) -> None:
    network = small(name).double()
    low, sharp = images(2, (8, 9), (33, 40), torch.float64)
    together = network(low, sharp)
    for n in range(2):
        alone = network(low[n : n + 1], sharp[n : n + 1])
        torch.testing.assert_close(together.image[n : n + 1], alone.image, rtol=1e-6, atol=1e-6)


@everywhere
@torch.no_grad()
def test_what_it_makes_itself(name) -> None:
    """An encoded reference does as an image does; without a reference the result is the enlarged LR image."""
    network = small(name)
    low, sharp = images(1, (8, 9), (33, 40))
    upsampled = network(low).image
    assert torch.equal(upsampled, (255 * upsampled).round() / 255)
    assert torch.equal(network(low, None, low.repeat(1, 1, 4, 4)).image, low.repeat(1, 1, 4, 4))
    result = network(low, sharp)
    assert torch.equal(network(low, network.encode_reference(sharp)).image, result.image)
    assert torch.equal(network(low, sharp, upsampled).image, result.image)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ttsr", "wtrn"])
def test_several_references(name) -> None:
    """Each is matched alone, one's match counts at each place, and their order is of no importance."""
    network = small(name).double()
    low, one = images(2, (9, 8), (33, 40), torch.float64)
    sharp = [one, one.flip(2, 3)[..., :20]]
    encoded = [network.encode_reference(image) for image in sharp]
    alone = [network(low, image) for image in sharp]
    assert torch.equal(network(low, encoded[:1]).image, alone[0].image)
    both, turned = network(low, encoded), network(low, encoded[::-1])
    torch.testing.assert_close(turned.image, both.image)
    found, expected = both.correspondence, [result.correspondence for result in alone]
    assert found.source.unique().tolist() == [0, 1]
    for field in ("score", "index", "flow"):
        each = torch.stack([getattr(result, field) for result in expected])
        source = found.source.reshape(1, *found.source.shape, *[1] * (each.dim() - 4)).expand(1, *each.shape[1:])
        assert torch.equal(getattr(found, field), each.gather(0, source)[0])
    assert not torch.equal(both.image, alone[0].image)


@torch.no_grad()
@pytest.mark.parametrize("name", ["crossnet", "ssen"])
def test_a_tile_sees_its_place_in_the_reference(name) -> None:
    """Networks that search nothing must know where in the photo the tile lies."""
    network = small(name).double()
    low, sharp = images(1, (64, 64), (160, 290), torch.float64)
    whole = network(low, sharp).image
    tile = network(low[..., 16:, 32:], network.encode_reference(sharp)._replace(corner=(16, 32))).image
    there = (..., slice(128, 144), slice(200, 240))  # in the photo, away from the tile's borders
    assert (tile[..., 64:80, 72:112] - whole[there]).abs().max() < 0.2 * whole[there].std()
    elsewhere = network(low[..., 16:, 32:], sharp).image
    assert (elsewhere[..., 64:80, 72:112] - whole[there]).abs().max() > whole[there].std()


@everywhere
@torch.no_grad()
def test_bfloat16(name) -> None:
    network = small(name).bfloat16()
    low, sharp = images(1, (6, 5), (24, 30), torch.bfloat16)
    result = network(low, sharp)
    assert result.image.dtype == torch.bfloat16
    assert result.image.isfinite().all()


@pytest.mark.slow
@everywhere
@torch.no_grad()
def test_it_compiles_without_a_break(name) -> None:
    network = small(name)
    low, sharp = images(1, (16, 16), (64, 64))
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(low, sharp).image, network(low, sharp).image)


def trained_by(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> set[str]:
    """Names of the parameters that the image gives a gradient that is not zero."""
    network(*inputs).image.sum().backward()
    return {key for key, value in network.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}


@everywhere
def test_feature_reuse_starts_as_the_first_network(name) -> None:
    peer = PEERS[name]
    first, both = small(name), small(name, reuse=True)
    assert isinstance(both.get_submodule(peer.box), FeatureReuse)
    both.load_state_dict(first.state_dict())
    inputs = images(1, (16, 16), (64, 64))
    with torch.no_grad():
        expected, result = first(*inputs), both(*inputs)
    assert torch.equal(result.image, expected.image)
    assert torch.equal(result.features, expected.features)

    both.train()
    trained = trained_by(both, inputs)
    assert all(key.startswith(f"{peer.box}.second.") for key in trained)
    channels = peer.sizes["channels"]
    assert both.get_parameter(f"{peer.box}.second.{peer.injection}.weight").grad[:, -channels:].abs().max() > 0


@everywhere
def test_every_weight_is_trained(name) -> None:
    network = small(name).train()
    trained = trained_by(network, images(2, (32, 32), (128, 128)))
    # The product with the keys does not change when a constant is added to all of them.
    assert {key for key, _ in network.named_parameters()} - trained <= {
        key for key, _ in network.named_parameters() if key.endswith((".key.bias", ".out.0.bias"))
    }


@everywhere
def test_saved_and_loaded(name, tmp_path) -> None:
    network = small(name)
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path)
    assert again.config == network.config
    inputs = images(1, (6, 5), (24, 30))
    with torch.no_grad():
        assert torch.equal(again(*inputs).image, network(*inputs).image)


def published(name: str, network: nn.Module) -> dict[str, Tensor]:
    """The network's weights under the published keys."""
    names = PEERS[name].names(network)
    return {published_key(key, names): value for key, value in network.state_dict().items()}


@everywhere
def test_published_checkpoints_of_any_size(name) -> None:
    peer, network = PEERS[name], small(name)
    state = published(name, network) | {key: torch.zeros(2) for key in peer.unused}
    wrapped = {"params": {f"module.{key}": value for key, value in state.items()}}
    inputs = images(1, (16, 16), (64, 64))
    with torch.no_grad():
        expected = network(*inputs).image
        for checkpoint in (state, wrapped):
            loaded = peer.from_published(checkpoint)
            assert asdict(loaded.config) == asdict(network.config)
            assert not loaded.training
            assert torch.equal(loaded(*inputs).image, expected)


@everywhere
def test_what_is_no_such_checkpoint_is_refused_in_one_line(name) -> None:
    peer = PEERS[name]
    state = published(name, small(name))
    missing, of_another_shape = list(state)[-2:]
    mistakes = [
        ({key: value for key, value in state.items() if key != missing}, missing),
        (state | {of_another_shape: torch.zeros(3, 2)}, of_another_shape),
        (state | {"step.weight": torch.zeros(1)}, "step.weight"),
        (state | {"step": 3}, "step"),
        ({}, "lacks"),
        ([1], "list"),
        *((state | {key: torch.zeros(3)}, key) for key in peer.constants),
    ]
    for checkpoint, what in mistakes:
        with pytest.raises(UserError, match=what.replace(".", r"\.")) as raised:
            peer.from_published(checkpoint)
        assert "\n" not in str(raised.value)
