"""TAAM, texture-adaptive aggregation module (section III-C.2), and what it is made of: DFM, ESA, DRB."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from frfsr.kernels import dynamic_filter
from frfsr.kernels.ddf import normalise_filter


class FilterNorm(nn.Module):
    """FN of figure 5: a filter's taps are standardised, then scaled and shifted by learned gamma and beta (eq. 20).

    taps: (B, N, K, ...) with K taps a filter; gamma and beta have one value for each of `filters` * K taps.
    """

    def __init__(self, filters: int, taps: int = 9, gain: float = 2**0.5):
        super().__init__()
        # Unit-variance activations stay so: ReLU's gain over the square root of the number of taps.
        self.gamma = nn.Parameter(torch.full((filters, taps), gain / taps**0.5))
        self.beta = nn.Parameter(torch.zeros(filters, taps))

    def forward(self, taps: Tensor) -> Tensor:
        shape = (1, *self.gamma.shape) + (1,) * (taps.dim() - 3)
        return normalise_filter(taps, self.gamma.view(shape), self.beta.view(shape), dim=2)


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
        self.spatial_norm = FilterNorm(1) if filter_norm else None
        self.channel_norm = FilterNorm(channels) if filter_norm else None

    def forward(self, x: Tensor) -> Tensor:
        spatial = rearrange(self.spatial(x), "b k h w -> b 1 k h w")
        channel = rearrange(self.channel(x.mean((2, 3), keepdim=True)), "b (c k) 1 1 -> b c k", k=9)
        if self.spatial_norm is not None:
            spatial, channel = self.spatial_norm(spatial), self.channel_norm(channel)
        spatial = rearrange(spatial, "b 1 k h w -> b k h w")
        return dynamic_filter(x, rearrange(channel, "b c (i j) -> b c i j", i=3).to(x.dtype), spatial.to(x.dtype))


class DynamicBlock(nn.Module):
    """x + DFM(ReLU(DFM(x)))."""

    def __init__(self, channels: int, filter_norm: bool):
        super().__init__()
        self.filter1 = DFM(channels, filter_norm)
        self.filter2 = DFM(channels, filter_norm)

    def forward(self, x: Tensor) -> Tensor:
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
        f0 = self.conv1(x)
        height, width = x.shape[-2:]
        padded = F.pad(f0, (0, max(15 - width, 0), 0, max(15 - height, 0)), mode="replicate")
        coarse = F.max_pool2d(self.conv2(padded), kernel_size=7, stride=3)
        coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse)))))
        f2 = F.interpolate(coarse, padded.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]
        return x * torch.sigmoid(self.conv4(f2 + self.conv_f(f0)))


class ResidualBlock(nn.Module):
    """x + ESA(conv(ReLU(conv(x)))); without `esa`, a plain residual block."""

    def __init__(self, channels: int, esa: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.esa = ESA(channels) if esa else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.esa(self.conv2(F.relu(self.conv1(x))))


class DRB(nn.Sequential):
    """Dynamic ResBlk, the grey part of figure 3: blocks of decoupled dynamic filters, then residual blocks with ESA.

    dynamic_skip: F_LR is also added between the two (published code); esa: as for `ResidualBlock`.
    """

    def __init__(
        self, channels: int, dynamic_blocks: int, blocks: int, filter_norm: bool, dynamic_skip: bool, esa: bool = True
    ):
        dynamic = [DynamicBlock(channels, filter_norm) for _ in range(dynamic_blocks)]
        super().__init__(*dynamic, *(ResidualBlock(channels, esa) for _ in range(blocks)))
        self.dynamic_blocks, self.dynamic_skip = dynamic_blocks, dynamic_skip

    def forward(self, fused: Tensor, lr: Tensor) -> Tensor:
        """Fused features and F_LR, both (B, channels, H, W) -> the same shape."""
        blocks = list(self)
        for block in blocks[: self.dynamic_blocks]:
            fused = block(fused)
        if self.dynamic_skip:
            fused = fused + lr
        for block in blocks[self.dynamic_blocks :]:
            fused = block(fused)
        return fused


class TAAM(nn.Module):
    """Eq. 17-18: DRB(Conv([F_LR; F_tex; further features])) + F_LR.

    channels: of F_LR and of the result; texture_channels: of F_tex; further_channels: of F_sife, F_rec and the score
    together, 0 where the scale takes none of them; the rest as in FRFSRConfig.
    """

    def __init__(
        self,
        channels: int,
        texture_channels: int,
        further_channels: int,
        dynamic_blocks: int,
        blocks: int,
        filter_norm: bool,
        dynamic_skip: bool,
        separate: bool,
        esa: bool = True,
    ):
        super().__init__()
        self.fusion = None
        if separate and further_channels:
            self.fusion = nn.Conv2d(further_channels + channels, channels, 3, padding=1)
            further_channels = 0
        self.conv = nn.Conv2d(channels + texture_channels + further_channels, channels, 3, padding=1)
        self.drb = DRB(channels, dynamic_blocks, blocks, filter_norm, dynamic_skip, esa)

    def forward(self, lr: Tensor, texture: Tensor, *further: Tensor, skip: Tensor | None = None) -> Tensor:
        """F_LR (B, c, H, W), F_tex and whatever else this scale takes, all (B, ?, H, W) -> (B, c, H, W).

        skip: features of the U-Net's way down that only the convolution is to see added to F_LR (published code).
        """
        target = lr
        if self.fusion is not None:
            target, further = F.leaky_relu(self.fusion(torch.cat([*further, lr], 1)), 0.1), ()
        if skip is not None:
            target = target + skip
        fused = F.leaky_relu(self.conv(torch.cat([target, texture, *further], 1)), 0.1)
        return self.drb(fused, lr) + lr
