"""MASA (Lu et al., CVPR 2021): matching from coarse to fine, then spatial adaptation of the reference's features.

MASA-SR: Matching Acceleration and Spatial Adaptation for Reference-Based Image Super-Resolution; published code
github.com/dvlab-research/MASA-SR, 80d1bd8. That works on BGR images; the conversion of its weights swaps the channels.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr.errors import UserError
from frfsr.features import start_at_zero
from frfsr.network import Network, SRResult, enlarge_8_bit, reduce_8_bit
from frfsr.peers.layers import residual_blocks
from frfsr.peers.masa_blocks import Encoder, ResidualAggregation, SpatialAdaptation, double
from frfsr.peers.masa_matching import BlockMatch, correspondence_of, match_blocks, transfer
from frfsr.pixels import pad_sides
from frfsr.reuse import Aggregation, FeatureReuse, aggregation
from frfsr.settings import Depth, Width, settings
from frfsr.states import count, load_published, size, unwrap

BLOCK = 8  # LR pixels, side of the blocks that are matched first
REFERENCE_MULTIPLE = 16  # of the sides of a reference, as the published test data are padded
NAMES = {  # MASANetwork -> published
    "conv_out": "decoder.conv_out",
    "decoder.adapt": "decoder.pAda",
    "decoder.adapt.conv_shared": "decoder.pAda.conv_shared.0",
    "decoder.merge_x1": "decoder.merge_warp_x1",
    "decoder.aggregate_x2": "decoder.dram_x2",
    "decoder.aggregate_x4": "decoder.dram_x4",
    "encoder": "enc",
    **{
        f"{ours}.{part}_{level}": f"{theirs}.{short}_L{n}"
        for ours, theirs in (("encoder", "enc"), ("decoder", "decoder"))
        for part, short in (("conv", "conv"), ("blocks", "blk"))
        for n, level in enumerate(("large", "medium", "small"), start=1)
    },
    **{f"decoder.blocks_{scale}": f"decoder.blk_{scale}" for scale in ("x1", "x2", "x4")},
}


@settings
class MASAConfig:
    """Sizes of MASA; the defaults are the published ones."""

    channels: Width = 64
    encoder_blocks: tuple[Depth, Depth, Depth] = (4, 4, 4)  # residual blocks at full, half and quarter size
    content_blocks: tuple[Depth, Depth, Depth] = (2, 2, 2)  # of the decoder's way up from quarter to full LR size
    blocks: tuple[Depth, Depth, Depth] = (12, 8, 4)  # after the reference's features joined, x1, x2 and x4
    reuse: bool = False  # a second network takes the features of the first

    @classmethod
    def published(cls, **changes: Any) -> "MASAConfig":
        """4.0 M parameters."""
        return cls(**changes)

    @classmethod
    def tiny(cls, **changes: Any) -> "MASAConfig":
        """For a CPU."""
        sizes: dict[str, Any] = dict(channels=16, encoder_blocks=(1, 1, 1), content_blocks=(1, 1, 1), blocks=(3, 2, 1))
        return cls(**(sizes | changes))


class Decoder(nn.Module):
    """Features of the LR image, and of the reference at the matched places, x1, x2 and x4 -> (B, C, 4h, 4w)."""

    def __init__(self, config: MASAConfig, *, reuse: bool):
        super().__init__()
        channels = config.channels
        small, medium, large = config.content_blocks
        x1, x2, x4 = config.blocks
        self.conv_small = nn.Conv2d(channels, channels, 3, padding=1)
        self.blocks_small = residual_blocks(channels, small)
        self.conv_medium = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.blocks_medium = residual_blocks(channels, medium)
        self.conv_large = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.blocks_large = residual_blocks(channels, large)
        self.adapt = SpatialAdaptation(channels)  # one for all scales
        self.merge_x1 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.blocks_x1 = residual_blocks(channels, x1)
        self.aggregate_x2 = ResidualAggregation(channels)
        self.blocks_x2 = residual_blocks(channels, x2)
        self.aggregate_x4 = ResidualAggregation(channels, channels if reuse else 0)
        self.blocks_x4 = residual_blocks(channels, x4)

    def forward(
        self,
        lr: tuple[Tensor, Tensor, Tensor],
        warped: tuple[Tensor, Tensor, Tensor],
        reused: Tensor | None = None,
    ) -> Tensor:
        """Up from the quarter of the LR size to four times it."""
        large, medium, small = lr
        reference_x4, reference_x2, reference_x1 = warped
        x = self.blocks_small(F.relu(self.conv_small(small)))
        x = self.blocks_medium(F.relu(self.conv_medium(torch.cat([double(x), medium], 1))))
        x = self.blocks_large(F.relu(self.conv_large(torch.cat([double(x), large], 1))))
        x = self.blocks_x1(F.relu(self.merge_x1(torch.cat([self.adapt(x, reference_x1), x], 1))))
        x = self.blocks_x2(self.aggregate_x2(x, self.adapt(double(x), reference_x2)))
        return self.blocks_x4(self.aggregate_x4(x, self.adapt(double(x), reference_x4), reused))


class EncodedReference(NamedTuple):
    """What a network needs of a reference.

    Attributes:
        reduced: features (B, C, hr, wr) of the reference reduced to a quarter, which the LR features are matched with.
        pyramid: features of the reference at strides 1, 2 and 4.
    """

    reduced: Tensor
    pyramid: tuple[Tensor, Tensor, Tensor]


class MASAReference(NamedTuple):
    """What MASA needs of a reference: as each of its networks encodes it, which is one, or two with feature reuse."""

    encoded: tuple[EncodedReference, ...]


class Textures(NamedTuple):
    """What a network finds for an image pair.

    Attributes:
        lr: features of the LR image at strides 1, 2 and 4.
        warped: those of the reference at the matched places, 4, 2 and 1 times as large as the LR image.
        match: where they are.
    """

    lr: tuple[Tensor, Tensor, Tensor]
    warped: tuple[Tensor, Tensor, Tensor]
    match: BlockMatch


class MASAInputs(NamedTuple):
    """What the networks aggregate.

    Attributes:
        base: the enlarged LR image, to which they add: (B, 3, 4h, 4w).
        textures: as each of them finds them.
    """

    base: Tensor
    textures: tuple[Textures, ...]


class MASANetwork(Aggregation):
    """Encoder, matching and decoder; an aggregation as `frfsr.reuse` asks for.

    Args:
        config: of the network.
        reuse: it is the second network of the feature reuse framework, with an injection point.
    """

    def __init__(self, config: MASAConfig, *, reuse: bool):
        super().__init__()
        self.number = int(reuse)
        self.encoder = Encoder(config.channels, config.encoder_blocks)
        self.decoder = Decoder(config, reuse=reuse)
        self.conv_out = nn.Conv2d(config.channels, 3, 3, padding=1)
        start_at_zero(self.conv_out)  # training starts at the enlarged LR image

    def encode(self, reference: Tensor, reduced: Tensor) -> EncodedReference:
        """Encode a reference (B, 3, 4hr, 4wr) and the same reduced to a quarter, RGB in [0, 1]."""
        return EncodedReference(self.encoder.large(reduced), self.encoder(reference))

    def find(self, lr: Tensor, reference: EncodedReference) -> Textures:
        """Match an LR image (B, 3, h, w), RGB in [0, 1], whose sides fit blocks (`pad_to_blocks`)."""
        rows, columns = (side // BLOCK for side in lr.shape[-2:])
        features = self.encoder(lr)
        match = match_blocks(features[0], reference.reduced, (rows, columns))
        large, medium, small = reference.pyramid
        warped = transfer(large, match, 4), transfer(medium, match, 2), transfer(small, match, 1)
        return Textures(features, warped, match)

    def forward(self, inputs: MASAInputs, reused: Tensor | None = None) -> Tensor:
        """The tap F_rec (B, channels, 4h, 4w). reused: the first network's, where this one is the second."""
        textures = inputs.textures[self.number]
        return self.decoder(textures.lr, textures.warped, reused)

    def reconstruct(self, features: Tensor, inputs: MASAInputs) -> Tensor:
        """Features (B, channels, 4h, 4w) -> image (B, 3, 4h, 4w), RGB, about [0, 1], not clamped."""
        return self.conv_out(features) + inputs.base


