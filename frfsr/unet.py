"""Multi-scale dynamic texture aggregation: the U-Net in the grey box of figure 1, five FAM + TAAM pairs."""

from typing import NamedTuple

from einops.layers.torch import Rearrange
from torch import Tensor, nn

from frfsr.aggregation import TAAM, Stage
from frfsr.alignment import FAM
from frfsr.config import FRFSRConfig
from frfsr.features import start_at_zero
from frfsr.matching import enlarge_score
from frfsr.network import Correspondence
from frfsr.reuse import Aggregation


class Textures(NamedTuple):
    """What is found once per image pair and shared by both networks of the feature reuse framework.

    Attributes:
        correspondence: LR position -> place in the reference.
        pyramid: F_Ref at strides 1, 2, 4.
        sife: F_sife (B, sife_features, h, w) or None.
        base: the image that the networks refine (B, 3, 4h, 4w).
    """

    correspondence: Correspondence
    pyramid: tuple[Tensor, Tensor, Tensor]
    sife: Tensor | None
    base: Tensor


class Upsample(nn.Sequential):
    """Convolution, x2 pixel shuffle, LeakyReLU: (B, channels, H, W) -> (B, out_channels, 2H, 2W)."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(channels, 4 * out_channels, 3, padding=1),
            Rearrange("b (c i j) h w -> b c (h i) (w j)", i=2, j=2),
            nn.LeakyReLU(0.1),
        )


class MultiScaleAggregation(Aggregation):
    """RefSR (1) or RefSR (2) of figure 1: Textures -> F_SR and the image.

    Args:
        config: of the network.
        sife: whether the small-scale TAAM takes F_sife (eq. 17).
        reuse: it is the second network, whose large-scale TAAMs also take the first one's F_rec (eq. 18).
    """

    def __init__(self, config: FRFSRConfig, sife: bool, reuse: bool):
        super().__init__()
        large, medium, small = config.channels
        self.separate = config.fusion == "separate"
        self.score_input = config.score_input

        def fam(level: int) -> FAM:
            stage = Stage.of(config, level)
            return FAM(stage.channels, stage.texture_channels, stage.scale, config.groups, config.match_padding)

        def taam(level: int, further_channels: int = 0) -> TAAM:
            return TAAM(Stage.of(config, level, further_channels))

        reused = large if reuse else 0
        embedded = config.sife_features if sife else 0
        self.head = nn.Conv2d(3, large, 3, padding=1)
        self.fam_down_large, self.taam_down_large = fam(0), taam(0, reused)
        self.down_large = nn.Conv2d(large, medium, 3, stride=2, padding=1)
        self.fam_down_medium, self.taam_down_medium = fam(1), taam(1)
        self.down_medium = nn.Conv2d(medium, small, 3, stride=2, padding=1)
        self.fam_small, self.taam_small = fam(2), taam(2, embedded)
        self.up_small = Upsample(small, medium)
        self.fam_up_medium, self.taam_up_medium = fam(1), taam(1)
        self.up_medium = Upsample(medium, large)
        self.fam_up_large, self.taam_up_large = fam(0), taam(0, reused)
        last = nn.Conv2d(large // 2, 3, 3, padding=1)
        self.tail = nn.Sequential(nn.Conv2d(large, large // 2, 3, padding=1), nn.LeakyReLU(0.1), last)
        # Training starts at the base image.
        start_at_zero(last)

    def forward(self, textures: Textures, reused: Tensor | None = None) -> Tensor:
        """F_SR (B, large channels, 4h, 4w), of which `self.tail` makes the image; reused: the first network's F_rec."""
        x0 = self.head(textures.base)
        x = self.aggregate(self.fam_down_large, self.taam_down_large, x0, textures, reused=reused)
        x1 = self.down_large(x)
        x = self.aggregate(self.fam_down_medium, self.taam_down_medium, x1, textures)
        x2 = self.down_medium(x)
        x = self.up_small(self.aggregate(self.fam_small, self.taam_small, x2, textures, sife=textures.sife))
        x = self.up_medium(self.aggregate(self.fam_up_medium, self.taam_up_medium, x, textures, skip=x1))
        return self.aggregate(self.fam_up_large, self.taam_up_large, x, textures, reused=reused, skip=x0)

    def aggregate(
        self,
        fam: FAM,
        taam: TAAM,
        x: Tensor,
        textures: Textures,
        *,
        sife: Tensor | None = None,
        reused: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """Align the reference features of one scale to F_LR, and aggregate both.

        Args:
            fam: of the stage.
            taam: of the stage.
            x: F_LR (B, c, H, W).
            textures: of the image pair.
            sife: F_sife (B, sife_features, H, W), where the stage takes it.
            reused: F_rec (B, c, H, W), likewise.
            skip: features of the way down, (B, c, H, W).

        Returns:
            (B, c, H, W).
        """
        if skip is not None and not self.separate:
            x, skip = x + skip, None
        reference, correspondence = textures.pyramid[(4, 2, 1).index(fam.scale)], textures.correspondence
        score = enlarge_score(correspondence.score, fam.scale).to(x.dtype) if self.score_input else None
        # F_rec comes last, so that a second network can continue where the first one ended (frfsr.reuse).
        further = [feature for feature in (sife, score, reused) if feature is not None]
        return taam(x, fam(x, reference, correspondence), *further, skip=skip)

    def reconstruct(self, features: Tensor, textures: Textures) -> Tensor:
        """F_SR -> the image (B, 3, 4h, 4w), RGB, not clamped: the last convolutions (eq. 2 and 4) on the base image."""
        return self.tail(features) + textures.base
