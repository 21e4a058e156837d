"""What C2-Matching and DATSR share.

A frozen encoder finds the matches, a restoration network aggregates VGG19's features of the matched places.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr import published
from frfsr.alignment import alignments, split_offsets
from frfsr.atlas import Atlas, lay_out, match, relative
from frfsr.config import Widths
from frfsr.features import ReferencePyramid, TextureEncoder
from frfsr.network import Correspondence, Network, Rates, ReferenceFeatures, SRResult, enlarge_8_bit
from frfsr.pixels import pad_sides
from frfsr.reuse import Aggregation, aggregation
from frfsr.settings import Positive, require_divisible, settings
from frfsr.states import Names, State, load_published

PARTS = ("net_g", "extractor", "vgg")
SMALLEST = 3  # LR pixels: a patch


@settings
class MatchedConfig:
    """Sizes of the parts that C2-Matching and DATSR share; the defaults are the published ones."""

    encoder_channels: Widths = (64, 128, 256)  # widths of the texture encoder's three stages
    shared_encoder: bool = False  # one for LR and reference; published: two sets of weights
    texture_channels: Widths = (64, 128, 256)  # relu1_1, relu2_1, relu3_1 of VGG19
    groups: Positive = 8  # deformable groups
    reuse: bool = False  # a second restoration network takes the features of the first

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """The published sizes."""
        return cls(**changes)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """For a CPU: with the widths of frfsr-tiny's encoder, which it can use."""
        sizes: dict[str, Any] = dict(
            encoder_channels=(16, 32, 64), shared_encoder=True, texture_channels=(16, 32, 48), groups=1, channels=16
        )
        return cls(**(sizes | changes))

    def __post_init__(self) -> None:
        """Check what belongs together."""
        for channels in self.texture_channels:
            require_divisible("every one of texture_channels", channels, "groups", self.groups)


class Matched(NamedTuple):
    """What is found once per image pair and shared by both networks of the feature reuse framework.

    Attributes:
        lr: (B, 3, h, w), RGB in [0, 1].
        base: the same, enlarged by bilinear interpolation, to which the networks add: (B, 3, 4h, 4w).
        correspondence: LR position -> place in the reference.
        pyramid: F_Ref at strides 1, 2 and 4 of the reference.
    """

    lr: Tensor
    base: Tensor
    correspondence: Correspondence
    pyramid: tuple[Tensor, Tensor, Tensor]


class MatchedNetwork(Network):
    """Matching by texture features, then a restoration network of its own for each subclass."""

    min_side = SMALLEST
    halo = 16
    searches = True
    memory_format = torch.channels_last  # several times faster than contiguous on CPU and on tensor cores

    def __init__(self, config: Any):
        super().__init__(config)
        self.encoder = TextureEncoder(config.encoder_channels)
        self.reference_encoder = None if config.shared_encoder else TextureEncoder(config.encoder_channels)
        self.pyramid = ReferencePyramid(config.texture_channels)
        self.aggregation = aggregation(lambda reuse: self.restoration(reuse=reuse), config.reuse)
        self.to(memory_format=self.memory_format)

    @abstractmethod
    def restoration(self, *, reuse: bool) -> Aggregation:
        """Build the trained part, a `frfsr.reuse.Aggregation` whose inputs are `Matched`.

        Args:
            reuse: with an injection point for F_rec.

        Returns:
            The part.
        """

    def encode_reference(self, reference: Tensor) -> ReferenceFeatures:
        """Encode an image (B, 3, H, W), RGB in [0, 1]; borders are replicated to a multiple of 4."""
        reference = pad_sides(reference, 4 * SMALLEST, 4).contiguous(memory_format=self.memory_format)
        with torch.no_grad():
            matching = (self.encoder if self.reference_encoder is None else self.reference_encoder)(reference)
        return ReferenceFeatures(matching, self.pyramid(reference))

    def forward(
        self,
        lr: Tensor,
        references: Tensor | ReferenceFeatures | Sequence[ReferenceFeatures] | Atlas | None = None,
        upsampled: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve, see `Network.forward`; without a reference the result is the enlarged LR image."""
        rows, columns = lr.shape[-2:]
        if upsampled is None:
            upsampled = enlarge_8_bit(lr)
        if references is None:
            return SRResult(upsampled)
        lr, upsampled = (
            pad_sides(image, scale * self.min_side, scale * self.side_multiple).contiguous(
                memory_format=self.memory_format
            )
            for image, scale in ((lr, 1), (upsampled, 4))
        )
        if isinstance(references, Tensor):
            references = self.encode_reference(references)
        atlas = lay_out(references)
        with torch.no_grad():  # an argmax has no gradient; the encoder learns in recipes/train_matching.py
            correspondence = match(self.encoder(upsampled), atlas, "valid")
        base = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        inputs = Matched(lr, base, correspondence, atlas.pyramid)
        features = self.aggregation(inputs)
        image = self.aggregation.reconstruct(features, inputs)
        image, features = (result[..., : 4 * rows, : 4 * columns] for result in (image, features))
        return SRResult(image, features, relative(correspondence, atlas).cropped(rows, columns))

    def parameter_groups(self, rates: Rates) -> list[dict[str, Any]]:
        """Group as published, see `frfsr.alignment.split_offsets`."""
        return split_offsets(self, super().parameter_groups(rates), rates)

    def watched(self) -> Iterator[nn.Module]:
        """The convolutions that predict offsets and masks."""
        return (fam.offset_mask for fam in alignments(self))


def load_parts(network: MatchedNetwork, parts: Mapping[str, State], names: Names, unused: tuple[str, ...] = ()) -> None:
    """Load a published network of three parts.

    Args:
        network: takes the weights; its encoders are not shared.
        parts: of `frfsr.states.unwrap_parts`.
        names: of the restoration network.
        unused: beginnings of keys of net_g that may be there and are not needed.

    Raises:
        UserError: a part does not fit; it names the keys.
    """
    encoders = nn.ModuleDict({name: network.get_submodule(name) for name in ("encoder", "reference_encoder")})
    vgg = parts["vgg"]
    load_published(network.aggregation, parts["net_g"], names, "net_g", unused)
    load_published(encoders, parts["extractor"], published.extractor_names(), "extractor")
    load_published(network.pyramid, vgg, published.vgg_names(vgg), "vgg", unused=published.VGG_UNUSED)