class MASA(Network):
    """x4 super-resolution with one reference image, as MASA does it."""

    architecture, config_class = "masa", MASAConfig
    min_side = side_multiple = BLOCK
    max_references = 1

    def __init__(self, config: MASAConfig):
        super().__init__(config)
        self.aggregation = aggregation(lambda reuse: MASANetwork(config, reuse=reuse), config.reuse)

    @property
    def networks(self) -> list[MASANetwork]:
        """The one network, or both of the feature reuse framework."""
        both = self.aggregation
        networks = [both.first, both.second] if isinstance(both, FeatureReuse) else [both]
        return [network for network in networks if isinstance(network, MASANetwork)]

    def encode_reference(self, reference: Tensor, reference_reduced: Tensor | None = None) -> MASAReference:
        """Encode an image; borders are replicated to a multiple of 16.

        Args:
            reference: (B, 3, H, W), RGB in [0, 1], of any size.
            reference_reduced: the same at a quarter of its size, for sides that are multiples of 4; by default it is
                made by Pillow's bicubic interpolation, in 8 bits.

        Returns:
            Features at three scales.

        Raises:
            UserError: the two sizes do not belong together.
        """
        if reference_reduced is None:
            reference = pad_sides(reference, REFERENCE_MULTIPLE, REFERENCE_MULTIPLE)
            reference_reduced = reduce_8_bit(reference)
        sizes = [list(image.shape[-2:]) for image in (reference, reference_reduced)]
        if sizes[0] != [4 * side for side in sizes[1]]:
            raise UserError(f"reference_reduced must be a quarter of the reference, {sizes[0]}; it is {sizes[1]}.")
        return MASAReference(tuple(network.encode(reference, reference_reduced) for network in self.networks))

    def forward(
        self,
        lr: Tensor,
        references: Tensor | MASAReference | None = None,
        upsampled: Tensor | None = None,
        *,
        reference_reduced: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve, see `Network.forward`; without a reference the result is the enlarged LR image.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], of any size.
            references: an image (B, 3, H, W), or the result of `encode_reference`.
            upsampled: `lr` enlarged x4, which MASA needs only without a reference.
            reference_reduced: see `encode_reference`.

        Returns:
            The image (B, 3, 4h, 4w), not clamped, F_rec and what was matched.
        """
        height, width = (4 * side for side in lr.shape[-2:])
        if references is None:
            return SRResult(enlarge_8_bit(lr) if upsampled is None else upsampled)
        if isinstance(references, Tensor):
            references = self.encode_reference(references, reference_reduced)
        padded = pad_to_blocks(lr)
        base = F.interpolate(padded, scale_factor=4, mode="bicubic", align_corners=False)
        pairs = zip(self.networks, references.encoded, strict=True)
        inputs = MASAInputs(base, tuple(network.find(padded, encoded) for network, encoded in pairs))
        features = self.aggregation(inputs)
        image = self.aggregation.reconstruct(features, inputs)
        reduced = references.encoded[-1].reduced.shape[-2:]
        match = correspondence_of(inputs.textures[-1].match, reduced, lr.shape[-2:])
        return SRResult(image[..., :height, :width], features[..., :height, :width], match)


def pad_to_blocks(lr: Tensor) -> Tensor:
    """Replicate the right and bottom borders of (B, 3, h, w) until equal blocks of 8 pixels or a little more fit."""
    sides = [
        side if side >= BLOCK and side % 4 == 0 and side % (side // BLOCK) == 0 else BLOCK * ceil(side / BLOCK)
        for side in lr.shape[-2:]
    ]
    return F.pad(lr, (0, sides[1] - lr.shape[-1], 0, sides[0] - lr.shape[-2]), mode="replicate")


def from_published(checkpoint: Mapping[str, Any]) -> MASA:
    """Build the network of a published checkpoint.

    Args:
        checkpoint: state dict of MASA, wrapped or not. Sizes are read from the shapes.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: keys are missing or unknown, or shapes are others.
    """
    state = unwrap(checkpoint, "masa")
    blocks = {"encoder_blocks": "enc.blk_L{}.", "content_blocks": "decoder.blk_L{}.", "blocks": "decoder.blk_x{}."}
    numbers = {"encoder_blocks": (1, 2, 3), "content_blocks": (3, 2, 1), "blocks": (1, 2, 4)}
    counts = {name: tuple(count(state, key.format(n)) for n in numbers[name]) for name, key in blocks.items()}
    network = MASA(MASAConfig.published(channels=size(state, "enc.conv_L1.weight"), **counts))
    # Published for BGR images.
    for key, dimension in (("enc.conv_L1.weight", 1), ("decoder.conv_out.weight", 0), ("decoder.conv_out.bias", 0)):
        if key in state and state[key].dim() > dimension:
            state[key] = state[key].flip(dimension)
    load_published(network.aggregation, state, NAMES, "masa")
    return network.eval()
