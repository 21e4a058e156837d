"""Images -> features: the texture encoder, the reference pyramid and SIFE (the left column of the paper's figure 1)."""

from typing import cast

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from frfsr.pixels import IMAGENET_MEAN, IMAGENET_STD, channel_constant


class VGGTrunk(nn.Module):
    """The first five convolutions of VGG (conv1_1 ... conv3_1), which VGG16 and VGG19 share.

    `channels` are the widths of the three stages: (64, 128, 256) in VGG, less in the tiny preset. The input is RGB in
    [0, 1], (B, 3, H, W) with H, W >= 4; ImageNet normalisation happens inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: tuple[int, int, int] = (64, 128, 256)):
        super().__init__()
        large, medium, small = channels
        self.conv1_1 = nn.Conv2d(3, large, 3, padding=1)
        self.conv1_2 = nn.Conv2d(large, large, 3, padding=1)
        self.conv2_1 = nn.Conv2d(large, medium, 3, padding=1)
        self.conv2_2 = nn.Conv2d(medium, medium, 3, padding=1)
        self.conv3_1 = nn.Conv2d(medium, small, 3, padding=1)
        self.register_buffer("mean", channel_constant(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", channel_constant(IMAGENET_STD), persistent=False)

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """relu1_1 (B, C1, H, W), relu2_1 (B, C2, H//2, W//2) and conv3_1 before its ReLU (B, C3, H//4, W//4)."""
        relu1_1 = F.relu(self.conv1_1((image - self.mean) / self.std), inplace=True)
        relu1_2 = F.relu(self.conv1_2(relu1_1), inplace=True)
        relu2_1 = F.relu(self.conv2_1(F.max_pool2d(relu1_2, 2)), inplace=True)
        relu2_2 = F.relu(self.conv2_2(relu2_1), inplace=True)
        return relu1_1, relu2_1, self.conv3_1(F.max_pool2d(relu2_2, 2))


class TextureEncoder(VGGTrunk):
    """The CTW's texture encoder (section III-B): image (B, 3, 4h, 4w) -> features (B, C3, h, w), before the ReLU."""

    def forward(self, image: Tensor) -> Tensor:
        """Encode an image."""
        return self.stages(image)[-1]


class ReferencePyramid(VGGTrunk):
    """The reference features F_Ref^i of section III-C: relu1_1, relu2_1 and relu3_1 at strides 1, 2 and 4."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a reference (B, 3, H, W), RGB in [0, 1]."""
        relu1_1, relu2_1, conv3_1 = self.stages(image)
        return relu1_1, relu2_1, F.relu(conv3_1)


class ResidualDenseBlock(nn.Module):
    """ESRGAN's residual dense block: five 3x3 convolutions, each seeing all earlier outputs; residual scale 0.2."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; (B, features, h, w)."""
        dense = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            dense = torch.cat([dense, F.leaky_relu(conv(dense), 0.2)], 1)
        return x + 0.2 * self.conv5(dense)


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks around a residual of scale 0.2."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features, growth)
        self.rdb2 = ResidualDenseBlock(features, growth)
        self.rdb3 = ResidualDenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; (B, features, h, w)."""
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class SIFE(nn.Module):
    """Single image feature embedding, eq. 14: ESRGAN's RRDB network without its upsampling.

    LR image (B, 3, h, w), RGB in [0, 1] -> features (B, features, h, w), the trunk's residual sum. With `image_head`
    the network also has a convolution and a x4 pixel shuffle of its own, by which it super-resolves alone. One that is
    `fed` also sees what another of its kind made of the image.
    """

    def __init__(
        self, features: int = 64, blocks: int = 23, growth: int = 32, image_head: bool = False, fed: bool = False
    ):
        super().__init__()
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.conv_fed = None
        if fed:
            self.conv_fed = nn.Conv2d(features, features, 3, padding=1)
            start_at_zero(self.conv_fed)
        self.body = nn.Sequential(*(RRDB(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.image_head = None
        if image_head:
            head = nn.Conv2d(features, 48, 3, padding=1)
            start_at_zero(head)  # training starts at the bicubic image
            self.image_head = nn.Sequential(head, Rearrange("b (c i j) h w -> b c (h i) (w j)", i=4, j=4))

    def forward(self, lr: Tensor, others: Tensor | None = None) -> Tensor:
        """Embed the LR image; `others` are the features (B, features, h, w) that the network is fed."""
        shallow = self.conv_first(lr)
        if self.conv_fed is not None:
            shallow = shallow + self.conv_fed(others)
        return shallow + self.conv_body(self.body(shallow))

    def image(self, features: Tensor, upsampled: Tensor) -> Tensor:
        """Super-resolve alone: features (B, C, h, w) of the LR image, and that enlarged -> image (B, 3, 4h, 4w)."""
        return upsampled + cast(nn.Sequential, self.image_head)(features)


def start_at_zero(convolution: nn.Conv2d) -> None:
    """Let a convolution give zero until it has learned something."""
    nn.init.zeros_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
