"""SSEN (Shim et al., CVPR 2020), after an unofficial implementation.

No official code of "Robust Reference-based Super-Resolution with Similarity-Aware Deformable Convolution" is known; the
choices beyond the paper are the implementation's author's. It searches nothing: the reference is aligned by learned
offsets alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from frfsr.kernels import deform_conv
from frfsr.network import Network, SRResult, enlarge_8_bit
from frfsr.peers.layers import conv
from frfsr.pixels import fit_sides, pad_sides
from frfsr.reuse import Aggregation, aggregation
from frfsr.settings import Depth, Width, settings
from frfsr.states import Names, State, count, load_published, size, unwrap

TAPS = 9  # of a 3x3 convolution


@settings
class SSENConfig:
    """Sizes of the network; the defaults are the implementation's.

    Attributes:
        channels: of all features.
        offset_channels: of the offset estimators.
        attention_channels: of the keys and values of their non-local blocks.
        stages: deformable convolutions in a row.
        blocks: residual blocks of the feature extractor, and of the reconstruction.
        mode: how an offset estimator joins a non-local block's result and the finer features.
        reuse: whether the network takes the features of a first one.
    """

    channels: Width = 64
    offset_channels: Width = 64
    attention_channels: Width = 32
    stages: Depth = 3
    blocks: tuple[Depth, Depth] = (5, 16)
    mode: Literal["add", "concat"] = "add"
    reuse: bool = False


class SSENReference(NamedTuple):
    """What the network needs of a reference image.

    Attributes:
        features: (B, channels, H/4, W/4).
        corner: row and column of the LR image's first pixel in the photo, of which it may be a tile.
    """

    features: Tensor
    corner: tuple[int, int] = (0, 0)


class Aligned(NamedTuple):
    """Features (B, channels, h, w) of the LR image, and those of the reference aligned with them."""

    lr: Tensor
    reference: Tensor


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))) without biases, (B, channels, h, w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, bias=False), conv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return x + self.conv2(F.relu(self.conv1(x)))


class NonLocalBlock(nn.Module):
    """x + what it attends to everywhere: softmax of the products with the keys, which are pooled to a half.

    The product is not scaled; the norm of the result starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, attention_channels: int):
        super().__init__()
        self.query, self.key, self.value = (conv(channels, attention_channels, 1) for _ in range(3))
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.out = nn.Sequential(conv(attention_channels, channels, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within features (B, channels, h, w), h, w >= 2."""
        query, key, value = self.query(x), F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        query, key, value = (rearrange(y, "b c h w -> b 1 (h w) c") for y in (query, key, value))
        found = F.scaled_dot_product_attention(query, key, value, scale=1)
        return x + self.out(rearrange(found, "b 1 (h w) c -> b c h w", h=x.shape[-2]))


class OffsetEstimator(nn.Module):
    """The dynamic offset estimator: [LR, reference] features -> features of offsets, (B, 2 * channels, h, w).

    Down to an eighth, and back through a non-local block at each scale.
    """

    def __init__(self, config: SSENConfig):
        super().__init__()
        pair, channels = 2 * config.channels, config.offset_channels
        self.join = config.mode
        self.down = nn.ModuleList(conv(before, channels, stride=2) for before in (pair, channels, channels))
        self.attention = nn.ModuleList(NonLocalBlock(channels, config.attention_channels) for _ in range(3))
        joined = 2 * channels if config.mode == "concat" else channels
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(joined, channels, 3, stride=2, padding=1, output_padding=1) for _ in range(3)
        )
        self.out = conv(channels, pair)

    def forward(self, x: Tensor) -> Tensor:
        """Run it for sides that are multiples of 8, at least 16."""
        skips = []
        for down in self.down:
            x = F.leaky_relu(down(x), 0.01)
            skips.append(x)
        for attention, up, skip in zip(self.attention, self.up, reversed(skips), strict=True):
            found = attention(x)
            x = F.leaky_relu(up(torch.cat([found, skip], 1) if self.join == "concat" else found + skip), 0.01)
        return self.out(x)


class DeformableStage(nn.Module):
    """A deformable convolution of the reference's features, whose offsets are learned from both images'."""

    def __init__(self, config: SSENConfig):
        super().__init__()
        self.estimator = OffsetEstimator(config)
        self.offset = conv(2 * config.channels, 2 * TAPS)
        self.weight = nn.Parameter(conv(config.channels, config.channels, bias=False).weight.detach())

    def forward(self, lr: Tensor, reference: Tensor) -> Tensor:
        """Align the features of the reference with those of the LR image, both (B, channels, h, w)."""
        offset = self.offset(self.estimator(torch.cat([lr, reference], 1)))
        mask = torch.ones_like(offset[:, :TAPS])
        return deform_conv(reference, offset, mask, self.weight)


class Reconstruction(Aggregation):
    """What follows the alignment; with `reuse` F_rec joins the features that it starts from."""

    def __init__(self, config: SSENConfig, reuse: bool):
        super().__init__()
        channels = config.channels
        shuffle = "b (c i j) h w -> b c (h i) (w j)"
        self.fusion = conv((2 + reuse) * channels, channels, 1, bias=False)
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(config.blocks[1])))
        self.up = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (conv(channels, 4 * channels, bias=False), Rearrange(shuffle, i=2, j=2))
            )
        )
        self.last = conv(channels, 3, bias=False)

    def forward(self, inputs: Aligned, reused: Tensor | None = None) -> Tensor:
        """Compute F_SR (B, channels, h, w), with F_rec of that shape where this is the second network."""
        injected = [] if reused is None else [reused]
        return self.body(self.fusion(torch.cat([*inputs, *injected], 1))) + inputs.lr

    def reconstruct(self, features: Tensor, inputs: Aligned) -> Tensor:
        """Turn F_SR (B, channels, h, w) into the image (B, 3, 4h, 4w), RGB in about [0, 1]."""
        return self.last(self.up(features))


class SSEN(Network):
    """Similarity search and extraction by deformable convolutions in a row, then residual blocks at the LR size.

    With feature reuse everything up to the aligned features is the first network's, frozen like it.
    """

    architecture, config_class = "ssen", SSENConfig
    min_side, side_multiple = 16, 8
    halo = 32
    max_references = 1
    takes_views = False

    def __init__(self, config: SSENConfig):
        super().__init__(config)
        channels = config.channels
        self.reduce_reference = nn.Sequential(
            conv(3, channels, stride=2, bias=False), conv(channels, channels, stride=2, bias=False)
        )
        self.widen_lr = conv(3, channels, 1, bias=False)
        self.extractor = nn.Sequential(*(ResidualBlock(channels) for _ in range(config.blocks[0])))
        self.stages = nn.ModuleList(DeformableStage(config) for _ in range(config.stages))
        self.requires_grad_(not config.reuse)
        self.reconstruction = aggregation(lambda reuse: Reconstruction(config, reuse), config.reuse)

    def forward(
        self,
        lr: Tensor,
        references: Tensor | SSENReference | None = None,
        upsampled: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve an image.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], any size.
            references: an image (B, 3, H, W), RGB in [0, 1], or the result of `encode_reference`. It is cut, or its
                border repeated, at the right and bottom to the size of the result. Without one the result is the
                enlarged LR image.
            upsampled: that image, (B, 3, 4h, 4w); by default by bicubic interpolation at 8 bits.

        Returns:
            The image (B, 3, 4h, 4w), not clamped.
        """
        height, width = lr.shape[-2:]
        if references is None:
            return SRResult(enlarge_8_bit(lr) if upsampled is None else upsampled)
        if isinstance(references, Tensor):
            references = self.encode_reference(references)
        inputs = self.align(pad_sides(lr, self.min_side, self.side_multiple), references)
        features = self.reconstruction(inputs)
        image = self.reconstruction.reconstruct(features, inputs)
        return SRResult(image[..., : 4 * height, : 4 * width], features[..., :height, :width])

    def encode_reference(self, reference: Tensor) -> SSENReference:
        """Encode a reference (B, 3, H, W), RGB in [0, 1]; its borders are repeated as those of an LR image are."""
        reference = pad_sides(reference, 4 * self.min_side, 4 * self.side_multiple)
        return SSENReference(self.extractor(self.reduce_reference(reference)))

    def align(self, lr: Tensor, reference: SSENReference) -> Aligned:
        """Align the reference's features with those of the LR image (B, 3, h, w)."""
        features = self.extractor(self.widen_lr(lr))
        aligned = fit_sides(reference.features, lr.shape[-2:], reference.corner)
        for stage in self.stages:
            aligned = stage(features, aligned)
        return Aligned(features, aligned)

    def watched(self) -> Iterable[nn.Module]:
        """See `Network.watched`."""
        return [stage.get_submodule("offset") for stage in self.stages]


def names(network: SSEN) -> Names:
    """Name the network's modules as published."""
    found = {"reduce_reference": "downsampling_network", "widen_lr": "lrfeature_scaler"}
    found |= {"extractor": "feature_extractor", "reconstruction.fusion": "preprocessing_residual_block"}
    found |= {"reconstruction.body": "residual_blocks", "reconstruction.up": "upscaling_4x"}
    found["reconstruction.last"] = "outconv"
    blocks = {"query": "theta", "key": "phi.0", "value": "g.0", "out": "W"}
    for n in range(network.config.stages):
        ours, theirs = f"stages.{n}", f"SSEN_Network.deformblock{n + 1}"
        estimator = f"{theirs}.offset_estimator"
        found |= {f"{ours}.offset": f"{theirs}.offset_conv", f"{ours}.weight": f"{theirs}.deformconv.weight"}
        found[f"{ours}.estimator.out"] = f"{estimator}.channelscaling_block"
        for i in range(3):
            found |= {f"{ours}.estimator.{way}.{i}": f"{estimator}.{way}block{i + 1}.0" for way in ("down", "up")}
            attention = f"{estimator}.attentionblock{i + 1}"
            found |= {f"{ours}.estimator.attention.{i}.{k}": f"{attention}.{v}" for k, v in blocks.items()}
    return found


def sizes(state: State) -> SSENConfig:
    """Read the sizes that a checkpoint's shapes tell."""
    estimator = "SSEN_Network.deformblock1.offset_estimator"
    offset_channels = size(state, f"{estimator}.downblock1.0.weight")
    return SSENConfig(
        channels=size(state, "lrfeature_scaler.weight"),
        offset_channels=offset_channels,
        attention_channels=size(state, f"{estimator}.attentionblock1.theta.weight"),
        stages=count(state, "SSEN_Network.deformblock"),
        blocks=(count(state, "feature_extractor."), count(state, "residual_blocks.")),
        mode="concat" if size(state, f"{estimator}.upblock1.0.weight") == 2 * offset_channels else "add",
    )


def from_published(checkpoint: Mapping[str, Any]) -> SSEN:
    """Make the network of a checkpoint of that implementation, in evaluation mode.

    Raises:
        UserError: the checkpoint is another network's; the line names the keys.
    """
    state = unwrap(checkpoint, "ssen")
    network = SSEN(sizes(state))
    load_published(network, state, names(network), "ssen")
    return network.eval()
