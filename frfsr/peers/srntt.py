"""SRNTT: "Image Super-Resolution by Neural Texture Transfer" (Zhang et al., CVPR 2019), in its PyTorch port's form."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from frfsr.features import ReferencePyramid
from frfsr.kernels import flow_warp, patch_argmax
from frfsr.matching import enlarge_flow, index_to_flow
from frfsr.network import Correspondence, Network, ReferenceFeatures, SRResult, enlarge_8_bit, reduce_8_bit
from frfsr.peers.layers import conv, enlargement, residual_blocks
from frfsr.pixels import pad_sides
from frfsr.published import VGG_UNUSED, vgg_names
from frfsr.reuse import Aggregation, FeatureReuse, aggregation
from frfsr.settings import Depth, Width, settings
from frfsr.states import Names, State, count, load_published, size, unwrap_parts

PARTS = ("net_g", "vgg")
LEAST_SIDE = 3  # LR pixels of the query and of the reference: a patch
OUTSIDE = 2.0**20  # LR pixels: a flow that leaves every reference
SLOPE = 0.1  # of the leaky ReLUs
SCALES = (4, 2, 1)  # of the textures, over LR pixels


@settings
class SRNTTConfig:
    """Sizes of SRNTT.

    Attributes:
        channels: of all features but the reference's.
        blocks: residual blocks of the content extractor and of each of the three scales.
        texture_channels: of relu1_1, relu2_1 and relu3_1 of VGG19.
        weighted: textures count as much as they matched well.
        reuse: a second network takes the features of the first.
    """

    channels: Width = 64
    blocks: Depth = 16
    texture_channels: tuple[Width, Width, Width] = (64, 128, 256)
    weighted: bool = False
    reuse: bool = False


class Swapped(NamedTuple):
    """What the texture transfer works on.

    Attributes:
        lr: (B, 3, h, w), RGB in [0, 1].
        textures: the reference's features where they matched, (B, C_i, ...) at 4h x 4w, 2h x 2w and h x w (`SCALES`).
        score: cosine of the matched patches, (B, h - 2, w - 2), -1 ... 1.
    """

    lr: Tensor
    textures: Sequence[Tensor]
    score: Tensor


def match(query: Tensor, key: Tensor) -> Correspondence:
    """Find for every 3x3 patch of `query` (B, C, h, w) the most similar one of `key` (B, C, hr, wr), both >= 3x3.

    Only patches wholly inside take part: score (B, h - 2, w - 2) and flow (B, h - 2, w - 2, 2) belong to their centres.
    """
    score, index = patch_argmax(query, key)
    return Correspondence(score, index_to_flow(index, key.shape[-1] - 2), index)


def swap(feature: Tensor, flow: Tensor, scale: int) -> Tensor:
    """Put the matched patches of the reference in the place of the query's; where they overlap, their mean counts.

    Args:
        feature: of the reference, (B, C, scale * hr, scale * wr).
        flow: (B, h - 2, w - 2, 2), displacement (x, y) of every patch, whole numbers.
        scale: pixels of `feature` in one of `flow`.

    Returns:
        (B, C, scale * h, scale * w).
    """
    height, width = (side + 2 for side in flow.shape[1:3])
    padded = F.pad(flow, (0, 0, 2, 2, 2, 2), value=OUTSIDE)
    patches = (padded[:, y : y + height, x : x + width] for y, x in product(range(3), repeat=2))
    total = sum(flow_warp(feature, enlarge_flow(patch, scale)) for patch in patches)
    covered = F.pad(feature.new_ones(1, 1, height - 2, width - 2), (2, 2, 2, 2))
    covering = F.avg_pool2d(covered, 3, stride=1, divisor_override=1)
    return total / repeat(covering, "1 1 h w -> 1 1 (h i) (w j)", i=scale, j=scale)


class ContentExtractor(nn.Module):
    """LR image (B, 3, h, w) -> features (B, channels, h, w), of which `tail` makes a plain x4 residual image."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.head = conv(3, channels)
        self.body = residual_blocks(channels, blocks)
        self.tail = nn.Sequential(
            enlargement(channels, nn.LeakyReLU(SLOPE)),
            enlargement(channels, nn.LeakyReLU(SLOPE)),
            conv(channels, channels),
            nn.LeakyReLU(SLOPE),
            conv(channels, 3),
        )

    def forward(self, lr: Tensor) -> Tensor:
        """Extract the features."""
        x = F.leaky_relu(self.head(lr), SLOPE)
        return x + self.body(x)


