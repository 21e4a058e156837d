"""DATSR (Cao et al., ECCV 2022): C2-Matching's correspondences, aggregated in a U-net of Swin transformers.

Reference-based Image Super-Resolution with Deformable Attention Transformer; published code
github.com/caojiezhang/DATSR, 32240b5.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr import published
from frfsr.alignment import FAM
from frfsr.errors import UserError
from frfsr.features import start_at_zero
from frfsr.matching import enlarge_score
from frfsr.network import Correspondence
from frfsr.peers.matched import PARTS, Matched, MatchedConfig, MatchedNetwork, load_parts
from frfsr.peers.swin import SwinBody, SwinSizes
from frfsr.reuse import Aggregation
from frfsr.settings import Depth, Positive, Width, require_divisible, settings
from frfsr.states import Names, State, count, size, unwrap_parts
from frfsr.unet import Upsample

MOST_OFFSET = 10  # pixels: the learned offset on top of the matched position
STAGES = ("down_large", "down_medium", "up_small", "up_medium", "up_large")
CONSTANTS = (".attn_mask", ".relative_position_index")  # of the published state dict, for training's image sizes


@settings
class DATSRConfig(MatchedConfig):
    """Sizes of DATSR; the defaults are the published ones: 18 M parameters beside the encoders and VGG19."""

    channels: Width = 128  # of F_LR, at every scale
    depths: tuple[Depth, ...] = (4, 4)  # Swin layers in each group of a stage
    heads: tuple[Positive, ...] = (4, 4)  # of their attention
    window: Positive = 8  # side of its windows
    hidden: Width = 256  # channels inside its perceptrons

    def __post_init__(self) -> None:
        """Check what belongs together."""
        super().__post_init__()
        if len(self.depths) != len(self.heads) or not self.depths:
            raise UserError(f"depths and heads need one number for each group, got {self.depths} and {self.heads}.")
        for heads in self.heads:
            require_divisible("channels", self.channels, "heads", heads)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """For a CPU; see `MatchedConfig.tiny`."""
        return super().tiny(**(dict(depths=(2,), heads=(2,), hidden=32) | changes))

    @property
    def swin(self) -> SwinSizes:
        """Of one stage."""
        return SwinSizes(self.channels, self.depths, self.heads, self.window, self.hidden)


class BoundedFAM(FAM):
    """FAM whose learned offsets stay near the match, and which trusts a tap as far as its match is similar."""

    def learned_offset(self, features: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """See `FAM.learned_offset`; where nothing was matched, the mask is one half."""
        offset, mask = self.split(self.offset_mask(features))
        similarity = enlarge_score(score, self.scale).to(mask.dtype)
        return MOST_OFFSET * torch.tanh(offset), torch.sigmoid(mask * similarity)


class TextureAggregation(nn.Module):
    """One stage of the U-net: the reference's features, aligned and aggregated, then Swin layers.

    Args:
        config: of the network.
        scale: factor over the LR grid.
        texture_channels: of the reference's features.
        reused_channels: of F_rec, 0 where the stage does not take it.
    """

    def __init__(self, config: DATSRConfig, scale: int, texture_channels: int, reused_channels: int = 0):
        super().__init__()
        channels = config.channels
        self.fam = BoundedFAM(channels, texture_channels, scale, config.groups, "valid")
        self.head = nn.Conv2d(channels + texture_channels + reused_channels, channels, 3, padding=1)
        self.body = SwinBody(config.swin)

    def forward(
        self,
        x: Tensor,
        reference: Tensor,
        correspondence: Correspondence,
        *,
        skip: Tensor | None = None,
        reused: Tensor | None = None,
    ) -> Tensor:
        """Aggregate.

        Args:
            x: F_LR (B, c, H, W), with H, W = scale * the LR grid.
            reference: F_Ref (B, t, Hr, Wr).
            correspondence: of the LR grid.
            skip: (B, c, H, W), of the way down, which only the concatenation sees added to F_LR.
            reused: F_rec (B, c, H, W).

        Returns:
            (B, c, H, W).
        """
        seen = [x if skip is None else x + skip, self.fam(x, reference, correspondence)]
        fused = torch.cat(seen if reused is None else [*seen, reused], 1)
        return self.body(F.leaky_relu(self.head(fused), 0.1)) + x


class DATSRRestoration(Aggregation):
    """The trained part: LR image, correspondence and the reference's pyramid -> features -> image."""

    def __init__(self, config: DATSRConfig, *, reuse: bool):
        super().__init__()
        channels = config.channels
        large, medium, small = config.texture_channels
        reused = channels if reuse else 0
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.down_large = TextureAggregation(config, 4, large, reused)
        self.to_medium = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.down_medium = TextureAggregation(config, 2, medium)
        self.to_small = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.up_small = TextureAggregation(config, 1, small)
        self.from_small = Upsample(channels, channels)
        self.up_medium = TextureAggregation(config, 2, medium)
        self.from_medium = Upsample(channels, channels)
        self.up_large = TextureAggregation(config, 4, large, reused)
        last = nn.Conv2d(channels // 2, 3, 3, padding=1)
        start_at_zero(last)  # training starts at the enlarged LR image
        self.tail = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1), nn.LeakyReLU(0.1), last)

    def forward(self, inputs: Matched, reused: Tensor | None = None) -> Tensor:
        """The tap F_rec (B, channels, 4h, 4w). reused: the first network's, where this one is the second."""
        match, (relu1_1, relu2_1, relu3_1) = inputs.correspondence, inputs.pyramid
        x0 = self.head(inputs.base)
        x1 = self.to_medium(self.down_large(x0, relu1_1, match, reused=reused))
        x2 = self.to_small(self.down_medium(x1, relu2_1, match))
        x = self.from_small(self.up_small(x2, relu3_1, match))
        x = self.from_medium(self.up_medium(x, relu2_1, match, skip=x1))
        return self.up_large(x, relu1_1, match, skip=x0, reused=reused)

    def reconstruct(self, features: Tensor, inputs: Matched) -> Tensor:
        """Features (B, channels, 4h, 4w) -> image (B, 3, 4h, 4w), RGB, about [0, 1], not clamped."""
        return self.tail(features) + inputs.base


