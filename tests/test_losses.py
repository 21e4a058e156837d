"""Losses, critic and homographies against the published implementation's numbers."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import repeat
from safetensors.torch import load_file
from torch import Tensor

from frfsr.recipes.critic import Critic, adversarial_loss, critic_loss, drawn_critic, gradient_penalty
from frfsr.recipes.homography import random_homography, transform, warp
from frfsr.recipes.losses import (
    PerceptualLoss,
    contrastive_loss,
    distillation_loss,
    known_matches,
    matching_cross_entropy,
    reconstruction_loss,
)

GOLDEN = Path(__file__).parent / "golden"
FLOAT64 = dict(rtol=0, atol=2e-6)  # of the golden tensor's maximum


def golden(case: str) -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}


def golden_parameter(key: str, shape: tuple[int, ...]) -> Tensor:
    """Deterministic weights under the published key; see tests/golden/golden_weights.py."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "golden_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.golden_param(key, shape, seed=0)


def assert_golden(actual: Tensor, expected: Tensor) -> None:
    scale = expected.abs().max()
    torch.testing.assert_close(actual / scale, expected / scale, **FLOAT64)


def test_reconstruction_is_the_mean_difference_or_what_psnr_counts():
    truth = torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = truth + torch.tensor([0.1, -0.02, 0.003], dtype=torch.float64)[:, None, None, None]
    psnr = torch.tensor([20, 33.9794, 50.4576], dtype=torch.float64)
    torch.testing.assert_close(reconstruction_loss(image, truth), torch.tensor(0.041, dtype=torch.float64))
    assert reconstruction_loss(image, truth, "l2").item() == pytest.approx((0.01 + 4e-4 + 9e-6) / 3)
    for one, decibels in enumerate(psnr):
        each = slice(one, one + 1)
        found = -10 / math.log(10) * reconstruction_loss(image[each], truth[each], "psnr").item()
        assert found == pytest.approx(decibels.item(), abs=0.5)  # the floor takes most of what is above 50 dB
    found = -10 / math.log(10) * reconstruction_loss(image[:2], truth[:2], "psnr").item()
    assert found == pytest.approx(psnr[:2].mean().item(), abs=0.01)
    assert reconstruction_loss(truth, truth, "psnr").isfinite()


def published_critic() -> Critic:
    """The critic with the golden weights, float64, in training mode."""
    critic = Critic("published")
    state = {}
    for name, value in critic.state_dict().items():
        place = name.split(".", 2)
        published = f"conv_block{int(place[1]) + 1}.{place[2]}" if place[0] == "blocks" else f"out_block.{name[5:]}"
        state[name] = golden_parameter(published, tuple(value.shape))
    critic.load_state_dict(state)
    return critic.double()


@pytest.fixture(scope="module")
def images() -> dict[str, Tensor]:
    return golden("12_discriminator_a")


def test_published_critic_in_both_modes(images):
    critic = published_critic().eval()
    assert_golden(critic(images["sr"]), images["eval_out_sr"])
    assert_golden(critic(images["gt"]), images["eval_out_gt"])
    critic.train()
    assert_golden(critic(images["sr"]), images["train_out_sr"])
    for block, layer, statistic in ((1, 1, "mean"), (1, 1, "var"), (5, 4, "mean"), (5, 4, "var")):
        expected = images[f"after_one_train_forward.conv_block{block}.{layer}.running_{statistic}"]
        assert_golden(getattr(critic.blocks[block - 1][layer], f"running_{statistic}"), expected)


def test_critic_loss_and_its_gradients(images):
    critic = published_critic()
    loss = critic_loss(critic, images["gt"], images["sr"], images["alpha"].flatten())
    loss.backward()
    assert_golden(loss, images["l_d_total"])
    norms = torch.stack([parameter.grad.norm() for parameter in critic.parameters()])
    assert_golden(norms, images["d_grad_norm"])
    for name, parameter in (
        ("conv_block1.0.weight", critic.blocks[0][0].weight),
        ("conv_block1.1.weight", critic.blocks[0][1].weight),
        ("conv_block5.4.weight", critic.blocks[4][4].weight),
        ("out_block.3.weight", critic.head[3].weight),
        ("out_block.3.bias", critic.head[3].bias),
    ):
        assert_golden(parameter.grad, images[f"d_grad.{name}"])


