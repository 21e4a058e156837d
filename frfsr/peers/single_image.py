"""Single-image networks: the rows of the paper's table I that look at no reference."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Self

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from frfsr.aggregation import ResidualBlock
from frfsr.errors import UserError
from frfsr.network import Network, SRResult, enlarge_8_bit
from frfsr.peers.layers import conv, shuffle, tensorflow_bicubic
from frfsr.pixels import channel_constant, luma
from frfsr.settings import Depth, Share, Width, settings
from frfsr.states import Names, State, count, load_published, size, unwrap

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # RGB of EDSR's training photos
ENHANCENET_MEAN = (0.47614917, 0.45001204, 0.40904046)  # and of EnhanceNet's


@settings
class SRCNNConfig:
    """Sizes of SRCNN.

    Attributes:
        kernels: sides of its three convolutions: 9-5-5, 9-1-5, ...
        channels: after the first two.
    """

    kernels: tuple[Width, Width, Width] = (9, 5, 5)
    channels: tuple[Width, Width] = (64, 32)


@settings
class ResidualConfig:
    """Sizes of a network of plain residual blocks.

    Attributes:
        channels: of its features.
        blocks: number of residual blocks.
        residual_scale: factor of every block's residual: 0.1 in the large EDSR, else 1.
    """

    channels: Width = 64
    blocks: Depth = 16
    residual_scale: Share = 1.0


@settings
class EnhanceNetConfig(ResidualConfig):
    """Sizes of EnhanceNet, as published."""

    blocks: Depth = 10


class SingleImageNetwork(Network):
    """A network without references; `image` is its figure."""

    max_references = 0
    marks: ClassVar[tuple[tuple[str, ...], ...]]
    """Keys by which its published checkpoints are known, for each kind of them."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Beginnings of published keys that are not needed."""

    def encode_reference(self, reference: Tensor) -> NoReturn:
        """Refuse: such a network has no use for a reference.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.architecture} is a single-image network: it takes no reference.")

    def forward(self, lr: Tensor, references: object = None, upsampled: Tensor | None = None) -> SRResult:
        """Super-resolve `lr`.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], of any size.
            references: not looked at; it is here so that every network is called alike.
            upsampled: `lr` enlarged x4, (B, 3, 4h, 4w); by default Pillow's bicubic image of 8 bits.

        Returns:
            The image (B, 3, 4h, 4w), not clamped, without features and correspondence.
        """
        return SRResult(self.image(lr, upsampled))

    @classmethod
    def from_published(cls, checkpoint: Mapping[str, Any]) -> Self:
        """Build the network of a published checkpoint, wrapped or not; sizes are read from the shapes.

        Raises:
            UserError: keys or shapes are others.
        """
        state = unwrap(checkpoint, cls.architecture)
        config, names = cls.published(state)
        network = cls(config)
        load_published(network, state, names, cls.architecture, cls.unused)
        return network.eval()

    @classmethod
    @abstractmethod
    def published(cls, state: State) -> tuple[Any, Names]:
        """Sizes, and our names -> published names, of a checkpoint."""

    @abstractmethod
    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """`lr` (B, 3, h, w), RGB in [0, 1], or the same enlarged -> (B, 3, 4h, 4w)."""


class SRCNN(SingleImageNetwork):
    """Dong et al. 2014: three convolutions on the luma of the enlarged image, whose Cb and Cr stay."""

    architecture = "srcnn"
    marks = (("conv1.weight", "conv2.weight", "conv3.weight"),)
    config_class = SRCNNConfig

    def __init__(self, config: SRCNNConfig):
        super().__init__(config)
        (wide, narrow), (first, second, third) = config.channels, config.kernels
        self.conv1, self.conv2, self.conv3 = conv(1, wide, first), conv(wide, narrow, second), conv(narrow, 1, third)

    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Enlarge; see `SingleImageNetwork.image`."""
        upsampled = enlarge_8_bit(lr) if upsampled is None else upsampled
        y = (16 + 219 * luma(upsampled)) / 255
        new_y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(y)))))
        return upsampled + (new_y - y) * 255 / 219  # equal steps of R, G and B leave Cb and Cr alone

    @classmethod
    def published(cls, state: State) -> tuple[SRCNNConfig, Names]:
        """Read a checkpoint; see `SingleImageNetwork.published`."""
        wide, narrow, _ = (size(state, f"conv{n}.weight") for n in (1, 2, 3))
        first, second, third = (state[f"conv{n}.weight"].shape[-1] for n in (1, 2, 3))
        return SRCNNConfig((first, second, third), (wide, narrow)), {}


