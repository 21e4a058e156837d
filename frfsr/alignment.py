"""FAM, feature alignment module (section III-C.1): reference features + correspondence -> aligned texture features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr.kernels import deform_conv, flow_warp
from frfsr.matching import Correspondence, enlarge_flow


class FAM(nn.Module):
    """Aligns one scale's reference features to the LR features by a deformable convolution around the matched position.

    channels: of F_LR at this scale; texture_channels: of F_Ref and of the result; scale: this scale's factor over the
    LR grid (4, 2 or 1); groups: deformable groups; warp: whether the offsets are also learned from the reference
    features warped to the matched position.
    """

    def __init__(
        self, channels: int, texture_channels: int, scale: int, groups: int, match_padding: str, *, warp: bool = True
    ):
        super().__init__()
        self.scale, self.match_padding, self.warp = scale, match_padding, warp
        self.offset_conv1 = nn.Conv2d(channels + (1 + warp) * texture_channels, texture_channels, 3, padding=1)
        self.offset_conv2 = nn.Conv2d(texture_channels, texture_channels, 3, padding=1)
        self.offset_mask = nn.Conv2d(texture_channels, 3 * 9 * groups, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(texture_channels, texture_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(texture_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        # Training starts at the matched position: no learned offset, every mask one half.
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.bias)

    def forward(self, lr: Tensor, reference: Tensor, correspondence: Correspondence) -> Tensor:
        """F_LR (B, c, H, W), F_Ref (B, t, Hr, Wr) -> F_tex (B, t, H, W), eq. 15-16. H, W = scale * the LR grid."""
        flow = correspondence.flow.to(torch.promote_types(reference.dtype, torch.float32))  # float64 stays exact
        warped = [flow_warp(reference, enlarge_flow(flow, self.scale))] if self.warp else []
        seen = torch.cat([lr, *warped, fit(reference, lr.shape[-2:])], 1)
        offset, mask = self.learned_offset(seen, correspondence.score)
        aligned = deform_conv(
            reference,
            offset,
            mask,
            self.weight.to(reference.dtype),
            self.bias.to(reference.dtype),
            flow=flow,
            flow_scale=self.scale,
            match_padding=self.match_padding,
        )
        return F.leaky_relu(aligned, 0.1)

    def learned_offset(self, seen: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 15: offsets (B, groups*9*2, H, W), pixels, as [group, tap, (y, x)] and masks (B, groups*9, H, W), 0 to 1.

        seen: F_LR and F_Ref, warped and as it is, (B, c + 2t, H, W); score: of the match, (B, h, w).
        """
        offset, mask = self.offset_convolutions(seen)
        return offset, torch.sigmoid(mask)

    def offset_convolutions(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and masks of `learned_offset`, the masks before their sigmoid."""
        features = F.leaky_relu(self.offset_conv1(seen), 0.1)
        features = F.leaky_relu(self.offset_conv2(features), 0.1)
        offset, mask = self.offset_mask(features).tensor_split([2 * self.offset_mask.out_channels // 3], dim=1)
        return offset, mask


def fit(reference: Tensor, size: tuple[int, int]) -> Tensor:
    """The *unwarped* reference that eq. 15 also concatenates, cut or zero-padded at the bottom and right to `size`."""
    height, width = size
    return F.pad(reference, (0, width - reference.shape[-1], 0, height - reference.shape[-2]))
