"""Layers and enlargements that published networks are built of."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from frfsr.aggregation import ResidualBlock


def conv(channels: int, features: int, kernel: int = 3, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """Make a convolution that keeps the size, divided by the stride; zeros around the border.

    Args:
        channels: of the input.
        features: channels of the output.
        kernel: its side, odd.
        stride: in pixels.
        bias: with one.

    Returns:
        The convolution.
    """
    return nn.Conv2d(channels, features, kernel, stride, padding=kernel // 2, bias=bias)


def shuffle(x: Tensor) -> Tensor:
    """Shuffle pixels: (B, 4C, h, w) -> (B, C, 2h, 2w)."""
    return rearrange(x, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2)


def enlargement(channels: int, activation: nn.Module) -> nn.Sequential:
    """Make a pixel shuffle with an activation behind it, (B, channels, h, w) -> (B, channels, 2h, 2w)."""
    return nn.Sequential(
        conv(channels, 4 * channels), Rearrange("b (c i j) h w -> b c (h i) (w j)", i=2, j=2), activation
    )


def residual_blocks(channels: int, blocks: int) -> nn.Sequential:
    """Make plain residual blocks in a row, (B, channels, h, w) -> the same shape."""
    return nn.Sequential(*(ResidualBlock(channels, esa=False) for _ in range(blocks)))


def tensorflow_bicubic(lr: Tensor) -> Tensor:
    """Enlarge (B, C, h, w) x4 as TensorFlow 1 did: pixel i of the result lies at i / 4, not half a pixel aside.

    Keys' kernel with a = -0.75 around every phase of i, on four pixels to each side; borders are repeated.
    """
    distance = (torch.arange(4)[:, None] / 4 + 1 - torch.arange(4)).abs().to(lr)
    near = 1.25 * distance**3 - 2.25 * distance**2 + 1
    far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    weight = torch.where(distance <= 1, near, far)
    kernel = rearrange(einsum(weight, weight, "i y, j x -> i j y x"), "i j y x -> (i j) 1 y x")
    padded = F.pad(lr, (1, 2, 1, 2), mode="replicate")
    phases = F.conv2d(rearrange(padded, "b c h w -> (b c) 1 h w"), kernel)
    return rearrange(phases, "(b c) (i j) h w -> b c (h i) (w j)", c=lr.shape[1], i=4)
