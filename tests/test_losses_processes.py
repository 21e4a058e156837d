"""The losses of several processes: the mean of their gradients is the gradient of the whole batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from frfsr.recipes.losses import (
    PerceptualLoss,
    contrastive_loss,
    distillation_loss,
    matching_cross_entropy,
    vgg_features,
)

PROCESSES = 2
SIDE = 24  # of the feature maps


def perceptual(image: Tensor) -> Tensor:
    """Of a (B, 3, 32, 32) batch, whose images are unlike each other in their distance from the truth, zero."""
    torch.manual_seed(0)
    weights = {f"features.{name}": value for name, value in vgg_features("vgg16").state_dict().items()}
    return PerceptualLoss(weights, "vgg16").double()(image, torch.zeros_like(image))


def of_matches(loss: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """A matching loss of (B, 2, C, h, w) features, where the last item of the whole batch has too few matches."""

    def of_features(features: Tensor) -> Tensor:
        y, x = torch.meshgrid(torch.arange(4.0 * SIDE), torch.arange(4.0 * SIDE), indexing="ij")
        coordinates = torch.stack([x, y], -1).repeat(len(features), 1, 1, 1)
        coordinates[features.detach().amax((1, 2, 3, 4)) > 100] = -1  # outside of the other image
        first, second = features.unbind(1)
        taught = (second.detach(), first.detach()) if loss is distillation_loss else ()
        return loss(first, second, *taught, coordinates)

    return of_features


def batch_of(name: str) -> Tensor:
    """Four items, float64, unlike each other."""
    random = torch.Generator().manual_seed(1)
    if name == "perceptual":
        return torch.rand(4, 3, 32, 32, generator=random).double() * torch.tensor([0.1, 0.2, 1, 3]).view(-1, 1, 1, 1)
    features = torch.randn(4, 2, 8, SIDE, SIDE, generator=random).double()
    features[3] += 1000
    return features


LOSSES = {
    "perceptual": perceptual,
    "contrastive": of_matches(contrastive_loss),
    "cross entropy": of_matches(matching_cross_entropy),
    "distillation": of_matches(distillation_loss),
}


def value_and_gradient(name: str, items: Tensor) -> tuple[Tensor, Tensor]:
    items = items.clone().requires_grad_()
    value = LOSSES[name](items)
    value.backward()
    assert items.grad is not None
    return value.detach(), items.grad


def share(rank: int, meeting: str, out: str) -> None:
    """What one process computes of its share, into a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    results = {name: value_and_gradient(name, batch_of(name).chunk(PROCESSES)[rank]) for name in LOSSES}
    torch.save(results, f"{out}.{rank}")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shares(tmp_path_factory, importable) -> list[dict[str, tuple[Tensor, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(share, (str(folder / "meeting"), str(folder / "out")), nprocs=PROCESSES)
    return [torch.load(folder / f"out.{rank}") for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_the_processes_is_the_whole_batch(shares, name):
    value, gradient = value_and_gradient(name, batch_of(name))
    assert gradient.abs().max() > 0
    mean = torch.stack([part[name][0] for part in shares]).mean()
    torch.testing.assert_close(mean, value, rtol=1e-9, atol=0)
    gradients = torch.cat([part[name][1] for part in shares]) / PROCESSES
    torch.testing.assert_close(gradients, gradient, rtol=1e-7, atol=1e-12)


def test_no_item_that_counts_is_a_loss_of_zero_with_gradients():
    value, gradient = value_and_gradient("contrastive", batch_of("contrastive")[3:])
    assert value == 0
    assert not gradient.any()
