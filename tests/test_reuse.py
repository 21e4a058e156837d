"""The feature reuse framework on FRFSR and on a network that has nothing in common with it."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr import FRFSR, FRFSRConfig
from frfsr.errors import UserError
from frfsr.reuse import FeatureReuse

SMALL = dict(
    encoder_channels=(4, 4, 8),
    texture_channels=(8, 8, 8),
    channels=(8, 8, 8),
    sife_features=8,
    sife_growth=4,
    blocks=(1, 1, 1),
)


class Pair(NamedTuple):
    lr: Tensor
    aligned: Tensor


class AttentionSR(nn.Module):
    """A single-scale network on inputs that are aligned beforehand; it transfers texture by attention over channels."""

    def __init__(self, reuse: bool, channels: int = 6):
        super().__init__()
        self.lr = nn.Conv2d(3, channels, 5, padding=2)
        self.texture = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.mix = nn.Conv2d((2 if reuse else 1) * channels, channels, 3, padding=1)
        self.last = nn.Sequential(nn.Conv2d(channels, 3 * 4, 1), nn.PixelShuffle(2))

    def forward(self, inputs: Pair, reused: Tensor | None = None) -> Tensor:
        texture = self.texture(inputs.aligned)
        features = torch.tanh(self.lr(inputs.lr)) + texture * texture.mean((2, 3), keepdim=True).sigmoid()
        return self.mix(features if reused is None else torch.cat([features, reused], 1))

    def reconstruct(self, features: Tensor, inputs: Pair) -> Tensor:
        return self.last(features) + F.interpolate(inputs.lr, scale_factor=2, mode="nearest")


@pytest.fixture
def inputs() -> Pair:
    generator = torch.Generator().manual_seed(0)
    return Pair(torch.rand(2, 3, 7, 9, generator=generator), torch.rand(2, 3, 14, 18, generator=generator))


@pytest.fixture
def framework() -> FeatureReuse:
    torch.manual_seed(0)
    return FeatureReuse(AttentionSR(reuse=False), AttentionSR(reuse=True))


def test_second_network_starts_as_the_first(framework, inputs):
    features = framework.first(inputs)
    second_features = framework(inputs)
    image = framework.reconstruct(second_features, inputs)
    torch.testing.assert_close(second_features, features, rtol=0, atol=1e-6)
    torch.testing.assert_close(image, framework.first.reconstruct(features, inputs), rtol=0, atol=1e-6)
    torch.manual_seed(1)
    fresh = FeatureReuse(framework.first, AttentionSR(reuse=True), fresh=True)
    assert (fresh.reconstruct(fresh(inputs), inputs) - image).abs().max() > 1e-2


def test_only_the_second_network_learns(framework, inputs):
    before = {name: value.clone() for name, value in framework.state_dict().items()}
    framework.train()
    assert not framework.first.training
    assert framework.second.training
    optimizer = torch.optim.Adam(framework.parameters(), lr=1e-2)
    truth = torch.rand(2, 3, 14, 18, generator=torch.Generator().manual_seed(1))
    errors = []
    for _ in range(10):
        error = F.l1_loss(framework.reconstruct(framework(inputs), inputs), truth)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]
    for name, value in framework.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("first."), name


def test_reused_features_reach_the_image(framework, inputs):
    nn.init.normal_(framework.second.mix.weight, std=0.1)
    features = framework(inputs)
    nn.init.zeros_(framework.first.lr.weight)
    assert (framework(inputs) - features).abs().max() > 1e-3


def test_networks_of_other_sizes_are_refused():
    with pytest.raises(UserError, match=r"lr\.weight has other sizes"):
        FeatureReuse(AttentionSR(reuse=False, channels=4), AttentionSR(reuse=True))


def randomised(config: FRFSRConfig) -> FRFSR:
    model, generator = FRFSR(config).eval(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.07, generator=generator)
    return model


@pytest.mark.parametrize("score_input", [False, True])
def test_frfsr_with_reuse_starts_as_frfsr_without(score_input):
    model = randomised(FRFSRConfig.tiny(reuse=True, score_input=score_input, **SMALL))
    lr, reference = torch.rand(1, 3, 9, 11), torch.rand(1, 3, 40, 36)
    both, model.aggregation = model.aggregation, model.aggregation.first
    expected, single = model(lr, reference), model.state_dict()
    model.aggregation = both
    assert (model(lr, reference).image - expected.image).abs().max() > 1e-3
    model.load_state_dict(single)
    result = model(lr, reference)
    torch.testing.assert_close(result.features, expected.features, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.image, expected.image, rtol=0, atol=1e-5)


def test_frfsr_gives_the_first_network_no_gradient():
    model = randomised(FRFSRConfig.tiny(reuse=True, **SMALL))
    image = model(torch.rand(1, 3, 9, 11), torch.rand(1, 3, 40, 36)).image
    image.mean().backward()
    assert all(parameter.grad is None for parameter in model.aggregation.first.parameters())
    assert all(parameter.grad is not None for parameter in model.aggregation.second.parameters())


def test_frfsr_reuses_in_both_large_aggregations():
    model = randomised(FRFSRConfig.tiny(reuse=True, **SMALL))
    lr, reference = torch.rand(1, 3, 9, 11), torch.rand(1, 3, 40, 36)
    image = model(lr, reference).image
    for taam in (model.aggregation.second.taam_down_large, model.aggregation.second.taam_up_large):
        weight = taam.conv.weight.data
        reused, kept = weight[:, -8:], weight[:, -8:].clone()
        reused.zero_()
        assert (model(lr, reference).image - image).abs().max() > 1e-4
        reused.copy_(kept)
