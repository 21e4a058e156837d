"""SRNTT as its authors' TensorFlow code has it; that code was read, not run.

It differs from the PyTorch port by batch norm, fewer blocks at larger scales, ReLU, images in [-1, 1] through a tanh,
and the VGG19 of MatConvNet. The names of its parameters are ours: published files
are lists of arrays without names.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from frfsr.peers.layers import conv
from frfsr.peers.srntt import PARTS, SRNTT, Swapped, texture_channels
from frfsr.pixels import channel_constant
from frfsr.published import VGG_UNUSED, vgg_names
from frfsr.reuse import Aggregation
from frfsr.settings import Depth, Width, settings
from frfsr.states import count, load_published, size, unwrap_parts

MATCONVNET_MEAN = (123.68, 116.779, 103.939)  # RGB, 8-bit levels


@settings
class SRNTTTensorFlowConfig:
    """Sizes of SRNTT's original.

    Attributes:
        channels: of all features but the reference's.
        content_blocks: residual blocks of the content extractor.
        blocks: residual blocks at the large, medium and small scale.
        texture_channels: of relu1_1, relu2_1 and relu3_1 of VGG19.
        reuse: a second network takes the features of the first.
    """

    channels: Width = 64
    content_blocks: Depth = 16
    blocks: tuple[Depth, Depth, Depth] = (4, 8, 16)
    texture_channels: tuple[Width, Width, Width] = (64, 128, 256)
    reuse: bool = False


def shuffle(x: Tensor) -> Tensor:
    """Shuffle pixels in TensorFlow's order, ReLU: (B, 4C, h, w) -> (B, C, 2h, 2w)."""
    return F.relu(rearrange(x, "b (i j c) h w -> b c (h i) (w j)", i=2, j=2))


class NormBlock(nn.Module):
    """x + Norm(Conv(ReLU(Norm(Conv(x))))), (B, channels, h, w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class ContentExtractor(nn.Module):
    """LR image (B, 3, h, w), RGB in [-1, 1] -> features (B, channels, h, w), and by `image` a plain x4 image."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.conv_in = conv(3, channels)
        self.blocks = nn.Sequential(*(NormBlock(channels) for _ in range(blocks)))
        self.conv_mid, self.bn_mid = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.up1, self.up2 = conv(channels, 4 * channels), conv(channels, 4 * channels)
        self.out = nn.Conv2d(channels, 3, 1)

    def forward(self, lr: Tensor) -> Tensor:
        """Extract the features."""
        x = F.relu(self.conv_in(lr))
        return x + self.bn_mid(self.conv_mid(self.blocks(x)))

    def image(self, lr: Tensor) -> Tensor:
        """LR image (B, 3, h, w) -> (B, 3, 4h, 4w), RGB in [-1, 1]."""
        return torch.tanh(self.out(shuffle(self.up2(shuffle(self.up1(self(lr)))))))


class TextureTransfer(nn.Module):
    """One scale: x + Norm(Conv(Blocks(Conv([x, ...])))), (B, channels, H, W); conv3 is what leaves the scale."""

    def __init__(self, channels: int, joined: int, blocks: int, left: int):
        super().__init__()
        self.conv1 = conv(channels + joined, channels)
        self.blocks = nn.Sequential(*(NormBlock(channels) for _ in range(blocks)))
        self.conv2, self.bn2 = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, left)

    def forward(self, x: Tensor, *joined: Tensor) -> Tensor:
        """Transfer what is joined, (B, ?, H, W) each."""
        return x + self.bn2(self.conv2(self.blocks(F.relu(self.conv1(torch.cat([x, *joined], 1))))))


class TextureNet(Aggregation):
    """All that is trained: the content extractor and the texture transfer."""

    def __init__(self, config: SRNTTTensorFlowConfig, reuse: bool):
        super().__init__()
        channels, (large, medium, small) = config.channels, config.texture_channels
        large_blocks, medium_blocks, small_blocks = config.blocks
        self.content = ContentExtractor(channels, config.content_blocks)
        self.small = TextureTransfer(channels, small, small_blocks, 4 * channels)
        self.medium = TextureTransfer(channels, medium, medium_blocks, 4 * channels)
        self.large = TextureTransfer(channels, large + (channels if reuse else 0), large_blocks, channels // 2)
        self.out = nn.Conv2d(channels // 2, 3, 1)

    def forward(self, swapped: Swapped, reused: Tensor | None = None) -> Tensor:
        """LR image and textures, and F_rec of another network -> the features F_SR, both (B, channels, 4h, 4w)."""
        large, medium, small = swapped.textures
        x = shuffle(self.small.conv3(self.small(self.content(2 * swapped.lr - 1), small)))
        x = shuffle(self.medium.conv3(self.medium(x, medium)))
        return self.large(x, large) if reused is None else self.large(x, large, reused)

    def reconstruct(self, features: Tensor, swapped: Swapped) -> Tensor:
        """F_SR -> the image (B, 3, 4h, 4w), RGB in [0, 1]."""
        return (torch.tanh(self.out(self.large.conv3(features))) + 1) / 2

    def single_image(self, lr: Tensor) -> Tensor:
        """LR image (B, 3, h, w) -> the content extractor's own (B, 3, 4h, 4w), RGB in [0, 1]."""
        return (self.content.image(2 * lr - 1) + 1) / 2


class SRNTTTensorFlow(SRNTT):
    """x4 super-resolution by texture swapping, as published for TensorFlow."""

    architecture = "srntt-tf"
    config_class = SRNTTTensorFlowConfig
    texture_net = TextureNet

    def __init__(self, config: SRNTTTensorFlowConfig):
        super().__init__(config)
        self.vgg.mean = channel_constant(MATCONVNET_MEAN) / 255
        self.vgg.std = torch.full_like(self.vgg.mean, 1 / 255)


def from_published(parts: Mapping[str, Any]) -> SRNTTTensorFlow:
    """Build the network of its parts.

    Args:
        parts: {"net_g": ..., "vgg": ...}: the parameters of `TextureNet`, kernels in PyTorch's order, and MatConvNet's
            VGG19 under torchvision's names, for RGB minus its mean. Sizes are read from the shapes.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: a part is missing, or its keys or shapes are others.
    """
    net_g, vgg = unwrap_parts(parts, PARTS, SRNTTTensorFlow.architecture).values()
    large, medium, small = (count(net_g, f"{scale}.blocks.") for scale in ("large", "medium", "small"))
    config = SRNTTTensorFlowConfig(
        channels=size(net_g, "content.conv_in.weight"),
        content_blocks=count(net_g, "content.blocks."),
        blocks=(large, medium, small),
        texture_channels=texture_channels(vgg),
    )
    network = SRNTTTensorFlow(config)
    load_published(network.aggregation, net_g, {}, "net_g")
    load_published(network.vgg, vgg, vgg_names(vgg), "vgg", unused=VGG_UNUSED)
    return network.eval()
