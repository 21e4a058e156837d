"""Swin transformer layers (Liu et al., ICCV 2021) as DATSR's restoration uses them: windows, shifts, no padding."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

MASKED = -100.0  # added to the attention between regions that the shift has brought together
LAST_DROP = 0.1  # share of the samples that skip the last block in training; it rises from 0 over the blocks


class SwinSizes(NamedTuple):
    """Of a `SwinBody`.

    Attributes:
        channels: of its input and result.
        depths: blocks of each group.
        heads: of the attention, for each group; they divide the channels.
        window: side of the windows, pixels.
        hidden: channels inside the perceptrons.
    """

    channels: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    hidden: int


class WindowAttention(nn.Module):
    """Attention inside each window, with a learned bias for every relative position."""

    index: Tensor

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        position = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1)
        position = rearrange(position, "y x d -> (y x) d")
        row, column = (position[:, None] - position + window - 1).unbind(-1)
        self.register_buffer("index", (2 * window - 1) * row + column, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: (B, n, t, C), t pixels in each of n windows.
            mask: (n, t, t), added to the attention, or None.

        Returns:
            (B, n, t, C).
        """
        query, key, value = rearrange(self.qkv(x), "b n t (k h d) -> k b n h t d", k=3, h=self.heads)
        attention = torch.einsum("b n h q d, b n h k d -> b n h q k", query * query.shape[-1] ** -0.5, key)
        attention = attention + rearrange(self.relative_position_bias_table[self.index], "q k h -> h q k")
        if mask is not None:
            attention = attention + rearrange(mask, "n q k -> n 1 q k").to(attention.dtype)
        mixed = torch.einsum("b n h q k, b n h k d -> b n h q d", attention.softmax(-1), value)
        return self.proj(rearrange(mixed, "b n h t d -> b n t (h d)"))


class SwinLayer(nn.Module):
    """A layer: x + attention(norm(x)) in windows, then x + perceptron(norm(x)); (B, H, W, C) -> the same.

    Args:
        sizes: of the transformer.
        heads: of the attention.
        shift: pixels by which the windows are moved.
        drop: share of the samples that skip either part in training.
    """

    def __init__(self, sizes: SwinSizes, heads: int, shift: int, drop: float):
        super().__init__()
        from torchvision.ops import StochasticDepth  # importing it takes longer than enlarging a small photo

        channels = sizes.channels
        self.window, self.shift = sizes.window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, sizes.window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, channels))
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Sides are multiples of the window."""
        height, width, window = x.shape[1], x.shape[2], self.window
        mask = shift_mask(height, width, window, self.shift, x.device) if self.shift else None
        shifted = self.norm1(x).roll((-self.shift, -self.shift), (1, 2))
        windows = rearrange(shifted, "b (y h) (x w) c -> b (y x) (h w) c", h=window, w=window)
        attended = rearrange(
            self.attention(windows, mask),
            "b (y x) (h w) c -> b (y h) (x w) c",
            y=height // window,
            h=window,
        )
        x = x + self.drop(attended.roll((self.shift, self.shift), (1, 2)))
        return x + self.drop(self.mlp(self.norm2(x)))


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Keep apart, inside shifted windows, pixels that were not neighbours.

    Args:
        height: of the map, in pixels.
        width: of the map, in pixels.
        window: side t^0.5 of a window, in pixels.
        shift: of the windows, in pixels.
        device: of the result.

    Returns:
        (n, t, t), 0 or -100, to be added to the attention.
    """

    def region(side: int) -> Tensor:
        position = torch.arange(side, device=device)
        return (position >= side - window).long() + (position >= side - shift).long()

    regions = 3 * region(height)[:, None] + region(width)
    regions = rearrange(regions, "(y h) (x w) -> (y x) (h w)", h=window, w=window)
    return MASKED * (regions[:, :, None] != regions[:, None])


class SwinGroup(nn.Module):
    """x + conv(layers(x)); every second layer has shifted windows. (B, H, W, C) -> the same."""

    def __init__(self, sizes: SwinSizes, heads: int, drops: list[float]):
        super().__init__()
        shifts = [sizes.window // 2 if n % 2 else 0 for n in range(len(drops))]
        self.blocks = nn.Sequential(
            *(SwinLayer(sizes, heads, shift, drop) for shift, drop in zip(shifts, drops, strict=True))
        )
        self.conv = nn.Conv2d(sizes.channels, sizes.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Sides are multiples of the window."""
        convolved = self.conv(rearrange(self.blocks(x), "b h w c -> b c h w"))
        return x + rearrange(convolved, "b c h w -> b h w c")


class SwinBody(nn.Module):
    """Groups of Swin layers between two normalisations: (B, C, H, W) -> the same."""

    def __init__(self, sizes: SwinSizes):
        super().__init__()
        blocks = sum(sizes.depths)
        drops = [LAST_DROP * block / max(blocks - 1, 1) for block in range(blocks)]
        self.norm_in = nn.LayerNorm(sizes.channels)
        self.groups = nn.Sequential()
        for heads, depth in zip(sizes.heads, sizes.depths, strict=True):
            self.groups.append(SwinGroup(sizes, heads, drops[:depth]))
            drops = drops[depth:]
        self.norm_out = nn.LayerNorm(sizes.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Sides are multiples of the window."""
        x = self.groups(self.norm_in(rearrange(x, "b c h w -> b h w c")))
        return rearrange(self.norm_out(x), "b h w c -> b c h w")
