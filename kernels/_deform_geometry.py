"""Where the taps of :mod:`frfsr.kernels.deform` sample, as every form of it takes it."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels._constants import TAPS

MatchPadding = Literal["same", "valid"]


class Geometry(NamedTuple):
    """The arguments of :func:`frfsr.kernels.deform_conv` that say where and how strongly each tap samples."""

    offset: Tensor  # (B, G*18, H, W) pixels, as [group, tap, (y, x)]
    mask: Tensor  # (B, G*9, H, W) as [group, tap]
    flow: Tensor | None  # (B, H/scale, W/scale, 2) as (x, y), coarse pixels
    flow_scale: int
    match_padding: MatchPadding | None  # None without a flow

    @property
    def groups(self) -> int:
        """How many groups of channels have offsets and masks of their own."""
        return self.mask.shape[1] // TAPS

    def tap_flows(self, dtype: torch.dtype) -> Tensor | None:
        """Give the flow of each tap in ``dtype``, see :func:`tap_flows`; None without a flow."""
        return None if self.flow is None else tap_flows(self.flow.to(dtype), self.match_padding)


def tap_flows(flow: Tensor, match_padding: MatchPadding | None) -> Tensor:
    """Find the flow that votes for each tap: (B, 9, 2, h, w), otherwise as in :func:`tap_views`."""
    return torch.stack(tap_views(flow, match_padding), dim=1)


def tap_views(flow: Tensor, match_padding: MatchPadding | None) -> list[Tensor]:
    """Find the flow that votes for each tap, without a copy for each.

    A pixel is covered by nine patches; tap (i, j) follows the patch that has the pixel in its row i and column j.

    Args:
        flow: (B, h, w, 2) as (x, y), in coarse pixels.
        match_padding: "valid": a patch stores its flow at its top-left pixel, zero outside; "same": at its centre,
            border repeated.

    Returns:
        Nine of (B, 2, h, w) as (y, x), in coarse pixels.
    """
    height, width = flow.shape[1:3]
    flow = rearrange(flow.flip(-1), "b h w d -> b d h w")
    padded = F.pad(flow, (2, 0, 2, 0)) if match_padding == "valid" else F.pad(flow, (1, 1, 1, 1), mode="replicate")
    return [padded[:, :, 2 - i : 2 - i + height, 2 - j : 2 - j + width] for i in range(3) for j in range(3)]
