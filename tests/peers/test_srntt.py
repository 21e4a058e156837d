"""SRNTT, the PyTorch port's form and the original's, against what their published code computes."""

import pytest
import torch
import torch.nn.functional as F

from frfsr.errors import UserError
from frfsr.peers import srntt, srntt_tf
from frfsr.peers.srntt import SRNTT, SRNTTConfig, Swapped, match, swap
from frfsr.states import published_key

LAYERS = {"relu1_1": 4, "relu2_1": 2, "relu3_1": 1}
SUBSETS = {
    "relu3_1": (slice(None), slice(None, None, 16)),
    "relu2_1": (slice(None), slice(None, None, 32), slice(None, None, 2), slice(None, None, 2)),
    "relu1_1": (slice(None), slice(None, None, 16), slice(None, None, 3), slice(None, None, 3)),
}
DTYPES = [torch.float64, torch.float32]


def load(case) -> SRNTT:
    return srntt.from_published({"net_g": case.states["SRNTT"], "vgg": case.states["VGG"]})


def small(**changes) -> SRNTT:
    torch.manual_seed(0)
    return SRNTT(SRNTTConfig(**({"channels": 6, "blocks": 1, "texture_channels": (4, 5, 7)} | changes))).eval()


def port_state(network: SRNTT) -> dict[str, torch.Tensor]:
    """The weights of a network under the port's keys."""
    names = srntt.texture_net_names(network.config.blocks)
    return {published_key(key, names): value for key, value in network.aggregation.state_dict().items()}


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["22_srntt_a", "22_srntt_weighted_b2"])
def test_equals_the_port(name: str, dtype: torch.dtype, peer_case, watch_probes, compare) -> None:
    case = peer_case(name)
    network = load(case).to(dtype)
    lr, up, reference, blurred = (case[image].to(dtype) for image in ("lq", "up", "ref", "ref_blur"))
    compare(f"{name} plain", network(lr, None, up).image, case["out_plain"])
    scales = {f"{scale}.head": f"texture_transfer.head_{scale}.0" for scale in ("small", "medium", "large")}
    bodies = {f"{scale}.body": f"texture_transfer.body_{scale}" for scale in ("small", "medium", "large")}
    ends = {"tail.0": "texture_transfer.tail_large.0", "enlarge_small.0": "texture_transfer.tail_small.0"}
    content = {"content.head": "content_extractor.head.0", "content.body": "content_extractor.body"}
    assert len(watch_probes(network.aggregation, scales | bodies | ends | content, case)) == 10

    seen = []
    hook = network.aggregation.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    result = network(lr, reference, up, reference_blurred=blurred)
    hook.remove()
    assert torch.equal(result.correspondence.index, case["index"])
    compare(f"{name} weights", result.correspondence.score[:, None, 1:-1, 1:-1], case["weights"])
    for texture, layer in zip(seen[0].textures, LAYERS, strict=True):
        compare(f"{name} {layer}", texture[SUBSETS[layer]], case[f"{layer}_sub"])
    compare(name, result.image, case["out"])
    encoded = network.encode_reference(reference, blurred)
    assert torch.equal(network(lr, encoded, up).image, result.image)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_equal_the_port(dtype: torch.dtype, peer_case, compare) -> None:
    case = peer_case("22_srntt_weighted_b2")
    network = load(case).to(dtype)
    lr = case["lq"].to(dtype).requires_grad_()
    seen = []
    hook = network.aggregation.register_forward_pre_hook(
        lambda module, inputs: (
            seen.append(inputs[0]._replace(textures=[t.requires_grad_() for t in inputs[0].textures])) or (seen[-1],)
        )
    )
    result = network(lr, case["ref"].to(dtype), case["up"].to(dtype), reference_blurred=case["ref_blur"].to(dtype))
    hook.remove()
    large, _, small = seen[0].textures
    net = network.aggregation
    inputs = {
        "lq": lr,
        "relu3_1_sub": small,
        "relu1_1_sub": large,
        "texture_transfer.head_small.0.bias": net.small.head.bias,
        "texture_transfer.tail_large.2.weight": net.tail[2].weight,
        "texture_transfer.a": net.a,
        "texture_transfer.b": net.b,
    }
    gradients = torch.autograd.grad((result.image * case["grad_out"].to(dtype)).sum(), list(inputs.values()))
    for (name, _), gradient in zip(inputs.items(), gradients, strict=True):
        subset = SUBSETS.get(name.removesuffix("_sub"), ...)
        compare(f"{case.name} grad {name}", gradient[subset], case[f"grad.{name}"], case.gradient_tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_swap_equals_the_port(dtype: torch.dtype, peer_case, compare) -> None:
    case = peer_case("22_srntt_swap_a")
    found = match(case["in.relu3_1"].to(dtype), case["blur.relu3_1"].to(dtype))
    assert torch.equal(found.index, case["index"])
    compare("22_srntt_swap_a weights", found.score[:, None], case["weights"])
    for layer, scale in LAYERS.items():
        swapped = swap(case[f"ref.{layer}"].to(dtype), found.flow, scale)
        compare(f"22_srntt_swap_a {layer}", swapped, case[f"swapped.{layer}"])


def test_swap_is_an_overlap_add() -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.rand(2, 3, 2 * 7, 2 * 9, generator=generator)
    found = match(torch.rand(2, 4, 5, 6, generator=generator), torch.rand(2, 4, 7, 9, generator=generator))
    patches = F.unfold(feature, 6, stride=2)
    index = found.index.flatten(1)[:, None].expand(-1, patches.shape[1], -1)
    matched, ones = patches.gather(2, index), torch.ones(1, 36, index.shape[2])
    expected, covering = (F.fold(x, (10, 12), 6, stride=2) for x in (matched, ones))
    torch.testing.assert_close(swap(feature, found.flow, 2), expected / covering)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reading_of_the_original(dtype: torch.dtype, peer_case, golden_rule, compare) -> None:
    case = peer_case("22_srntt_tf_a")
    vgg = peer_case("22_srntt_a").states["VGG"]  # any of the right sizes: the case starts behind it
    network = srntt_tf.from_published({"net_g": case.state, "vgg": vgg}).to(dtype)
    assert network.config.blocks == (4, 8, 16)
    lr = (case["lr"].to(dtype) + 1) / 2
    widths = dict(zip(LAYERS, network.config.texture_channels, strict=True))
    textures = [
        golden_rule.golden_tensor(layer, (1, widths[layer], scale * 9, scale * 12), 225).relu().to(dtype)
        for layer, scale in LAYERS.items()
    ]
    swapped = Swapped(lr, textures, lr.new_zeros(1, 7, 10))
    image = network.aggregation.reconstruct(network.aggregation(swapped), swapped)
    compare(case.name, 2 * image - 1, case["out"])
    compare(f"{case.name} plain", 2 * network(lr).image - 1, case["out_upscale"])


@torch.no_grad()
def test_original_sees_the_images_of_matconvnet() -> None:
    config = srntt_tf.SRNTTTensorFlowConfig(8, 1, (1, 1, 1), (4, 5, 7))
    network = srntt_tf.SRNTTTensorFlow(config).eval()
    image = torch.rand(1, 3, 12, 12)
    levels = 255 * image - torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    expected = F.relu(network.vgg.conv1_1(levels))
    torch.testing.assert_close(network.vgg(image)[0], expected)


@torch.no_grad()
@pytest.mark.parametrize("network", [small(), small(weighted=True), small(reuse=True)])
@pytest.mark.parametrize(("size", "reference"), [((1, 1), (5, 50)), ((3, 7), (13, 30)), ((9, 5), (1, 1))])
def test_any_size_and_batch(network: SRNTT, size: tuple[int, int], reference: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    lr, sharp = (torch.rand(2, 3, *sides, generator=generator) for sides in (size, reference))
    result = network(lr, sharp)
    large = (4 * size[0], 4 * size[1])
    assert result.image.shape == (2, 3, *large)
    assert result.features.shape == (2, 6, *large)
    assert network(lr).image.shape == (2, 3, *large)
    torch.testing.assert_close(network(lr[1:], sharp[1:]).image, result.image[1:])


def test_reuse_starts_as_the_first_network_and_learns() -> None:
    plain, both = small(), small(reuse=True)
    both.load_state_dict(plain.state_dict())
    lr, sharp = torch.rand(1, 3, 5, 6), torch.rand(1, 3, 24, 20)
    result = both(lr, sharp)
    torch.testing.assert_close(result.image, plain(lr, sharp).image)
    result.image.square().sum().backward()
    second = both.aggregation.second
    assert second.large.head.weight.grad[:, -6:].abs().sum() > 0
    assert all(parameter.grad is None for parameter in both.aggregation.first.parameters())
    assert all(parameter.grad is None for parameter in both.vgg.parameters())


@pytest.mark.parametrize("wrapper", [None, "params"])
@pytest.mark.parametrize("weighted", [False, True])
def test_other_sizes_from_published(weighted: bool, wrapper: str | None) -> None:
    original = small(weighted=weighted, blocks=2)
    net_g = port_state(original)
    assert ("texture_transfer.a" in net_g) == weighted
    vgg = {f"net.{key}": value for key, value in original.vgg.state_dict().items()}
    loaded = srntt.from_published({"net_g": {wrapper: net_g} if wrapper else net_g, "vgg": vgg})
    assert loaded.config == original.config
    lr, sharp = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 17, 22)
    assert torch.equal(loaded(lr, sharp).image, original(lr, sharp).image)


def test_wrong_parts_are_refused() -> None:
    network = small()
    net_g, vgg = port_state(network), {f"net.{key}": value for key, value in network.vgg.state_dict().items()}
    with pytest.raises(UserError, match=r"srntt needs the parts net_g, vgg; got a\."):
        srntt.from_published({"a": net_g})
    with pytest.raises(UserError, match=r"net_g.*missing: texture_transfer.head_small.0.bias"):
        srntt.from_published(
            {"net_g": {k: v for k, v in net_g.items() if k != "texture_transfer.head_small.0.bias"}, "vgg": vgg}
        )
    with pytest.raises(UserError, match=r"net_g.*unknown: other"):
        srntt.from_published({"net_g": net_g | {"other": torch.zeros(1)}, "vgg": vgg})
    with pytest.raises(UserError, match=r"lacks 'content_extractor.head.0.weight'"):
        srntt.from_published({"net_g": vgg, "vgg": vgg})


def test_saved_and_loaded(tmp_path) -> None:
    original = small(weighted=True)
    original.save_pretrained(tmp_path)
    lr, sharp = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 17, 22)
    assert torch.equal(SRNTT.from_pretrained(tmp_path)(lr, sharp).image, original(lr, sharp).image)
