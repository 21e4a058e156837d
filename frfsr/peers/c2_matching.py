"""C2-Matching (Jiang et al., CVPR 2021): robust correspondences, then dynamic aggregation scale by scale.

Robust Reference-based Super-Resolution via C2-Matching; published code github.com/yumingj/C2-Matching, 6d60149.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr import published
from frfsr.alignment import FAM
from frfsr.features import start_at_zero
from frfsr.network import Correspondence
from frfsr.peers.layers import residual_blocks
from frfsr.peers.matched import PARTS, Matched, MatchedConfig, MatchedNetwork, load_parts
from frfsr.reuse import Aggregation
from frfsr.settings import Depth, Width, settings
from frfsr.states import Names, count, size, unwrap_parts
from frfsr.unet import Upsample

SCALES = ("small", "medium", "large")


@settings
class C2MatchingConfig(MatchedConfig):
    """Sizes of C2-Matching; the defaults are the published ones: 8.9 M parameters beside the encoders and VGG19."""

    channels: Width = 64  # of F_LR, at every scale
    blocks: Depth = 16  # residual blocks of the content extractor, and of every scale

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """For a CPU; see `MatchedConfig.tiny`."""
        return super().tiny(**(dict(blocks=3) | changes))


class DynamicAggregation(nn.Module):
    """One scale of the restoration: the reference's features, aligned and aggregated, then residual blocks.

    Args:
        config: of the network.
        scale: factor over the LR grid.
        texture_channels: of the reference's features.
        reused_channels: of F_rec, 0 where the scale does not take it.
    """

    def __init__(self, config: C2MatchingConfig, scale: int, texture_channels: int, reused_channels: int = 0):
        super().__init__()
        channels = config.channels
        self.fam = FAM(channels, texture_channels, scale, config.groups, "valid", warp=False)
        self.head = nn.Conv2d(channels + texture_channels + reused_channels, channels, 3, padding=1)
        self.body = residual_blocks(channels, config.blocks)

    def forward(
        self, x: Tensor, reference: Tensor, correspondence: Correspondence, reused: Tensor | None = None
    ) -> Tensor:
        """Aggregate; H, W = scale * the LR grid.

        Args:
            x: F_LR (B, c, H, W).
            reference: F_Ref (B, t, Hr, Wr).
            correspondence: of the LR image with the reference.
            reused: F_rec (B, c, H, W), where the scale takes it.

        Returns:
            (B, c, H, W).
        """
        aligned = self.fam(x, reference, correspondence)
        fused = torch.cat([x, aligned] if reused is None else [x, aligned, reused], 1)
        return self.body(F.leaky_relu(self.head(fused), 0.1)) + x


class ContentExtractor(nn.Module):
    """LR image (B, 3, h, w) -> F_LR (B, channels, h, w)."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.body = residual_blocks(channels, blocks)

    def forward(self, lr: Tensor) -> Tensor:
        """Shallow features, then the residual blocks."""
        return self.body(F.leaky_relu(self.conv_first(lr), 0.1))


class C2Restoration(Aggregation):
    """The trained part: LR image, correspondence and the reference's pyramid -> features -> image."""

    def __init__(self, config: C2MatchingConfig, *, reuse: bool):
        super().__init__()
        channels = config.channels
        large, medium, small = config.texture_channels
        self.content = ContentExtractor(channels, config.blocks)
        self.small = DynamicAggregation(config, 1, small)
        self.up_small = Upsample(channels, channels)
        self.medium = DynamicAggregation(config, 2, medium)
        self.up_medium = Upsample(channels, channels)
        self.large = DynamicAggregation(config, 4, large, channels if reuse else 0)
        last = nn.Conv2d(channels // 2, 3, 3, padding=1)
        start_at_zero(last)  # training starts at the enlarged LR image
        self.tail = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1), nn.LeakyReLU(0.1), last)

    def forward(self, inputs: Matched, reused: Tensor | None = None) -> Tensor:
        """The tap F_rec (B, channels, 4h, 4w). reused: the first network's, where this one is the second."""
        relu1_1, relu2_1, relu3_1 = inputs.pyramid
        x = self.content(inputs.lr)
        x = self.up_small(self.small(x, relu3_1, inputs.correspondence))
        x = self.up_medium(self.medium(x, relu2_1, inputs.correspondence))
        return self.large(x, relu1_1, inputs.correspondence, reused)

    def reconstruct(self, features: Tensor, inputs: Matched) -> Tensor:
        """Features (B, channels, 4h, 4w) -> image (B, 3, 4h, 4w), RGB, about [0, 1], not clamped."""
        return self.tail(features) + inputs.base


class C2Matching(MatchedNetwork):
    """x4 super-resolution with reference images, as C2-Matching does it."""

    architecture, config_class = "c2-matching", C2MatchingConfig

    def restoration(self, *, reuse: bool) -> Aggregation:
        """See `MatchedNetwork.restoration`."""
        return C2Restoration(self.config, reuse=reuse)


def from_published(parts: Mapping[str, Any]) -> C2Matching:
    """Build the network of published checkpoints.

    Args:
        parts: {"net_g": RestorationNet, "extractor": ContrasExtractorSep, "vgg": VGG19}, each a state dict, wrapped or
            not; VGG19 under the published names or torchvision's. Sizes are read from the shapes.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: a part is missing, or its keys or shapes are others.
    """
    states = unwrap_parts(parts, PARTS, "c2-matching")
    net_g = states["net_g"]
    aggregation = "dyn_agg_restore"
    config = C2MatchingConfig.published(
        encoder_channels=published.extractor_sizes(states["extractor"]),
        texture_channels=tuple(size(net_g, f"{aggregation}.{scale}_dyn_agg.weight") for scale in reversed(SCALES)),
        groups=size(net_g, f"{aggregation}.large_dyn_agg.conv_offset_mask.weight") // (3 * 9),
        channels=size(net_g, "content_extractor.conv_first.weight"),
        blocks=count(net_g, "content_extractor.body."),
    )
    network = C2Matching(config)
    load_parts(network, states, restoration_names())
    return network.eval()


def restoration_names() -> Names:
    """C2Restoration -> RestorationNet."""
    names = {
        "content": "content_extractor",
        "content.body": "content_extractor.body",
        "up_small": "dyn_agg_restore.tail_small",
        "up_medium": "dyn_agg_restore.tail_medium",
        "tail": "dyn_agg_restore.tail_large",
    }
    for scale in SCALES:
        names |= {
            f"{scale}.fam": f"dyn_agg_restore.{scale}_dyn_agg",
            f"{scale}.fam.offset_conv1": f"dyn_agg_restore.{scale}_offset_conv1",
            f"{scale}.fam.offset_conv2": f"dyn_agg_restore.{scale}_offset_conv2",
            f"{scale}.fam.offset_mask": f"dyn_agg_restore.{scale}_dyn_agg.conv_offset_mask",
            f"{scale}.head": f"dyn_agg_restore.head_{scale}.0",
            f"{scale}.body": f"dyn_agg_restore.body_{scale}",
        }
    return names