class ResidualNetwork(SingleImageNetwork):
    """A first convolution, plain residual blocks, some more convolutions and a last one.

    `convolutions` are those between: name -> output channels as a multiple of the channels.
    """

    config_class = ResidualConfig
    convolutions: ClassVar[dict[str, int]]
    conv_body: nn.Conv2d
    conv_up1: nn.Conv2d
    conv_up2: nn.Conv2d
    conv_hr: nn.Conv2d

    def __init__(self, config: ResidualConfig):
        super().__init__(config)
        channels = config.channels
        self.conv_first = conv(3, channels)
        self.body = nn.Sequential(*(ScaledBlock(channels, config.residual_scale) for _ in range(config.blocks)))
        for name, multiple in self.convolutions.items():
            self.add_module(name, conv(channels, multiple * channels))
        self.conv_last = conv(channels, 3)


class EDSR(ResidualNetwork):
    """Lim et al. 2017: 8-bit levels around a mean colour, no activation at the pixel shuffles."""

    architecture = "edsr"
    marks = (
        ("conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight"),
        ("head.0.weight", "body.0.body.0.weight", "tail.0.0.weight"),
    )
    unused = ("sub_mean.", "add_mean.")
    convolutions: ClassVar = {"conv_body": 1, "conv_up1": 4, "conv_up2": 4}

    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Enlarge; see `SingleImageNetwork.image`."""
        mean = channel_constant(DIV2K_MEAN).to(lr)
        shallow = self.conv_first(255 * (lr - mean))
        x = shallow + self.conv_body(self.body(shallow))
        return self.conv_last(shuffle(self.conv_up2(shuffle(self.conv_up1(x))))) / 255 + mean

    @classmethod
    def published(cls, state: State) -> tuple[ResidualConfig, Names]:
        """Read a checkpoint; see `SingleImageNetwork.published`.

        Raises:
            UserError: the colour mean is another one.
        """
        levels = state.get("add_mean.bias")
        if levels is not None and not torch.allclose(levels.float().cpu(), 255 * torch.tensor(DIV2K_MEAN), atol=0.1):
            raise UserError(
                "edsr: its colour mean is not that of DIV2K in 8-bit levels, which our network has built in."
            )
        if "conv_first.weight" in state:
            channels, blocks = size(state, "conv_first.weight"), count(state, "body.")
            names = {"conv_body": "conv_after_body", "conv_up1": "upsample.0", "conv_up2": "upsample.2"}
        else:
            channels, blocks = size(state, "head.0.weight"), count(state, "body.") - 1
            names = {"conv_first": "head.0", "conv_body": f"body.{blocks}", "conv_last": "tail.1"}
            names |= {"conv_up1": "tail.0.0", "conv_up2": "tail.0.2"}
            names |= {f"body.{n}.conv{i}": f"body.{n}.body.{2 * i - 2}" for n in range(blocks) for i in (1, 2)}
        # The scale of the residuals is no weight: it belongs to the published sizes.
        return ResidualConfig(channels, blocks, 0.1 if channels >= 256 else 1.0), names


class SRResNet(ResidualNetwork):
    """Ledig et al. 2017 as BasicSR and mmsr have it, SRGAN's generator too: no batch norm, on the bilinear image."""

    architecture = "srresnet"
    marks = (("body.0.conv1.weight", "upconv1.weight"), ("recon_trunk.0.conv1.weight", "upconv1.weight"))
    convolutions: ClassVar = {"conv_up1": 4, "conv_up2": 4, "conv_hr": 1}

    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Enlarge; see `SingleImageNetwork.image`."""
        x = self.body(F.leaky_relu(self.conv_first(lr), 0.1))
        for convolution in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(shuffle(convolution(x)), 0.1)
        base = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        return base + self.conv_last(F.leaky_relu(self.conv_hr(x), 0.1))

    @classmethod
    def published(cls, state: State) -> tuple[ResidualConfig, Names]:
        """Read a checkpoint; see `SingleImageNetwork.published`."""
        names = {"conv_up1": "upconv1", "conv_up2": "upconv2"}
        if "HRconv.weight" in state:
            names |= {"body": "recon_trunk", "conv_hr": "HRconv"}
        return ResidualConfig(size(state, "conv_first.weight"), count(state, f"{names.get('body', 'body')}.")), names


class RankSRGAN(ResidualNetwork):
    """Zhang et al. 2019, its generator: an SRResNet with a skip over the blocks and nothing added to the result."""

    architecture = "ranksrgan"
    marks = (("recon_trunk.0.conv1.weight", "LRconv.weight"),)
    convolutions: ClassVar = {"conv_body": 1, "conv_up1": 4, "conv_up2": 4, "conv_hr": 1}

    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Enlarge; see `SingleImageNetwork.image`."""
        shallow = self.conv_first(lr)
        x = shallow + self.conv_body(self.body(shallow))
        for convolution in (self.conv_up1, self.conv_up2):
            x = F.relu(shuffle(convolution(x)))
        return self.conv_last(F.relu(self.conv_hr(x)))

    @classmethod
    def published(cls, state: State) -> tuple[ResidualConfig, Names]:
        """Read a checkpoint; see `SingleImageNetwork.published`."""
        names = {"body": "recon_trunk", "conv_body": "LRconv", "conv_hr": "HRconv"}
        names |= {"conv_up1": "upconv1", "conv_up2": "upconv2"}
        return ResidualConfig(size(state, "conv_first.weight"), count(state, "recon_trunk.")), names