def test_terms_of_the_critic_loss(images):
    critic, truth, result = published_critic(), images["gt"], images["sr"]
    assert_golden(-critic(truth).mean(), images["l_d_real"])
    assert_golden(critic(result).mean(), images["l_d_fake"])
    penalty = 10 * gradient_penalty(critic, truth, result, images["alpha"].flatten())
    assert_golden(penalty, images["l_grad_penalty"])


def test_adversarial_loss_and_its_gradient(images):
    result = images["sr"].requires_grad_()
    loss = adversarial_loss(published_critic(), result)
    loss.backward()
    assert_golden(1e-6 * loss, images["l_g_gan"])
    assert_golden(result.grad, images["g_gan_grad_sr_unweighted"])


def test_wgan_critic_is_unbounded_and_judges_each_image_alone():
    generator = torch.Generator().manual_seed(0)
    critic, batch = Critic(widths=(4, 8)), torch.rand(3, 3, 17, 21, generator=generator)
    names = {type(module).__name__ for module in critic.modules()}
    assert not names & {"BatchNorm2d", "Sigmoid"}
    together, alone = critic(batch), torch.cat([critic(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert critic(1e6 * batch).abs().max() > 1


def test_critics_first_weights_are_of_its_seed_alone():
    torch.manual_seed(0)
    first, state = drawn_critic("wgan", 7).state_dict(), torch.get_rng_state()
    torch.rand(5)
    again, other = drawn_critic("published", 7).state_dict(), drawn_critic("wgan", 8).state_dict()
    assert torch.equal(first["head.1.weight"], again["head.1.weight"])
    assert not torch.equal(first["head.1.weight"], other["head.1.weight"])
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)  # what is drawn after it does not depend on it either


def test_penalty_of_a_linear_critic_is_known_in_closed_form():
    class Linear(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return 3 * image.flatten(1).sum(1)  # the gradient is 3 everywhere: its norm is 3 * sqrt(pixels)

    truth, result = torch.rand(2, 3, 5, 7), torch.rand(2, 3, 5, 7)
    penalty = gradient_penalty(Linear(), truth, result, torch.tensor([0.2, 0.7]))
    torch.testing.assert_close(penalty, torch.tensor((3 * 105**0.5 - 1) ** 2), rtol=1e-5, atol=0)


def test_mixed_precision_does_not_reach_the_critic():
    torch.manual_seed(0)
    critic, truth, result, mix = Critic(widths=(4, 8)), *torch.rand(2, 2, 3, 16, 16), torch.rand(2)
    expected = critic_loss(critic, truth, result, mix)
    with torch.autocast("cpu", torch.bfloat16):
        loss = critic_loss(critic, truth, result, mix)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def test_perceptual_loss_and_its_gradient():
    case = golden("12_perceptual_l1_a")
    layers = json.loads((GOLDEN / "vgg19_layers.json").read_text())
    state = {}
    for published, (torchvision, shape) in layers.items():
        state[torchvision] = golden_parameter(published, tuple(shape)).double()
    loss_function, result = PerceptualLoss(state).double(), case["sr"].requires_grad_()
    assert_golden(loss_function.relu5_1(result.detach()), case["relu5_1_sr"])
    loss = 1e-4 * loss_function(result, case["gt"])
    loss.backward()
    assert_golden(loss, case["perceptual"])
    assert_golden(result.grad, case["perceptual_grad_sr"])
    assert not any(parameter.requires_grad for parameter in loss_function.parameters())


def test_perceptual_loss_takes_vgg16_and_names_missing_layers():
    with pytest.raises(RuntimeError, match=r"features\.24\.weight"):
        PerceptualLoss({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "vgg16")


def contrastive_case() -> dict[str, Tensor]:
    """The golden case, whose third item has too few correspondences to count, so that its features do not matter."""
    case = golden("13_contrastive_a")
    for name in ("features1", "features2", "teacher_features1", "teacher_features2"):
        case[name] = torch.cat([case[name], torch.ones_like(case[name][:1])]).requires_grad_(name[0] != "t")
    case["coordinates"] = repeat(case["coordinates"], "b h w xy -> b (h i) (w j) xy", i=4, j=4)
    return case


def assert_matching_gradients(case: dict[str, Tensor], stage: str) -> None:
    for name in ("features1", "features2"):
        gradient, expected = case[name].grad, case[f"{stage}.grad_{name}"]
        torch.testing.assert_close(gradient[:2, ::6], expected, rtol=0, atol=1e-4 * expected.abs().max().item())
        assert not gradient[2].any()


def test_teacher_loss_and_its_gradients():
    case = contrastive_case()
    loss = contrastive_loss(case["features1"], case["features2"], case["coordinates"])
    loss.backward()
    torch.testing.assert_close(loss[None], case["teacher.loss"], rtol=1e-5, atol=0)
    assert_matching_gradients(case, "teacher")


def test_student_loss_and_its_gradients():
    case = contrastive_case()
    features, coordinates = (case["features1"], case["features2"]), case["coordinates"]
    distilled = distillation_loss(*features, case["teacher_features1"], case["teacher_features2"], coordinates)
    loss = contrastive_loss(*features, coordinates) + 15 * distilled
    loss.backward()
    torch.testing.assert_close(distilled, case["student.distill_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(loss[None], case["student.loss"], rtol=1e-5, atol=0)
    assert_matching_gradients(case, "student")


@pytest.mark.parametrize("loss", [contrastive_loss, matching_cross_entropy])
def test_no_correspondence_gives_zero_loss_and_zero_gradients(loss):
    features = torch.rand(1, 4, 10, 12, requires_grad=True)
    value = loss(features, features, torch.full((1, 40, 48, 2), -100.0))
    value.backward()
    assert value.item() == 0
    assert not features.grad.any()


def test_cross_entropy_is_lowest_where_features_correspond():
    height, width = 20, 24
    y, x = torch.meshgrid(torch.arange(4.0 * height), torch.arange(4.0 * width), indexing="ij")
    identity = torch.stack([x, y], -1)[None]
    features = torch.randn(1, 128, height, width, generator=torch.Generator().manual_seed(0))
    same = matching_cross_entropy(features, features, identity)
    assert same < 0.1 < matching_cross_entropy(features, features.flip(-1), identity)


def test_random_homographies_repeat_the_published_draw():
    case = golden("13_homography_pair_a")
    homography = random_homography(np.random.RandomState(132))
    np.testing.assert_allclose(homography, case["H"].numpy(), rtol=1e-5)
    rng = np.random.RandomState(0)
    drawn = np.stack([np.linalg.inv(random_homography(rng)) for _ in range(3)])
    np.testing.assert_allclose(drawn, case["validation_H_inverse"].numpy(), rtol=1e-5, atol=1e-7)


def test_second_view_and_its_coordinates():
    case = golden("13_homography_pair_a")
    homography = case["H"].numpy()
    image = case["image"].permute(2, 0, 1) / 255
    difference = warp(image, homography).permute(1, 2, 0) - case["warped"] / 255
    assert difference.abs().max() <= 1 / 255
    coordinates = transform(np.linalg.inv(homography), 160, 160)[::4, ::4]
    np.testing.assert_allclose(coordinates, case["transformed_coordinate_sub"][..., :2].numpy(), rtol=0, atol=1e-3)


def test_known_matches_keep_away_from_the_border():
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(96.0), indexing="ij")
    matches = known_matches(torch.stack([x, y], -1))
    assert matches.kept.sum() == len(matches.first) == 15 * 19  # 12 <= y <= 68 and 12 <= x <= 84, in steps of 4
    assert torch.equal(matches.first.float(), matches.second)
