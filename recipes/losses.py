"""Losses: perceptual (eq. 27) for images; contrastive (teacher) and distillation (student) for the matching network.

Reconstruction is eq. 26, or what PSNR counts; the adversarial losses are in recipes/critic.py.

Of several processes each has a share of the batch, and the mean of their gradients is what trains. That mean is the
gradient of the whole batch's loss only where the loss is a plain mean over the images: a norm over the batch and a mean
over some of its items ask the other processes.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather
from torchvision.models.vgg import cfgs, make_layers

from frfsr.pixels import IMAGENET_MEAN, IMAGENET_STD
from frfsr.recipes.config import Reconstructs

BORDER = 10  # pixels: correspondences that end nearer to the border do not count
FEWEST = 128  # an item with fewer correspondences does not count


def reconstruction_loss(image: Tensor, truth: Tensor, kind: Reconstructs = "l1") -> Tensor:
    """Compute how far an image is from the truth.

    Args:
        image: I_SR (B, 3, H, W).
        truth: I_HR (B, 3, H, W).
        kind: l1, eq. 26; l2, the mean square; psnr, the mean square's logarithm in each sample, whose mean over the
            samples is -PSNR * log(10) / 10 but for a floor of 60 dB (NAFNet's loss, Chen et al. 2022).

    Returns:
        A scalar.
    """
    if kind == "l1":
        return F.l1_loss(image, truth)
    squares = reduce((image - truth).square(), "b c h w -> b", "mean")
    return squares.mean() if kind == "l2" else (squares + 1e-6).log().mean()


class PerceptualLoss(nn.Module):
    """Eq. 27 as published: Frobenius norm of the difference of VGG's relu5_1 features, over the whole batch at once.

    The batch is that of all processes together; with `accumulate` each of its parts has a norm of its own.

    Args:
        state: VGG's weights under torchvision's names ("features.0.weight", ...); deeper layers may be there too.
        backbone: vgg19 (the paper's) or vgg16.

    Raises:
        RuntimeError: some weights are missing or of another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Mapping[str, Tensor], backbone: Literal["vgg16", "vgg19"] = "vgg19"):
        super().__init__()
        self.features = vgg_features(backbone)
        self.load_state_dict({name: state[name] for name in self.state_dict() if name in state})
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """Compute the loss, whose gradient goes into the result alone.

        Args:
            result: I_SR (B, 3, H, W), RGB in [0, 1], H, W >= 16.
            truth: I_HR (B, 3, H, W), RGB in [0, 1].

        Returns:
            A scalar.
        """
        with torch.no_grad():
            wanted = self.relu5_1(truth)
        own = (self.relu5_1(result) - wanted).norm()
        return torch.stack(all_gather(own)).norm() if distributed.is_initialized() else own

    def relu5_1(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 512, H // 16, W // 16)."""
        return self.features((image - self.mean) / self.std)


def vgg_features(backbone: Literal["vgg16", "vgg19"]) -> nn.Sequential:
    """The layers of torchvision's VGG from conv1_1 to relu5_1, with random weights."""
    plan = cfgs[{"vgg16": "D", "vgg19": "E"}[backbone]]
    fourth_pooling = [place for place, width in enumerate(plan) if width == "M"][3]
    return make_layers(plan[: fourth_pooling + 2], batch_norm=False)


class Matches(NamedTuple):
    """The positions of one image pair whose correspondence is known, on the feature grid (h, w).

    Attributes:
        first: (N, 2) int64 as (x, y) in image 1.
        second: (N, 2) float32, whole numbers, as (x, y) in image 2.
        kept: (h*w,) bool.
    """

    first: Tensor
    second: Tensor
    kept: Tensor


def known_matches(coordinates: Tensor, stride: int = 4) -> Matches:
    """Where image 1's feature positions lie in image 2. coordinates: (stride*h, stride*w, 2), (x, y) in pixels."""
    height, width = coordinates.shape[:2]
    at_positions = rearrange(coordinates[::stride, ::stride], "h w xy -> (h w) xy")
    x, y = at_positions.unbind(-1)
    kept = (x > BORDER) & (x < width - BORDER) & (y > BORDER) & (y < height - BORDER)
    place = kept.nonzero()[:, 0]
    columns = width // stride
    first = torch.stack([place % columns, place // columns], -1)
    return Matches(first, torch.round(at_positions[kept] / stride), kept)


def counted(coordinates: Tensor, *features: Tensor) -> Iterator[tuple[Matches, Iterable[Tensor]]]:
    """The items that have enough correspondences: their matches, and their features (C, h, w).

    Args:
        coordinates: (B, 4h, 4w, 2), where image 1's pixels lie in image 2, as (x, y).
        *features: (B, C, h, w) each.

    Yields:
        Matches and features of an item.
    """
    for item_coordinates, *items in zip(coordinates, *features, strict=True):
        matches = known_matches(item_coordinates)
        if len(matches.first) >= FEWEST:
            yield matches, items


def at(features: Tensor, positions: Tensor) -> Tensor:
    """Unit feature vectors (N, C) of a feature map (C, h, w) at whole-number positions (N, 2) given as (x, y)."""
    x, y = positions.long().unbind(-1)
    return F.normalize(features[:, y, x], dim=0).T


def hardest(distance: Tensor, positions: Tensor, others: Tensor, safe_radius: int) -> Tensor:
    """Find the row minima of a distance matrix, without what lies near the position itself.

    Args:
        distance: (N, M).
        positions: (N, 2) as (x, y), of the rows.
        others: (M, 2), of the columns.
        safe_radius: within which a column does not count.

    Returns:
        (N,).
    """
    near = (positions[:, None] - others[None]).abs().amax(-1) <= safe_radius
    return (distance + 10 * near).amin(1)


def mean_of_counted(losses: list[Tensor], features: Tensor) -> Tensor:
    """Average over the items of all processes that count; if none does, zero with zero gradients.

    Args:
        losses: a scalar for each item of this process that counts.
        features: whatever their gradients go into.

    Returns:
        A scalar. The mean of the processes' results, and of their gradients, is that of the whole batch.
    """
    count = torch.tensor(float(len(losses)), device=features.device)
    processes = 1
    if distributed.is_initialized():
        distributed.all_reduce(count)
        processes = distributed.get_world_size()
    return torch.stack([0.0 * features.sum(), *losses]).sum() * processes / count.clamp(min=1)


def contrastive_loss(
    features1: Tensor, features2: Tensor, coordinates: Tensor, margin: float = 1.0, safe_radius: int = 4
) -> Tensor:
    """Compute the triplet loss with hardest negatives, mean over the items that have enough correspondences.

    Squared distances of unit vectors; a negative is a position of either image farther than `safe_radius` from the true
    one. If no item counts, the loss is zero, with zero gradients.

    Args:
        features1: (B, C, h, w) of image 1.
        features2: (B, C, h, w) of image 2.
        coordinates: (B, 4h, 4w, 2), where image 1's pixels lie in image 2, as (x, y).
        margin: by which the positive's distance is to be smaller, at least 0.
        safe_radius: in feature positions.

    Returns:
        A scalar.
    """
    losses = []
    for matches, (item1, item2) in counted(coordinates, features1, features2):
        height, width = item1.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        everywhere = torch.stack([x.flatten(), y.flatten()], -1).to(item1.device)
        unit1, unit2 = at(item1, matches.first), at(item2, matches.second)
        positive = 2 - 2 * (unit1 * unit2).sum(1)
        negative2 = hardest(2 - 2 * unit1 @ unit2.T, matches.second, matches.second, safe_radius)
        negative1 = hardest(2 - 2 * unit2 @ at(item1, everywhere).T, matches.first, everywhere, safe_radius)
        losses.append(F.relu(margin + positive - torch.minimum(negative1, negative2)).mean())
    return mean_of_counted(losses, torch.stack([features1, features2]))


def matching_cross_entropy(
    features1: Tensor, features2: Tensor, coordinates: Tensor, temperature: float = 0.1
) -> Tensor:
    """Compute the cross-entropy of finding the true position by correlation.

    The triplet loss drives an encoder that starts from random weights into giving every position the same feature,
    where it stays at exactly the margin; this loss does not.

    Args:
        features1: (B, C, h, w) of image 1.
        features2: (B, C, h, w) of image 2.
        coordinates: (B, 4h, 4w, 2), where image 1's pixels lie in image 2, as (x, y).
        temperature: by which the correlations are divided.

    Returns:
        A scalar.
    """
    losses = []
    for matches, (item1, item2) in counted(coordinates, features1, features2):
        candidates = rearrange(F.normalize(item2, dim=0), "c h w -> c (h w)")
        x, y = matches.second.long().unbind(-1)
        losses.append(F.cross_entropy(at(item1, matches.first) @ candidates / temperature, y * item2.shape[-1] + x))
    return mean_of_counted(losses, torch.stack([features1, features2]))


def distillation_loss(
    student1: Tensor,
    student2: Tensor,
    teacher1: Tensor,
    teacher2: Tensor,
    coordinates: Tensor,
    temperature: float = 0.15,
) -> Tensor:
    """Compute the KL divergence of the student's correlation from the teacher's, mean over items with enough matches.

    Args:
        student1: (B, C, h, w) of the blurred image 1.
        student2: (B, C, h, w) of the sharp image 2.
        teacher1: (B, C, h, w) of the sharp image 1.
        teacher2: (B, C, h, w) of the sharp image 2.
        coordinates: (B, 4h, 4w, 2), where image 1's pixels lie in image 2, as (x, y).
        temperature: by which the correlations are divided.

    Returns:
        A scalar.
    """
    losses = []
    for matches, (s1, s2, t1, t2) in counted(coordinates, student1, student2, teacher1, teacher2):
        student = at(s1, matches.first) @ at(s2, matches.second).T / temperature
        teacher = at(t1, matches.first) @ at(t2, matches.second).T / temperature
        losses.append(F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean"))
    return mean_of_counted(losses, torch.stack([student1, student2]))