class EnhanceNet(ResidualNetwork):
    """Sajjadi et al. 2017: nearest enlargements, on TensorFlow's bicubic image."""

    architecture, config_class = "enhancenet", EnhanceNetConfig
    marks = (("head.weight", "body.0.conv1.weight", "up1.weight"),)
    convolutions: ClassVar = {"conv_up1": 1, "conv_up2": 1, "conv_hr": 1}

    def image(self, lr: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Enlarge; see `SingleImageNetwork.image`."""
        x = self.body(F.relu(self.conv_first(lr - channel_constant(ENHANCENET_MEAN).to(lr))))
        for convolution in (self.conv_up1, self.conv_up2):
            x = F.relu(convolution(repeat(x, "b c h w -> b c (h i) (w j)", i=2, j=2)))
        return tensorflow_bicubic(lr) + self.conv_last(F.relu(self.conv_hr(x)))

    @classmethod
    def published(cls, state: State) -> tuple[ResidualConfig, Names]:
        """Read a checkpoint; see `SingleImageNetwork.published`."""
        names = {"conv_first": "head", "conv_up1": "up1", "conv_up2": "up2", "conv_hr": "hr", "conv_last": "last"}
        return EnhanceNetConfig(size(state, "head.weight"), count(state, "body.")), names


NETWORKS: tuple[type[SingleImageNetwork], ...] = (SRCNN, EDSR, RankSRGAN, SRResNet, EnhanceNet)


def recognise(state: State) -> type[SingleImageNetwork] | None:
    """The network of which this is a published checkpoint, by its keys, or None."""
    known = (network for network in NETWORKS if any(state.keys() >= set(marks) for marks in network.marks))
    return next(known, None)


class ScaledBlock(ResidualBlock):
    """x + scale * conv(ReLU(conv(x))), (B, channels, h, w)."""

    def __init__(self, channels: int, scale: float):
        super().__init__(channels, esa=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return x + self.scale * self.conv2(F.relu(self.conv1(x)))
