"""TTSR: "Learning Texture Transformer Network for Image Super-Resolution" (Yang et al., CVPR 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from frfsr.atlas import Atlas, lay_out, relative
from frfsr.features import ReferencePyramid, VGGTrunk
from frfsr.network import Network, Rates, ReferenceFeatures, SRResult, enlarge_8_bit
from frfsr.peers.layers import conv, enlargement
from frfsr.peers.texture_transformer import (
    VGG19_LAYERS,
    ScaleMerge,
    ShallowFeatures,
    SoftAttention,
    Transferred,
    attend,
    blur,
    body_names,
    enlarge_attention,
    imagenet_normalisation,
    merge_names,
    require_constants,
    residual_body,
    transfer,
)
from frfsr.pixels import pad_sides
from frfsr.reuse import Aggregation, aggregation
from frfsr.settings import Depth, Width, from_mapping, settings
from frfsr.states import Names, State, count, load_published, size, unwrap


@settings
class TTSRConfig:
    """Sizes of the network; the defaults are the published ones.

    Attributes:
        channels: of the features at every scale.
        texture_channels: widths of the encoder's three stages; these are VGG19's.
        blocks: residual blocks of the shallow features, and of every body at one, two and three scales.
        reuse: whether the network takes the features of a first one.
    """

    channels: Width = 64
    texture_channels: tuple[Width, Width, Width] = (64, 128, 256)
    blocks: tuple[Depth, Depth, Depth, Depth] = (16, 16, 8, 4)
    reuse: bool = False


class Stage(nn.Module):
    """The features of every scale up to the one whose texture joins here: one of figure 4's three columns.

    Args:
        config: sizes.
        scales: their number.
        exchanged: the scales (0, 1, ...) that are integrated with the others before the residual blocks.
        reuse: whether the integration of the last one takes F_rec.
    """

    def __init__(self, config: TTSRConfig, scales: int, exchanged: Sequence[int], reuse: bool = False):
        super().__init__()
        channels = config.channels
        self.attention = SoftAttention(channels, config.texture_channels[3 - scales])
        self.exchange = nn.ModuleDict(
            {str(n): ScaleMerge(channels, n, scales, reuse and n == scales - 1) for n in exchanged}
        )
        self.bodies = nn.ModuleList(residual_body(channels, config.blocks[scales]) for _ in range(scales))

    def forward(
        self, features: Sequence[Tensor], texture: Tensor, attention: Tensor, reused: Tensor | None
    ) -> list[Tensor]:
        """Add T to the last of the features, then refine them all.

        Args:
            features: (B, channels, s*h, s*w), s = 1, 2, ...
            texture: T (B, t, s*h, s*w) of the last scale.
            attention: S of the LR size.
            reused: F_rec, where the stage takes it.

        Returns:
            Features of the same sizes.
        """
        features = [*features[:-1], self.attention(features[-1], texture, attention)]
        refined = []
        for n, (x, body) in enumerate(zip(features, self.bodies, strict=True)):
            exchanged = self.exchange[str(n)](features, reused) if str(n) in self.exchange else x
            refined.append(x + body(exchanged))
        return refined


class MainNet(Aggregation):
    """Cross-scale feature integration of the LR image's features and the textures (section 3.2, figure 4)."""

    exchanged: ClassVar[tuple[tuple[int, ...], ...]] = (
        (),
        (0, 1),
        (0, 1, 2),
    )  # scales that are integrated with the others in each stage

    def __init__(self, config: TTSRConfig, reuse: bool):
        super().__init__()
        channels = config.channels
        self.shallow = ShallowFeatures(channels, config.blocks[0])
        self.stages = nn.ModuleList(
            Stage(config, scales, exchanged, reuse and scales == 3)
            for scales, exchanged in enumerate(self.exchanged, 1)
        )
        self.enlarge = nn.ModuleList(self.enlarger(config, n) for n in range(2))
        self.merge = ScaleMerge(channels, target=2, scales=3)
        self.tail = nn.Sequential(conv(channels, channels // 2), conv(channels // 2, 3, kernel=1))

    def enlarger(self, config: TTSRConfig, n: int) -> nn.Module:
        """Make what enlarges the features before stage n + 1."""
        return enlargement(config.channels, nn.ReLU())

    def enlarged(self, x: Tensor, n: int, inputs: Transferred) -> Tensor:
        """Enlarge features (B, channels, s*h, s*w) before stage n + 1."""
        return self.enlarge[n](x)

    def forward(self, inputs: Transferred, reused: Tensor | None = None) -> Tensor:
        """Compute F_SR (B, channels, 4h, 4w), with F_rec of that shape where this is the second network."""
        features = [self.shallow(inputs.lr)]
        for n, (stage, texture) in enumerate(zip(self.stages, inputs.textures[::-1], strict=True)):
            if n > 0:
                features.append(self.enlarged(features[-1], n - 1, inputs))
            features = stage(features, texture, inputs.attention, reused)
        return self.merge(features)

    def reconstruct(self, features: Tensor, inputs: Transferred) -> Tensor:
        """Turn F_SR (B, channels, 4h, 4w) into the image (B, 3, 4h, 4w), RGB in [-1, 1]."""
        return self.tail(features).clamp(-1, 1)


class TTSR(Network):
    """The texture transformer (figure 2), and the network that takes its textures at three scales.

    With feature reuse the encoder is the first network's, frozen like it: both networks see the same textures.
    """

    architecture, config_class = "ttsr", TTSRConfig
    halo = 32
    main_class: ClassVar[type[MainNet]] = MainNet
    encoder_class: ClassVar[type[VGGTrunk]] = ReferencePyramid

    def __init__(self, config: TTSRConfig):
        super().__init__(config)
        self.encoder = self.encoder_class(config.texture_channels).requires_grad_(not config.reuse)
        self.main = aggregation(lambda reuse: self.main_class(config, reuse), config.reuse)

    def forward(
        self,
        lr: Tensor,
        references: Tensor | ReferenceFeatures | Sequence[ReferenceFeatures] | Atlas | None = None,
        upsampled: Tensor | None = None,
        *,
        reference_blurred: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve an image.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], any size.
            references: an image (B, 3, H, W), RGB in [0, 1], any size, or results of `encode_reference`, laid out by
                `frfsr.atlas.lay_out` or not. Without one the result is `upsampled`.
            upsampled: `lr` enlarged, (B, 3, 4h, 4w); by default by bicubic interpolation at 8 bits, as published.
            reference_blurred: the reference image reduced to a quarter and enlarged again; by default likewise.

        Returns:
            The image (B, 3, 4h, 4w), not clamped, F_rec and what was matched.
        """
        if upsampled is None:
            upsampled = enlarge_8_bit(lr)
        if references is None:
            return SRResult(upsampled)
        if isinstance(references, Tensor):
            references = self.encode_reference(references, reference_blurred)
        atlas = lay_out(references)
        inputs = self.transfer(lr, upsampled, atlas)
        features = self.main(inputs)
        image = self.main.reconstruct(features, inputs)
        return SRResult((image + 1) / 2, features, relative(inputs.correspondence, atlas))

    def encode_reference(self, reference: Tensor, reference_blurred: Tensor | None = None) -> ReferenceFeatures:
        """Encode a reference.

        Args:
            reference: (B, 3, H, W), RGB in [0, 1], any size; its borders are repeated up to a multiple of 4.
            reference_blurred: the same, reduced to a quarter and enlarged again; by default made here, at 8 bits.

        Returns:
            relu3_1 of the blurred reference for the matching, and all features of the sharp one.
        """
        reference = pad_sides(reference, 4, 4)
        blurred = blur(reference) if reference_blurred is None else pad_sides(reference_blurred, 4, 4)
        return ReferenceFeatures(self.matching_features(blurred), self.encoder(reference.detach()))

    def matching_features(self, image: Tensor) -> Tensor:
        """Compute relu3_1 (B, C3, h, w) of an image (B, 3, 4h, 4w), which gets no gradient thereby."""
        return self.encoder(image.detach())[2][:, : self.config.texture_channels[2]]

    def transfer(self, lr: Tensor, upsampled: Tensor, atlas: Atlas) -> Transferred:
        """Find S and T for the LR image (B, 3, h, w) by what the encoder sees enlarged, (B, 3, 4h, 4w)."""
        correspondence, attention = attend(self.matching_features(upsampled), atlas)
        levels = zip(atlas.pyramid, (4, 2, 1), self.config.texture_channels, strict=True)
        found = [
            transfer(feature, correspondence.flow, scale).split([width, feature.shape[1] - width], dim=1)
            for feature, scale, width in levels
        ]
        textures, details = zip(*found, strict=True)
        return Transferred(2 * lr - 1, attention, textures, details, correspondence)

    def parameter_groups(self, rates: Rates) -> list[dict[str, Any]]:
        """Train the encoder at a tenth of the main rate, as published, unless `rates.parts` says otherwise."""
        return super().parameter_groups(replace(rates, parts={"encoder": rates.main / 10} | rates.parts))


def transferal_perceptual_loss(
    network: TTSR, image: Tensor, transferred: Transferred, norm: Literal["l1", "l2"] = "l2", weighted: bool = False
) -> Tensor:
    """Measure how far the result's texture features are from the transferred ones (section 3.3), mean over the scales.

    Args:
        network: whose encoder sees the result; it gets no gradient thereby.
        image: the result (B, 3, 4h, 4w), RGB in [0, 1].
        transferred: S and T by which it was made.
        norm: mean absolute (l1) or mean square (l2) difference.
        weighted: weight both sides by the sigmoid of S.

    Returns:
        A scalar.
    """
    frozen = {name: value.detach() for name, value in network.encoder.named_parameters()}
    found = functional_call(network.encoder, frozen, image)
    distance = {"l1": F.l1_loss, "l2": F.mse_loss}[norm]
    losses = []
    for feature, texture, scale in zip(found, transferred.textures, (4, 2, 1), strict=True):
        weight = enlarge_attention(transferred.attention, scale).sigmoid() if weighted else 1
        losses.append(distance(weight * feature, weight * texture))
    return torch.stack(losses).mean()


def names(network: TTSR) -> Names:
    """Name the network's modules as published; the main network's where feature reuse is off."""
    shallow, *depths = network.config.blocks
    main = {"shallow.head": "SFE.conv_head", "tail.0": "merge_tail.conv_tail1", "tail.1": "merge_tail.conv_tail2"}
    main |= body_names("shallow.body", "SFE.RBs", "SFE.conv_tail", shallow)
    main |= merge_names("merge", "merge_tail", "conv_merge", target=2, scales=3)
    main |= {"enlarge.0.0": "conv12", "enlarge.1.0": "conv23"}
    for scales, depth in enumerate(depths, 1):
        ours = f"stages.{scales - 1}"
        main[f"{ours}.attention.conv"] = f"conv{scales}{scales}_head"
        for n in range(scales):
            main |= body_names(f"{ours}.bodies.{n}", f"RB{scales}{n + 1}", f"conv{scales}{n + 1}_tail", depth)
        for n in network.main_class.exchanged[scales - 1]:
            theirs = f"ex{'123'[:scales]}"
            main |= merge_names(f"{ours}.exchange.{n}", theirs, f"conv_merge{n + 1}", n, scales)
    slices = {"conv1_1": "slice1", "conv1_2": "slice2", "conv2_1": "slice2", "conv2_2": "slice3", "conv3_1": "slice3"}
    encoder = {f"encoder.{ours}": f"LTE.{part}.{VGG19_LAYERS[ours]}" for ours, part in slices.items()}
    return encoder | {f"main.{ours}": f"MainNet.{theirs}" for ours, theirs in main.items()}


def sizes(state: State, stages: Sequence[str] = ("slice1.0", "slice2.5", "slice3.10")) -> TTSRConfig:
    """Read the sizes that a checkpoint's shapes tell; stages: the first convolutions of the encoder's three stages."""
    depths = tuple(count(state, f"MainNet.{blocks}.") for blocks in ("SFE.RBs", "RB11", "RB21", "RB31"))
    widths = tuple(size(state, f"LTE.{layer}.weight") for layer in stages)
    channels = size(state, "MainNet.conv11_head.weight")
    return from_mapping(TTSRConfig, {"channels": channels, "texture_channels": widths, "blocks": depths})


def from_published(checkpoint: Mapping[str, Any]) -> TTSR:
    """Make the network of a published checkpoint, in evaluation mode.

    Raises:
        UserError: the checkpoint is another network's; the line names the keys.
    """
    state = unwrap(checkpoint, "ttsr")
    require_constants(state, imagenet_normalisation(), "ttsr")
    network = TTSR(sizes(state))
    load_published(network, state, names(network), "ttsr", unused=("LTE.sub_mean.", "LTE_copy."))
    return network.eval()
