"""The boxes of MASA's figure: encoder, spatial adaptation (SAM) and dual residual aggregation (DRAM)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr.features import start_at_zero
from frfsr.peers.layers import residual_blocks


class Encoder(nn.Module):
    """Image (B, 3, H, W) -> features (B, C, ...) at strides 1, 2 and 4. blocks: residual blocks at each."""

    def __init__(self, channels: int, blocks: tuple[int, int, int]):
        super().__init__()
        large, medium, small = blocks
        self.conv_large = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks_large = residual_blocks(channels, large)
        self.conv_medium = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.blocks_medium = residual_blocks(channels, medium)
        self.conv_small = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.blocks_small = residual_blocks(channels, small)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three scales."""
        large = self.large(image)
        medium = self.blocks_medium(F.relu(self.conv_medium(large)))
        return large, medium, self.blocks_small(F.relu(self.conv_small(medium)))

    def large(self, image: Tensor) -> Tensor:
        """Features at stride 1."""
        return self.blocks_large(F.relu(self.conv_large(image)))


class SpatialAdaptation(nn.Module):
    """SAM: gives the reference's features the local statistics of the LR features; both (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_shared = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.conv_gamma = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_beta = nn.Conv2d(channels, channels, 3, padding=1)
        for convolution in (self.conv_gamma, self.conv_beta):  # training starts with the global statistics
            start_at_zero(convolution)

    def forward(self, lr: Tensor, reference: Tensor) -> Tensor:
        """Normalise the reference's features, then scale and shift them."""
        style = F.relu(self.conv_shared(torch.cat([lr, reference], 1)))
        deviation, mean = torch.std_mean(lr, (2, 3), keepdim=True)
        return F.instance_norm(reference) * (self.conv_gamma(style) + deviation) + self.conv_beta(style) + mean


class ResidualAggregation(nn.Module):
    """DRAM: details that LR features (B, C, H, W) and the reference's (B, C, 2H, 2W) lack of each other, both added."""

    def __init__(self, channels: int, reused_channels: int = 0):
        super().__init__()
        self.conv_down_a = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.conv_up_a = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
        self.conv_down_b = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.conv_up_b = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
        self.conv_cat = nn.Conv2d(2 * channels + reused_channels, channels, 3, padding=1)

    def forward(self, lr: Tensor, reference: Tensor, reused: Tensor | None = None) -> Tensor:
        """(B, C, 2H, 2W). reused: F_rec, of that size."""
        refined_reference = F.relu(self.conv_up_a(F.relu(self.conv_down_a(reference)) - lr)) + reference
        refined_lr = F.relu(self.conv_up_b(lr - F.relu(self.conv_down_b(reference)) + lr))
        details = [refined_reference, refined_lr]
        return F.relu(self.conv_cat(torch.cat(details if reused is None else [*details, reused], 1)))


def double(x: Tensor) -> Tensor:
    """Twice as large."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
