"""FRFSR's published checkpoints -> modules: the complete network, and the parts that are published on their own."""

from collections.abc import Mapping
from typing import Any, Self

import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from frfsr import published
from frfsr.config import FRFSRConfig, Widths
from frfsr.features import SIFE, TextureEncoder
from frfsr.model import FRFSR
from frfsr.network import Correspondence
from frfsr.settings import Depth, Width, settings
from frfsr.states import Names, load_published, unwrap, unwrap_parts
from frfsr.stored import StoredModule
from frfsr.unet import MultiScaleAggregation, Textures

FRFSR_PARTS = ("net_g", "extractor", "vgg", "rrdb")


@settings
class ExtractorConfig:
    """Widths of the texture encoder's three stages."""

    channels: Widths = (64, 128, 256)


@settings
class RRDBConfig:
    """Sizes of ESRGAN's network."""

    features: Width = 64
    blocks: Depth = 23
    growth: Width = 32


class Extractor(StoredModule):
    """The published texture encoder (ContrasExtractorSep), which has a set of weights for either image."""

    architecture, config_class = "extractor", ExtractorConfig

    def __init__(self, config: ExtractorConfig):
        super().__init__()
        self.config = config
        self.encoder = TextureEncoder(config.channels)
        self.reference_encoder = TextureEncoder(config.channels)

    def forward(self, image1: Tensor, image2: Tensor) -> dict[str, Tensor]:
        """Encode the enlarged LR image and the reference.

        Args:
            image1: (B, 3, 4h, 4w), RGB in [0, 1].
            image2: (B, 3, 4hr, 4wr) likewise.

        Returns:
            {"dense_features1": (B, C, h, w), "dense_features2": (B, C, hr, wr)}, as the published code names them.
        """
        return {"dense_features1": self.encoder(image1), "dense_features2": self.reference_encoder(image2)}


class RRDBNet(SIFE, StoredModule):
    """ESRGAN's network. Its forward is SIFE's (eq. 14): LR (B, 3, h, w), RGB in [0, 1] -> features (B, C, h, w)."""

    architecture, config_class = "rrdb", RRDBConfig

    def __init__(self, features: int = 64, blocks: int = 23, growth: int = 32):
        super().__init__(features, blocks, growth)
        self.config = RRDBConfig(features, blocks, growth)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    @classmethod
    def of(cls, config: RRDBConfig) -> Self:
        """The network of these sizes, with initial weights."""
        return cls(config.features, config.blocks, config.growth)

    def image(self, lr: Tensor) -> Tensor:
        """ESRGAN's own super-resolved image (B, 3, 4h, 4w), not clamped."""
        x = self(lr)
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(repeat(x, "b c h w -> b c (h i) (w j)", i=2, j=2)), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


class ReuseNetwork(StoredModule):
    """RefSR (2) of figure 1 as published, on its own (TextureNet): it has no SIFE, and its result remains a feature."""

    architecture, config_class = "frfsr-reuse", FRFSRConfig

    def __init__(self, config: FRFSRConfig):
        super().__init__()
        self.config = config
        self.aggregation = MultiScaleAggregation(config, sife=False, reuse=True)

    def forward(
        self, lr: Tensor, correspondence: Correspondence, pyramid: tuple[Tensor, Tensor, Tensor], reused: Tensor
    ) -> Tensor:
        """Aggregate the textures of a reference and the first network's features.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1].
            correspondence: as `frfsr.matching.correspond` gives it.
            pyramid: F_Ref at strides 1, 2 and 4 of the reference.
            reused: F_rec (B, C, 4h, 4w).

        Returns:
            F_SR (B, C, 4h, 4w), eq. 18.
        """
        base = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        return self.aggregation(Textures(correspondence, pyramid, None, base), reused)


def extractor_from_published(checkpoint: Mapping[str, Any]) -> Extractor:
    """ContrasExtractorSep -> Extractor."""
    state = unwrap(checkpoint, "extractor")
    module = Extractor(ExtractorConfig(published.extractor_sizes(state)))
    load_published(module, state, published.extractor_names(), "extractor")
    return module


def rrdb_from_published(checkpoint: Mapping[str, Any]) -> RRDBNet:
    """RRDBNet, under the names of any ESRGAN release -> RRDBNet."""
    state = unwrap(checkpoint, "rrdb")
    module = RRDBNet(**published.rrdb_sizes(state))
    load_published(module, state, published.rrdb_names(state), "rrdb")
    return module


def reuse_from_published(checkpoint: Mapping[str, Any]) -> ReuseNetwork:
    """TextureNet -> ReuseNetwork."""
    state = unwrap(checkpoint, "frfsr-reuse")
    module = ReuseNetwork(FRFSRConfig.published(sife=False, **published.aggregation_sizes(state)))
    load_published(module.aggregation, state, _aggregation_names(module.config), "frfsr-reuse")
    return module


def frfsr_from_published(checkpoints: Mapping[str, Any]) -> FRFSR:
    """SwinUnetv3RestorationNet, ContrasExtractorSep, VGG19 and RRDBNet, by part -> FRFSR."""
    net_g, extractor, vgg, rrdb = unwrap_parts(checkpoints, FRFSR_PARTS, "frfsr").values()
    config = FRFSRConfig.published(
        encoder_channels=published.extractor_sizes(extractor),
        **{f"sife_{name}": value for name, value in published.rrdb_sizes(rrdb).items()},
        **published.aggregation_sizes(net_g),
    )
    model = FRFSR(config)
    assert model.reference_encoder is not None  # as published
    assert model.sife is not None
    encoders = nn.ModuleDict({"encoder": model.encoder, "reference_encoder": model.reference_encoder})
    load_published(model.aggregation, net_g, _aggregation_names(config), "net_g")
    load_published(encoders, extractor, published.extractor_names(), "extractor")
    load_published(model.pyramid, vgg, published.vgg_names(vgg), "vgg", unused=published.VGG_UNUSED)
    load_published(model.sife, rrdb, published.rrdb_names(rrdb), "rrdb", unused=published.ESRGAN_UPSAMPLING)
    return model


def _aggregation_names(config: FRFSRConfig) -> Names:
    return published.aggregation_names(config.dynamic_blocks, config.blocks, config.sife)
