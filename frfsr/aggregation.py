"""TAAM, texture-adaptive aggregation module (section III-C.2), and what it is made of: DFM, ESA, DRB."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from frfsr.config import FRFSRConfig
from frfsr.kernels import dynamic_filter
from frfsr.kernels.ddf import FilterNorm


@dataclass(frozen=True)
class Stage:
    """One scale of the U-Net on its way down or up: what its FAM and its TAAM are built from.

    Attributes:
        level: 0 large, 1 medium, 2 small: an index into the config's triples and into the pyramid.
        channels: of F_LR and of the result.
        texture_channels: of F_Ref and F_tex.
        further_channels: of F_sife, F_rec and the score together, 0 where the stage takes none of them.
        dynamic_blocks: blocks of dynamic filters of the DRB.
        blocks: its residual blocks.
        config: for the switches that all stages share.
    """

    level: int
    channels: int
    texture_channels: int
    further_channels: int
    dynamic_blocks: int
    blocks: int
    config: FRFSRConfig

    @classmethod
    def of(cls, config: FRFSRConfig, level: int, further_channels: int = 0) -> "Stage":
        """The stage of a level; `further_channels` without the score, which the config asks for."""
        return cls(
            level,
            config.channels[level],
            config.texture_channels[level],
            further_channels + config.score_input,
            config.dynamic_blocks[level],
            config.blocks[level],
            config,
        )

    @property
    def scale(self) -> int:
        """Its factor over the LR grid: 4, 2 or 1."""
        return (4, 2, 1)[self.level]


def filter_norm_parameters(filters: int, taps: int = 9, gain: float = 2**0.5) -> nn.ParameterDict:
    """Make gamma and beta of FN in figure 5, by which a filter's standardised taps are scaled and shifted (eq. 21).

    Args:
        filters: their number.
        taps: of a filter.
        gain: of the nonlinearity that the activations went through.

    Returns:
        gamma and beta, (filters, taps) each, learned.
    """
    # Unit-variance activations stay so: ReLU's gain over the square root of the number of taps.
    gamma, beta = torch.full((filters, taps), gain / taps**0.5), torch.zeros(filters, taps)
    return nn.ParameterDict({"gamma": nn.Parameter(gamma), "beta": nn.Parameter(beta)})


class DFM(nn.Module):
    """Dynamic filter module, eq. 19-21 and figure 5: a channel filter times a spatial filter, both made from the input.

    Channel branch: GAP - FC - ReLU - FC, reduced to a fifth; spatial branch: 1x1 convolution to 9 taps a pixel.
    (B, channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, channels: int, filter_norm: bool):
        super().__init__()
        reduced = int(channels * 0.2)
        self.spatial = nn.Conv2d(channels, 9, 1)
        self.channel = nn.Sequential(nn.Conv2d(channels, reduced, 1), nn.ReLU(), nn.Conv2d(reduced, channels * 9, 1))
        self.spatial_norm = filter_norm_parameters(1) if filter_norm else None
        self.channel_norm = filter_norm_parameters(channels) if filter_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, channels, H, W) by filters made of itself."""
        channel = self.channel(reduce(x, "b c h w -> b c 1 1", "mean"))
        channel = rearrange(channel, "b (c i j) 1 1 -> b c i j", i=3, j=3)
        return dynamic_filter(x, channel.to(x.dtype), self.spatial(x).to(x.dtype), self.norm())

    def norm(self) -> FilterNorm | None:
        """FN as the kernel takes it; None without."""
        if self.spatial_norm is None or self.channel_norm is None:
            return None
        gamma, beta = (rearrange(self.channel_norm[name], "c (i j) -> c i j", i=3) for name in ("gamma", "beta"))
        return FilterNorm(gamma, beta, self.spatial_norm["gamma"][0], self.spatial_norm["beta"][0])


class DynamicBlock(nn.Module):
    """x + DFM(ReLU(DFM(x)))."""

    def __init__(self, channels: int, filter_norm: bool):
        super().__init__()
        self.filter1 = DFM(channels, filter_norm)
        self.filter2 = DFM(channels, filter_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; (B, channels, H, W)."""
        return x + self.filter2(F.relu(self.filter1(x)))