class DATSR(MatchedNetwork):
    """x4 super-resolution with reference images, as DATSR does it."""

    architecture, config_class = "datsr", DATSRConfig

    def __init__(self, config: DATSRConfig):
        super().__init__(config)
        self.min_side = self.side_multiple = config.window

    def restoration(self, *, reuse: bool) -> Aggregation:
        """See `MatchedNetwork.restoration`."""
        return DATSRRestoration(self.config, reuse=reuse)


def from_published(parts: Mapping[str, Any]) -> DATSR:
    """Build the network of published checkpoints.

    Args:
        parts: {"net_g": SwinUnetv3RestorationNet, "extractor": ContrasExtractorSep, "vgg": VGG19}, each a state dict,
            wrapped or not; VGG19 under the published names or torchvision's. Sizes are read from the shapes.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: a part is missing, or its keys or shapes are others.
    """
    states = unwrap_parts(parts, PARTS, "datsr")
    net_g = {key: value for key, value in states["net_g"].items() if not key.endswith(CONSTANTS)}
    config = DATSRConfig.published(
        encoder_channels=published.extractor_sizes(states["extractor"]), **restoration_sizes(net_g)
    )
    network = DATSR(config)
    # The published network computes content features and does not use them.
    load_parts(network, states | {"net_g": net_g}, restoration_names(config), unused=("content_extractor.",))
    return network.eval()


def restoration_sizes(state: State) -> dict[str, Any]:
    """Fields of DATSRConfig that a SwinUnetv3RestorationNet tells."""
    root = "dyn_agg_restore"
    layers = f"{root}.down_body_large.layers."
    groups = range(count(state, layers))
    first = f"{layers}0.residual_group.blocks.0"
    heads = [f"{layers}{n}.residual_group.blocks.0.attn.relative_position_bias_table" for n in groups]
    return dict(
        texture_channels=tuple(size(state, f"{root}.{stage}_dyn_agg.weight") for stage in STAGES[:3]),
        groups=size(state, f"{root}.down_large_dyn_agg.conv_offset_mask.weight") // (3 * 9),
        channels=size(state, f"{root}.unet_head.weight"),
        depths=tuple(count(state, f"{layers}{n}.residual_group.blocks.") for n in groups),
        heads=tuple(size(state, key, 1) for key in heads),
        window=(isqrt(size(state, f"{first}.attn.relative_position_bias_table")) + 1) // 2,
        hidden=size(state, f"{first}.mlp.fc1.weight"),
    )


def restoration_names(config: DATSRConfig) -> Names:
    """DATSRRestoration -> SwinUnetv3RestorationNet."""
    names = {
        "head": "unet_head",
        "to_medium": "down_tail_large",
        "to_small": "down_tail_medium",
        "from_small": "up_tail_small",
        "from_medium": "up_tail_medium",
        "tail": "up_tail_large",
    }
    for stage in STAGES:
        direction, scale = stage.split("_")
        names |= {
            f"{stage}.fam": f"{stage}_dyn_agg",
            f"{stage}.fam.offset_conv1": f"{stage}_offset_conv1",
            f"{stage}.fam.offset_conv2": f"{stage}_offset_conv2",
            f"{stage}.fam.offset_mask": f"{stage}_dyn_agg.conv_offset_mask",
            f"{stage}.head": f"{direction}_head_{scale}.0",
        }
        body = f"{direction}_body_{scale}"
        names |= {f"{stage}.body{ours}": f"{body}{theirs}" for ours, theirs in swin_names(config.depths).items()}
    return {ours: f"dyn_agg_restore.{theirs}" for ours, theirs in names.items()}


def swin_names(depths: tuple[int, ...]) -> Names:
    """SwinBody -> SwinBlock; each path begins with a point, or is empty for the whole body."""
    names = {"": "", ".norm_in": ".patch_embed.norm", ".norm_out": ".norm"}
    for group, depth in enumerate(depths):
        names[f".groups.{group}"] = f".layers.{group}"
        for block in range(depth):
            ours, theirs = f".groups.{group}.blocks.{block}", f".layers.{group}.residual_group.blocks.{block}"
            names |= {
                ours: theirs,
                f"{ours}.attention": f"{theirs}.attn",
                f"{ours}.mlp.0": f"{theirs}.mlp.fc1",
                f"{ours}.mlp.2": f"{theirs}.mlp.fc2",
            }
    return names
