"""FAM, feature alignment module (section III-C.1): reference features + correspondence -> aligned texture features."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from frfsr.features import start_at_zero
from frfsr.kernels import deform_conv, flow_warp
from frfsr.kernels.deform import MatchPadding
from frfsr.matching import enlarge_flow
from frfsr.network import Correspondence, Rates, group
from frfsr.smoothing import interpolate_flow, smooth_taps


class FAM(nn.Module):
    """Aligns one scale's reference features to the LR features by a deformable convolution around the matched position.

    Args:
        channels: of F_LR at this scale.
        texture_channels: of F_Ref and of the result.
        scale: this scale's factor over the LR grid: 4, 2 or 1.
        groups: deformable groups.
        match_padding: see `frfsr.kernels.deform_conv`.
        warp: whether the offsets are also learned from the reference features warped to the matched position.
    """

    def __init__(
        self,
        channels: int,
        texture_channels: int,
        scale: int,
        groups: int,
        match_padding: MatchPadding,
        *,
        warp: bool = True,
    ):
        super().__init__()
        self.scale, self.warp = scale, warp
        self.match_padding: MatchPadding = match_padding
        self.offset_conv1 = nn.Conv2d(channels + (1 + warp) * texture_channels, texture_channels, 3, padding=1)
        self.offset_conv2 = nn.Conv2d(texture_channels, texture_channels, 3, padding=1)
        self.offset_mask = nn.Conv2d(texture_channels, 3 * 9 * groups, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(texture_channels, texture_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(texture_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        # Training starts at the matched position: no learned offset, every mask one half.
        start_at_zero(self.offset_mask)

    def forward(self, lr: Tensor, reference: Tensor, correspondence: Correspondence) -> Tensor:
        """F_LR (B, c, H, W), F_Ref (B, t, Hr, Wr) -> F_tex (B, t, H, W), eq. 15-16. H, W = scale * the LR grid."""
        flow, smooth = exact(correspondence.flow, reference), None
        if correspondence.smooth is not None:
            smooth = interpolate_flow(exact(correspondence.smooth, reference), flow, self.scale)
        seen = [lr]
        if self.warp:
            seen.append(flow_warp(reference, enlarge_flow(flow, self.scale) if smooth is None else smooth))
        seen.append(self.unwarped(reference, correspondence, lr.shape[-2:]))
        features = F.leaky_relu(self.offset_conv1(torch.cat(seen, 1)), 0.1)
        features = F.leaky_relu(self.offset_conv2(features), 0.1)
        return F.leaky_relu(self.aggregate(reference, features, correspondence, smooth), 0.1)

    def unwarped(self, reference: Tensor, correspondence: Correspondence, size: Sequence[int]) -> Tensor:
        """The reference features that eq. 15 also takes as they lie, in the size (H, W) of F_LR: zeros beyond them."""
        if correspondence.still is None:
            return fit(reference, size)
        return flow_warp(reference, enlarge_flow(exact(correspondence.still, reference), self.scale))

    def aggregate(
        self, reference: Tensor, features: Tensor, correspondence: Correspondence, smooth: Tensor | None = None
    ) -> Tensor:
        """Eq. 16 before its activation.

        Args:
            reference: F_Ref (B, t, Hr, Wr).
            features: for the offsets, (B, t, H, W).
            correspondence: of the LR grid.
            smooth: the smooth flow at this scale, in its pixels, (B, H, W, 2); None: the flow is repeated.

        Returns:
            (B, t, H, W).
        """
        offset, mask = self.learned_offset(features, correspondence.score)
        flow = exact(correspondence.flow, reference)
        if smooth is not None:
            offset = following(offset, smooth_taps(flow, smooth, self.scale))
        return deform_conv(
            reference,
            offset,
            mask,
            self.weight.to(reference.dtype),
            self.bias.to(reference.dtype),
            flow=flow,
            flow_scale=self.scale,
            match_padding=self.match_padding,
        )

    def learned_offset(self, features: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Learn the offsets of eq. 15.

        Args:
            features: (B, t, H, W), of F_LR and F_Ref.
            score: of the match, (B, h, w).

        Returns:
            Offsets (B, groups*9*2, H, W), pixels, as [group, tap, (y, x)], and masks (B, groups*9, H, W), 0 to 1.
        """
        offset, mask = self.split(self.offset_mask(features))
        return offset, torch.sigmoid(mask)

    def split(self, offset_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The channels of `self.offset_mask`: two thirds offsets, one third masks."""
        offset, mask = offset_mask.tensor_split([2 * offset_mask.shape[1] // 3], dim=1)
        return offset, mask

    def offset_layers(self) -> tuple[nn.Conv2d, ...]:
        """The convolutions that predict offsets and masks: the published code trains them at rates of their own."""
        return self.offset_conv1, self.offset_conv2, self.offset_mask


def following(offset: Tensor, change: Tensor) -> Tensor:
    """Offsets (B, groups*9*2, H, W) and the same change (B, 9*2, H, W) for every group, in the change's precision."""
    groups = offset.shape[1] // change.shape[1]
    return repeat(change, "b taps h w -> b (groups taps) h w", groups=groups).add_(offset)


def exact(flow: Tensor, features: Tensor) -> Tensor:
    """The flow for features of this type: whole numbers that half precision would round; float64 stays float64."""
    return flow.to(torch.promote_types(features.dtype, torch.float32))


def fit(reference: Tensor, size: Sequence[int]) -> Tensor:
    """The *unwarped* reference that eq. 15 also concatenates, cut or zero-padded at the bottom and right to `size`."""
    height, width = size
    return F.pad(reference, (0, width - reference.shape[-1], 0, height - reference.shape[-2]))


def alignments(network: nn.Module) -> Iterator[FAM]:
    """All alignment modules of a network."""
    return (module for module in network.modules() if isinstance(module, FAM))


def split_offsets(network: nn.Module, groups: list[dict[str, Any]], rates: Rates) -> list[dict[str, Any]]:
    """Give the offset convolutions of each scale their own rate, as published: they are trained with care.

    Args:
        network: one that aligns by `FAM`.
        groups: its parameters by rate, as `Network.parameter_groups` gives them.
        rates: learning rates.

    Returns:
        The first group without them, those of the large, medium and small scale, the other groups.
    """
    scales = {
        id(p): fam.scale for fam in alignments(network) for layer in fam.offset_layers() for p in layer.parameters()
    }
    main, *others = groups
    offsets = [
        group([p for p in main["params"] if scales.get(id(p)) == scale], rate)
        for scale, rate in zip((4, 2, 1), rates.offset, strict=True)
    ]
    return [main | {"params": [p for p in main["params"] if id(p) not in scales]}, *offsets, *others]