class ESA(nn.Module):
    """Enhanced spatial attention, eq. 22-25 and figure 4: (B, channels, H, W) -> the same, scaled by a mask in 0 ... 1.

    Works on a quarter of the channels. Maps below 15x15 pixels, which the strided convolution and the pooling would use
    up, are replicated at their borders up to that size for the attention's coarse branch.
    """

    def __init__(self, channels: int):
        super().__init__()
        reduced = max(channels // 4, 1)
        self.conv1 = nn.Conv2d(channels, reduced, 1)
        self.conv_f = nn.Conv2d(reduced, reduced, 1)
        self.conv2 = nn.Conv2d(reduced, reduced, 3, stride=2)
        self.conv_max = nn.Conv2d(reduced, reduced, 3, padding=1)
        self.conv3 = nn.Conv2d(reduced, reduced, 3, padding=1)
        self.conv3_ = nn.Conv2d(reduced, reduced, 3, padding=1)
        self.conv4 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale (B, channels, H, W) by the mask."""
        f0 = padded = self.conv1(x)
        height, width = x.shape[-2:]
        bottom, right = max(15 - height, 0), max(15 - width, 0)
        if bottom or right:
            padded = F.pad(f0, (0, right, 0, bottom), mode="replicate")
        coarse = F.max_pool2d(self.conv2(padded), kernel_size=7, stride=3)
        coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse)))))
        f2 = F.interpolate(coarse, padded.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]
        return x * self.conv4(f2 + self.conv_f(f0)).sigmoid_()


class ResidualBlock(nn.Module):
    """x + ESA(conv(ReLU(conv(x)))); without `esa`, a plain residual block."""

    def __init__(self, channels: int, esa: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.esa = ESA(channels) if esa else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; (B, channels, H, W)."""
        return x + self.esa(self.conv2(F.relu(self.conv1(x), inplace=True)))


class DRB(nn.ModuleList):
    """Dynamic ResBlk, the grey part of figure 3: blocks of decoupled dynamic filters, then residual blocks with ESA."""

    def __init__(self, stage: Stage):
        config = stage.config
        super().__init__(DynamicBlock(stage.channels, config.filter_norm) for _ in range(stage.dynamic_blocks))
        self.extend(ResidualBlock(stage.channels, config.esa) for _ in range(stage.blocks))
        self.dynamic_blocks, self.dynamic_skip = stage.dynamic_blocks, config.dynamic_skip

    def forward(self, fused: Tensor, lr: Tensor) -> Tensor:
        """Fused features and F_LR, both (B, channels, H, W) -> the same shape.

        With `dynamic_skip`, F_LR is also added between the two kinds of blocks (published code).
        """
        blocks = list(self)
        for block in blocks[: self.dynamic_blocks]:
            fused = block(fused)
        if self.dynamic_skip:
            fused = fused + lr
        for block in blocks[self.dynamic_blocks :]:
            fused = block(fused)
        return fused


class TAAM(nn.Module):
    """Eq. 17-18: DRB(Conv([F_LR; F_tex; further features])) + F_LR."""

    def __init__(self, stage: Stage):
        super().__init__()
        channels, further_channels = stage.channels, stage.further_channels
        self.fusion = None
        if stage.config.fusion == "separate" and further_channels:
            self.fusion = nn.Conv2d(further_channels + channels, channels, 3, padding=1)
            further_channels = 0
        self.conv = nn.Conv2d(channels + stage.texture_channels + further_channels, channels, 3, padding=1)
        self.drb = DRB(stage)

    def forward(self, lr: Tensor, texture: Tensor, *further: Tensor, skip: Tensor | None = None) -> Tensor:
        """Aggregate what is known of one scale.

        Args:
            lr: F_LR (B, c, H, W).
            texture: F_tex (B, t, H, W).
            *further: whatever else this scale takes, (B, ?, H, W) each.
            skip: (B, c, H, W) of the U-Net's way down that only the convolution is to see added to F_LR (published
                code).

        Returns:
            (B, c, H, W).
        """
        target = lr
        if self.fusion is not None:
            target, further = F.leaky_relu(self.fusion(torch.cat([*further, lr], 1)), 0.1), ()
        if skip is not None:
            target = target + skip
        fused = F.leaky_relu(self.conv(torch.cat([target, texture, *further], 1)), 0.1)
        return self.drb(fused, lr) + lr
