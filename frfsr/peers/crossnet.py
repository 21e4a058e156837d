"""CrossNet: reference-based super-resolution "using Cross-scale Warping" (Zheng et al., ECCV 2018).

It searches nothing: LR image and reference must show the same scene from nearby, at the same scale.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from frfsr.kernels import flow_warp
from frfsr.network import Network, SRResult, enlarge_8_bit
from frfsr.peers.layers import conv
from frfsr.pixels import fit_sides, pad_sides
from frfsr.reuse import Aggregation, aggregation
from frfsr.settings import Width, from_mapping, settings
from frfsr.states import Names, State, load_published, size, unwrap

SIDE_MULTIPLE = 64  # of the enlarged LR image: the flow network halves six times

# The published flow network: its convolutions at each scale, from 1/2 to 1/64.
FLOW_CONVOLUTIONS = (
    ("conv1",),
    ("conv2",),
    ("conv3", "conv3_1"),
    ("conv4", "conv4_1"),
    ("conv5", "conv5_1"),
    ("conv6", "conv6_1"),
)
FLOW_KERNELS = (7, 5, 5, 3, 3, 3)  # of the first convolution of each


@settings
class CrossNetConfig:
    """Sizes of the network; the defaults are the published ones.

    Attributes:
        channels: of the image features and the decoder.
        flow_channels: of the flow network's features at 1/2, 1/4, ... 1/64.
        refine_channels: of what comes back to 1/32, 1/16, ... 1/1.
        full_channels: of the flow network's last features, at full size.
        reuse: whether the network takes the features of a first one.
    """

    channels: Width = 64
    flow_channels: tuple[Width, Width, Width, Width, Width, Width] = (64, 128, 256, 512, 512, 1024)
    refine_channels: tuple[Width, Width, Width, Width, Width, Width] = (256, 256, 128, 64, 64, 64)
    full_channels: Width = 16
    reuse: bool = False


class CrossNetReference(NamedTuple):
    """A reference image.

    Attributes:
        image: (B, 3, H, W), RGB in [0, 1].
        corner: row and column of the LR image's first pixel in the photo, of which it may be a tile.
    """

    image: Tensor
    corner: tuple[int, int] = (0, 0)


class Warped(NamedTuple):
    """What the decoder fuses.

    Attributes:
        own: features of the super-resolved image (B, channels, H/s, W/s) for s = 1, 2, 4, 8.
        reference: those of the reference, warped to it.
    """

    own: tuple[Tensor, ...]
    reference: tuple[Tensor, ...]


def warp(feature: Tensor, flow: Tensor) -> Tensor:
    """Sample a feature at every pixel's position plus flow, bilinearly; positions outside move to the border.

    Args:
        feature: (B, C, h, w).
        flow: (B, 2, h, w), displacement (x, y) in pixels; it gets no gradient where a position lies outside.

    Returns:
        (B, C, h, w).
    """
    height, width = feature.shape[-2:]
    flow = rearrange(flow, "b xy h w -> b h w xy").to(torch.promote_types(flow.dtype, torch.float32))
    y, x = (torch.arange(side, dtype=flow.dtype, device=flow.device) for side in (height, width))
    position = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    inside = (position + flow).clamp(min=0).minimum(flow.new_tensor([width - 1, height - 1]))
    return flow_warp(feature, inside - position)


def conv_up(channels: int, features: int) -> nn.ConvTranspose2d:
    """Make a transposed convolution that doubles the size."""
    return nn.ConvTranspose2d(channels, features, 4, stride=2, padding=1)


class FlowNet(nn.Module):
    """The flow from the LR image to the reference: down to 1/64, and back with a flow at every scale."""

    def __init__(self, config: CrossNetConfig):
        super().__init__()
        self.down = nn.ModuleList()
        before = 6  # two images
        for channels, kernel, convolutions in zip(config.flow_channels, FLOW_KERNELS, FLOW_CONVOLUTIONS, strict=True):
            level = nn.Sequential(conv(before, channels, kernel, stride=2), nn.LeakyReLU(0.1))
            if len(convolutions) == 2:
                level.extend([conv(channels, channels, 3), nn.LeakyReLU(0.1)])
            self.down.append(level)
            before = channels
        self.heads, self.flow_up, self.feature_up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for skip, channels in zip((*config.flow_channels[-2::-1], 3), config.refine_channels, strict=True):
            self.heads.append(conv(before, 2, 3))
            self.flow_up.append(conv_up(2, 2))
            self.feature_up.append(nn.Sequential(conv_up(before, channels), nn.LeakyReLU(0.1)))
            before = skip + channels + 2
        full = config.full_channels
        self.full = nn.Sequential(conv(before, full, 7), nn.SELU(), conv(full, full, 7), nn.SELU(), conv(full, 2, 3))

    def forward(self, image: Tensor, reference: Tensor) -> list[Tensor]:
        """Find the flow of an enlarged LR image (B, 3, H, W), RGB in [0, 1].

        Args:
            image: the enlarged LR image.
            reference: an image of the same size.

        Returns:
            (B, 2, H/s, W/s) for s = 1, 2, 4, 8: displacement (x, y), in pixels of that scale, to the reference.
        """
        x, skips = torch.cat([image, reference], 1), [reference]
        for level in self.down:
            x = level(x)
            skips.append(x)
        flows = []
        steps = zip(skips[-2::-1], self.heads, self.flow_up, self.feature_up, strict=True)
        for skip, head, flow_up, feature_up in steps:
            flows.append(head(x))
            x = torch.cat([skip, feature_up(x), flow_up(flows[-1])], 1)
        return [self.full(x), *flows[:-4:-1]]


class Encoder(nn.Module):
    """Image (B, 3, H, W), RGB in [0, 1] -> features (B, channels, H/s, W/s) for s = 1, 2, 4, 8."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Sequential(conv(3, channels, 5), nn.SELU())
        self.levels = nn.ModuleList(
            nn.Sequential(conv(channels, channels, 5, stride), nn.SELU()) for stride in (1, 2, 2, 2)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run it."""
        x, features = self.first(image), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return tuple(features)


class Decoder(Aggregation):
    """The fusion decoder: features of both images -> F_SR; with `reuse` F_rec joins where the full size is fused."""

    def __init__(self, channels: int, reuse: bool):
        super().__init__()
        self.up = nn.ModuleList(nn.Sequential(conv_up(n * channels, channels), nn.SELU()) for n in (2, 3, 3))
        self.fusion = nn.Sequential(conv((3 + reuse) * channels, channels, 5), nn.SELU())
        self.final = conv(channels, 3, 5)

    def forward(self, inputs: Warped, reused: Tensor | None = None) -> Tensor:
        """Compute F_SR (B, channels, H, W), with F_rec of that shape where this is the second network."""
        *coarse, full = reversed(list(zip(inputs.own, inputs.reference, strict=True)))
        coarser: list[Tensor] = []
        for features, up in zip(coarse, self.up, strict=True):
            coarser = [up(torch.cat([*coarser, *features], 1))]
        injected = [] if reused is None else [reused]
        return self.fusion(torch.cat([*coarser, *full, *injected], 1))

    def reconstruct(self, features: Tensor, inputs: Warped) -> Tensor:
        """Turn F_SR (B, channels, H, W) into the image (B, 3, H, W), RGB in about [0, 1]."""
        return self.final(features)


class CrossNet(Network):
    """Features of the reference, warped by a learned flow at four scales, and fused with those of the LR image.

    With feature reuse the flow network and the encoder are the first network's, frozen like it.
    """

    architecture, config_class = "crossnet", CrossNetConfig
    side_multiple = SIDE_MULTIPLE // 4
    halo = 32
    max_references = 1
    takes_views = False
    refines = "super_resolved"

    def __init__(self, config: CrossNetConfig):
        super().__init__(config)
        self.flow = FlowNet(config).requires_grad_(not config.reuse)
        self.encoder = Encoder(config.channels).requires_grad_(not config.reuse)
        self.decoder = aggregation(lambda reuse: Decoder(config.channels, reuse), config.reuse)

    def forward(
        self,
        lr: Tensor,
        references: Tensor | CrossNetReference | None = None,
        upsampled: Tensor | None = None,
        *,
        super_resolved: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve an image.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], any size.
            references: an image (B, 3, H, W), RGB in [0, 1], or the result of `encode_reference`. It is cut, or its
                border repeated, at the right and bottom to the size of the result. Without one the result is
                `super_resolved`.
            upsampled: `lr` enlarged, (B, 3, 4h, 4w), from which the flow is taken; by default by bicubic
                interpolation at 8 bits.
            super_resolved: another network's x4 image, whose features are refined; by default `upsampled`.

        Returns:
            The image (B, 3, 4h, 4w), not clamped.
        """
        height, width = (4 * side for side in lr.shape[-2:])
        if upsampled is None:
            upsampled = enlarge_8_bit(lr)
        if super_resolved is None:
            super_resolved = upsampled
        if references is None:
            return SRResult(super_resolved)
        upsampled, super_resolved = (pad_sides(image, 1, SIDE_MULTIPLE) for image in (upsampled, super_resolved))
        if isinstance(references, Tensor):
            references = self.encode_reference(references)
        top, left = references.corner
        reference = fit_sides(references.image, upsampled.shape[-2:], (4 * top, 4 * left))
        inputs = self.warp(upsampled, super_resolved, reference)
        features = self.decoder(inputs)
        image = self.decoder.reconstruct(features, inputs)
        return SRResult(image[..., :height, :width], features[..., :height, :width])

    def encode_reference(self, reference: Tensor) -> CrossNetReference:
        """Keep a reference (B, 3, H, W), RGB in [0, 1]: every LR image needs the features of its own place in it."""
        return CrossNetReference(reference)

    def warp(self, upsampled: Tensor, super_resolved: Tensor, reference: Tensor) -> Warped:
        """Bring the reference's features to their places in the image; all (B, 3, H, W), sides multiples of 64."""
        own = self.encoder(super_resolved)
        features = zip(self.encoder(reference), self.flow(upsampled, reference), strict=True)
        return Warped(own, tuple(warp(feature, flow) for feature, flow in features))


def names(network: CrossNet) -> Names:
    """Name the network's modules as published."""
    found = {"encoder.first": "Encoder.layer_f", "decoder.fusion": "UNet_decoder_2.post_fusion1"}
    found |= {"decoder.final": "UNet_decoder_2.final.0"}
    found |= {f"encoder.levels.{n}": f"Encoder.conv{n + 1}" for n in range(4)}
    found |= {f"decoder.up.{n}": f"UNet_decoder_2.warp_deconv{4 - n}" for n in range(3)}
    for n, convolutions in enumerate(FLOW_CONVOLUTIONS):
        found |= {f"flow.down.{n}.{2 * i}": f"FlowNet.{name}.0" for i, name in enumerate(convolutions)}
        found |= {f"flow.heads.{n}": f"FlowNet.flow{6 - n}.0", f"flow.flow_up.{n}": f"FlowNet.flow{6 - n}_up"}
        found[f"flow.feature_up.{n}"] = f"FlowNet.deconv{5 - n}"
    last = ("concat0_conv1", "concat0_conv2", "flow_12")
    return found | {f"flow.full.{2 * n}": f"FlowNet.{name}.0" for n, name in enumerate(last)}


def sizes(state: State) -> CrossNetConfig:
    """Read the sizes that a checkpoint's shapes tell."""
    found = {
        "channels": size(state, "Encoder.layer_f.0.weight"),
        "flow_channels": tuple(size(state, f"FlowNet.{name}.0.weight") for *_, name in FLOW_CONVOLUTIONS),
        "refine_channels": tuple(size(state, f"FlowNet.deconv{n}.0.bias") for n in range(5, -1, -1)),
        "full_channels": size(state, "FlowNet.concat0_conv1.0.weight"),
    }
    return from_mapping(CrossNetConfig, found)


def from_published(checkpoint: Mapping[str, Any]) -> CrossNet:
    """Make the network of a published checkpoint, in evaluation mode.

    Raises:
        UserError: the checkpoint is another network's; the line names the keys.
    """
    state = unwrap(checkpoint, "crossnet")
    network = CrossNet(sizes(state))
    load_published(network, state, names(network), "crossnet", unused=("UNet_decoder_2.post_fusion2.",))
    return network.eval()
