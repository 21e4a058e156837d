"""The discriminator of the adversarial loss (eq. 28-29), by WGAN's name for it: a critic, whose score has no bounds."""

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256, 512)


class Critic(nn.Module):
    """The judge of images: five blocks, global average pooling and two 1x1 convolutions.

    A block is conv - LeakyReLU - conv with stride 2 - LeakyReLU.

    Args:
        kind: "wgan": as the mathematics of WGAN-GP asks (eq. 28-29), no bounds and no batch statistics, since the
            penalty is on the gradient of each image alone; "published": BatchNorm behind every convolution and a final
            sigmoid, as in the authors' code.
        widths: channels of each block.
    """

    def __init__(self, kind: Literal["wgan", "published"] = "wgan", widths: tuple[int, ...] = WIDTHS):
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if kind == "published" else nn.Identity()

        def block(channels: int, out_channels: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, out_channels, 3, padding=1),
                norm(out_channels),
                nn.LeakyReLU(0.2),
                nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1),
                norm(out_channels),
                nn.LeakyReLU(0.2),
            )

        self.blocks = nn.Sequential(*(block(*channels) for channels in pairwise((3, *widths))))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(widths[-1], 2 * widths[-1], 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * widths[-1], 1, 1),
            nn.Sigmoid() if kind == "published" else nn.Identity(),
        )

    def forward(self, image: Tensor) -> Tensor:
        # In half precision the gradient of the gradient underflows: mixed precision ends here.
        """Score images.

        Args:
            image: (B, 3, H, W), RGB in [0, 1]. H, W >= 32.

        Returns:
            (B,), greater for what looks real.
        """
        with torch.autocast(image.device.type, enabled=False):
            return self.head(self.blocks(image.to(next(self.parameters()).dtype))).flatten()


def drawn_critic(kind: Literal["wgan", "published"], seed: int) -> Critic:
    """Draw a critic from a stream of its own: its first weights are the same whatever network was drawn before it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.default_rng([seed, 3]).integers(2**63)))  # 1, 2: samples.py
        return Critic(kind)


def critic_loss(critic: nn.Module, truth: Tensor, result: Tensor, mix: Tensor, penalty: float = 10.0) -> Tensor:
    """Compute eq. 29: D(I_SR) - D(I_HR) + penalty * (||grad D||_2 - 1)^2, means over the batch.

    Args:
        critic: D.
        truth: I_HR (B, 3, H, W); no gradient goes into it.
        result: I_SR (B, 3, H, W); no gradient goes into it.
        mix: (B,) uniform in [0, 1], the convex combination of the two where the gradient is taken.
        penalty: weight of the gradient penalty.

    Returns:
        A scalar.
    """
    result = result.detach()
    distance = -critic(truth).mean() + critic(result).mean()
    return distance + penalty * gradient_penalty(critic, truth, result, mix)


def gradient_penalty(critic: nn.Module, truth: Tensor, result: Tensor, mix: Tensor) -> Tensor:
    """Compute the mean over the images of (||grad D||_2 - 1)^2 at mix * truth + (1 - mix) * result.

    Args:
        critic: D.
        truth: I_HR (B, 3, H, W).
        result: I_SR (B, 3, H, W).
        mix: (B,) in [0, 1].

    Returns:
        A scalar.
    """
    mix = mix.view(-1, 1, 1, 1).to(truth)
    between = (mix * truth + (1 - mix) * result).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def adversarial_loss(critic: nn.Module, result: Tensor) -> Tensor:
    """Compute eq. 28: -D(I_SR), mean over the batch.

    Args:
        critic: D.
        result: I_SR (B, 3, H, W), into which the gradient goes.

    Returns:
        A scalar.
    """
    return -critic(result).mean()