class TextureTransfer(nn.Module):
    """One scale: x + Blocks(Conv([x, texture])), (B, channels, H, W). With `reuse`, F_rec is joined too."""

    def __init__(self, channels: int, texture_channels: int, blocks: int, reuse: bool = False):
        super().__init__()
        self.head = conv((1 + reuse) * channels + texture_channels, channels)
        self.body = residual_blocks(channels, blocks)

    def forward(self, x: Tensor, texture: Tensor, reused: Tensor | None = None) -> Tensor:
        """Transfer the texture, and F_rec (B, channels, H, W) if the scale reuses it."""
        joined = [x, texture] if reused is None else [x, texture, reused]
        return x + self.body(F.leaky_relu(self.head(torch.cat(joined, 1)), SLOPE))


class TextureNet(Aggregation):
    """All that is trained: the content extractor and the texture transfer (figure 2 of the paper)."""

    def __init__(self, config: SRNTTConfig, reuse: bool):
        super().__init__()
        channels, blocks, (large, medium, small) = config.channels, config.blocks, config.texture_channels
        self.content = ContentExtractor(channels, blocks)
        self.small = TextureTransfer(channels, small, blocks)
        self.enlarge_small = enlargement(channels, nn.LeakyReLU(SLOPE))
        self.medium = TextureTransfer(channels, medium, blocks)
        self.enlarge_medium = enlargement(channels, nn.LeakyReLU(SLOPE))
        self.large = TextureTransfer(channels, large, blocks, reuse)
        self.tail = nn.Sequential(conv(channels, channels // 2), nn.LeakyReLU(SLOPE), conv(channels // 2, 3))
        self.a = nn.Parameter(torch.ones(3)) if config.weighted else None
        self.b = nn.Parameter(torch.ones(3)) if config.weighted else None

    def forward(self, swapped: Swapped, reused: Tensor | None = None) -> Tensor:
        """LR image and textures, and F_rec of another network -> the features F_SR, both (B, channels, 4h, 4w)."""
        large, medium, small = self.weigh(swapped)
        x = self.enlarge_small(self.small(self.content(swapped.lr), small))
        x = self.enlarge_medium(self.medium(x, medium))
        return self.large(x, large, reused)

    def weigh(self, swapped: Swapped) -> Sequence[Tensor]:
        """Multiply the textures by sigmoid(a * score + b), with a and b of each scale, if the network has them."""
        if self.a is None or self.b is None:
            return swapped.textures
        score = F.pad(swapped.score[:, None], (1, 1, 1, 1), mode="replicate").to(self.a)
        scores = (F.interpolate(score, scale_factor=scale, mode="bicubic", align_corners=True) for scale in SCALES)
        weights = [
            torch.sigmoid(a * score + b) for a, b, score in zip(self.a.flip(0), self.b.flip(0), scores, strict=True)
        ]
        return [texture * weight for texture, weight in zip(swapped.textures, weights, strict=True)]

    def reconstruct(self, features: Tensor, swapped: Swapped) -> Tensor:
        """F_SR -> the image (B, 3, 4h, 4w)."""
        return self.tail(features) + bilinear(swapped.lr)

    def single_image(self, lr: Tensor) -> Tensor:
        """LR image (B, 3, h, w) -> the content extractor's own (B, 3, 4h, 4w)."""
        return self.content.tail(self.content(lr)) + bilinear(lr)


def bilinear(lr: Tensor) -> Tensor:
    """Enlarge (B, 3, h, w) x4."""
    return F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)


class SRNTT(Network):
    """x4 super-resolution by swapping VGG19's features of the image for the reference's, at three scales."""

    architecture = "srntt"
    config_class = SRNTTConfig
    min_side = LEAST_SIDE
    max_references = 1
    texture_net: ClassVar[type] = TextureNet

    def __init__(self, config: Any):
        super().__init__(config)
        self.vgg = ReferencePyramid(config.texture_channels).requires_grad_(False)
        self.aggregation = aggregation(lambda reuse: self.texture_net(config, reuse), config.reuse)

    def forward(
        self,
        lr: Tensor,
        references: Tensor | ReferenceFeatures | None = None,
        upsampled: Tensor | None = None,
        *,
        reference_blurred: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve; see `Network.forward`.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], of any size.
            references: an image (B, 3, H, W), a result of `encode_reference`, or None for the plain image.
            upsampled: `lr` enlarged x4, (B, 3, 4h, 4w), for the matching; by default by Pillow's bicubic.
            reference_blurred: of a reference given as an image, see `encode_reference`.

        Returns:
            The image (B, 3, 4h, 4w), not clamped, F_rec and what was matched.
        """
        height, width = (4 * side for side in lr.shape[-2:])
        upsampled = enlarge_8_bit(lr) if upsampled is None else upsampled
        lr, upsampled = pad_sides(lr, LEAST_SIDE, 1), pad_sides(upsampled, 4 * LEAST_SIDE, 4)
        if references is None:
            net: Any = self.aggregation.second if isinstance(self.aggregation, FeatureReuse) else self.aggregation
            return SRResult(net.single_image(lr)[..., :height, :width])
        if isinstance(references, Tensor):
            references = self.encode_reference(references, reference_blurred)
        with torch.no_grad():
            found = match(self.vgg(upsampled)[-1], references.matching)
        textures = [swap(feature, found.flow, scale) for feature, scale in zip(references.pyramid, SCALES, strict=True)]
        swapped = Swapped(lr, textures, found.score)
        features = self.aggregation(swapped)
        image = self.aggregation.reconstruct(features, swapped)
        score, flow = F.pad(found.score, (1, 1, 1, 1)), F.pad(found.flow, (0, 0, 1, 1, 1, 1))
        image, features = (result[..., :height, :width] for result in (image, features))
        return SRResult(image, features, Correspondence(score, flow, found.index))

    @torch.no_grad()
    def encode_reference(self, reference: Tensor, blurred: Tensor | None = None) -> ReferenceFeatures:
        """Compute the reference's features.

        Args:
            reference: (B, 3, H, W), RGB in [0, 1], of any size.
            blurred: the same reduced to a quarter and enlarged again; by default by Pillow's bicubic.

        Returns:
            VGG19's features of the image and of the blurred one.
        """
        reference = pad_sides(reference, 4 * LEAST_SIDE, 4)
        if blurred is None:
            blurred = enlarge_8_bit(reduce_8_bit(reference))
        return ReferenceFeatures(self.vgg(pad_sides(blurred, 4 * LEAST_SIDE, 4))[-1], self.vgg(reference))


def from_published(parts: Mapping[str, Any]) -> SRNTT:
    """Build the network of published checkpoints (S-aiueo32/srntt-pytorch).

    Args:
        parts: {"net_g": SRNTT, "vgg": VGG19}, each a state dict, wrapped or not; VGG19 under the names of that code or
            torchvision's. Sizes are read from the shapes.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: a part is missing, or its keys or shapes are others.
    """
    net_g, vgg = unwrap_parts(parts, PARTS, SRNTT.architecture).values()
    config = SRNTTConfig(
        channels=size(net_g, "content_extractor.head.0.weight"),
        blocks=count(net_g, "content_extractor.body."),
        texture_channels=texture_channels(vgg),
        weighted="texture_transfer.a" in net_g,
    )
    network = SRNTT(config)
    load_published(network.aggregation, net_g, texture_net_names(config.blocks), "net_g")
    load_published(network.vgg, vgg, vgg_names(vgg), "vgg", unused=VGG_UNUSED)
    return network.eval()


def texture_channels(vgg: State) -> tuple[int, int, int]:
    """Widths of relu1_1, relu2_1 and relu3_1 of a checkpoint of VGG19."""
    names = vgg_names(vgg)
    large, medium, small = (size(vgg, f"{names[layer]}.weight") for layer in ("conv1_1", "conv2_1", "conv3_1"))
    return large, medium, small


def texture_net_names(blocks: int) -> Names:
    """TextureNet -> SRNTT."""
    content, transfer = "content_extractor", "texture_transfer"
    names = {"a": f"{transfer}.a", "b": f"{transfer}.b", "tail": f"{transfer}.tail_large"}
    names |= {"content.head": f"{content}.head.0", "content.tail.0.0": f"{content}.tail.0"}
    names |= {f"content.tail.{ours}": f"{content}.tail.{theirs}" for ours, theirs in (("1.0", 3), (2, 6), (4, 8))}
    bodies = {"content.body": f"{content}.body"}
    for scale in ("small", "medium", "large"):
        names |= {f"{scale}.head": f"{transfer}.head_{scale}.0", f"enlarge_{scale}.0": f"{transfer}.tail_{scale}.0"}
        bodies[f"{scale}.body"] = f"{transfer}.body_{scale}"
    for ours, theirs in bodies.items():
        names |= {f"{ours}.{n}.conv{i}": f"{theirs}.{n}.body.{2 * i - 2}" for n in range(blocks) for i in (1, 2)}
    return names
