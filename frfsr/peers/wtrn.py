"""WTRN: "Wavelet-Based Texture Reformation Network" (Li et al., IEEE TIP 2022): TTSR with wavelet transforms."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from frfsr.features import VGGTrunk
from frfsr.peers.layers import conv, enlargement
from frfsr.peers.texture_transformer import (
    VGG19_LAYERS,
    Transferred,
    body_names,
    enlarge_attention,
    imagenet_normalisation,
    require_constants,
    residual_body,
)
from frfsr.peers.ttsr import TTSR, MainNet, TTSRConfig, names, sizes
from frfsr.states import Names, load_published, unwrap

# Haar wavelets of 2x2 pixels, (row, column).
HAAR = {
    "LL": ((0.5, 0.5), (0.5, 0.5)),
    "LH": ((-0.5, 0.5), (-0.5, 0.5)),
    "HL": ((-0.5, -0.5), (0.5, 0.5)),
    "HH": ((0.5, -0.5), (-0.5, 0.5)),
}
HIGH_PASS = ("LH", "HL", "HH")

# Weights that the published network has and does not use.
UNUSED = (
    "LTE_copy.",
    *imagenet_normalisation(),
    *(f"LTE.{pool}." for pool in ("pool1", "pool2")),
    *(f"MainNet.ex12.{layer}." for layer in ("conv12", "conv_merge2")),
    *(f"MainNet.unpool{n}.LL." for n in (1, 2)),
    *(f"MainNet.wave_cross{n}.conv{band}_merge." for n in (1, 2) for band in HIGH_PASS),
)


class WaveletEncoder(VGGTrunk):
    """The texture encoder whose poolings are wavelet transforms: their low pass goes on, the rest are textures too."""

    wavelets: Tensor

    def __init__(self, channels: tuple[int, int, int]):
        super().__init__(channels)
        self.register_buffer(
            "wavelets", rearrange(torch.tensor([*HAAR.values()]), "k i j -> k 1 i j"), persistent=False
        )

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split features (B, C, 2h, 2w) into the low pass (B, C, h, w) and three high-pass maps (B, 3C, h, w)."""
        height, width = x.shape[-2:]
        x = x[..., : height - height % 2, : width - width % 2]
        bands = F.conv2d(rearrange(x, "b c h w -> (b c) 1 h w"), self.wavelets, stride=2)
        bands = rearrange(bands, "(b c) k h w -> b (k c) h w", c=x.shape[1])
        return bands[:, : x.shape[1]], bands[:, x.shape[1] :]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode an image (B, 3, 4h, 4w), RGB in [0, 1].

        Returns:
            relu1_1, relu2_1 and relu3_1, and after the channels of the last two the high-pass maps of their size.
        """
        relu1_1 = F.relu(self.conv1_1((image - self.mean) / self.std))
        low1, high1 = self.pool(F.relu(self.conv1_2(relu1_1)))
        relu2_1 = F.relu(self.conv2_1(low1))
        low2, high2 = self.pool(F.relu(self.conv2_2(relu2_1)))
        relu3_1 = F.relu(self.conv3_1(low2))
        return relu1_1, torch.cat([relu2_1, high1], 1), torch.cat([relu3_1, high2], 1)


class WaveletBranch(nn.Module):
    """One high-pass map on its way to the next scale."""

    def __init__(self, channels: int, detail_channels: int):
        super().__init__()
        self.head = conv(detail_channels, channels)
        self.body = residual_body(channels, blocks=2)
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, detail: Tensor, attention: Tensor) -> Tensor:
        """Enlarge a transferred map (B, C, h, w), weighted by S of its size, to (B, channels, 2h, 2w)."""
        return self.up(self.body(self.head(detail) * attention))


class WaveletEnlarger(nn.Module):
    """Enlarges features by a pixel shuffle, and merges the reference's high-pass maps into the result."""

    def __init__(self, channels: int, detail_channels: int):
        super().__init__()
        self.shuffle = enlargement(channels, nn.ReLU())
        self.branches = nn.ModuleDict({band: WaveletBranch(channels, detail_channels) for band in HIGH_PASS})
        self.merge = conv((1 + len(HIGH_PASS)) * channels, channels)

    def forward(self, x: Tensor, details: Tensor, attention: Tensor) -> Tensor:
        """Enlarge features (B, channels, h, w).

        Args:
            x: the features.
            details: LH, HL and HH of the reference where it matched, (B, 3C, h, w).
            attention: S of the LR size.

        Returns:
            (B, channels, 2h, 2w).
        """
        attention = enlarge_attention(attention, x.shape[-1] // attention.shape[-1]).to(x.dtype)
        bands = rearrange(details, "b (k c) h w -> k b c h w", k=len(HIGH_PASS))
        maps = [branch(band, attention) for band, branch in zip(bands, self.branches.values(), strict=True)]
        return self.merge(torch.cat([self.shuffle(x), *maps], 1))


class WaveletMainNet(MainNet):
    """TTSR's main network with wavelets; of the two scales of its second stage only the coarse one is integrated."""

    exchanged: ClassVar = ((), (0,), (0, 1, 2))

    def enlarger(self, config: TTSRConfig, n: int) -> nn.Module:
        """See `MainNet.enlarger`."""
        return WaveletEnlarger(config.channels, config.texture_channels[1 - n])

    def enlarged(self, x: Tensor, n: int, inputs: Transferred) -> Tensor:
        """See `MainNet.enlarged`."""
        return self.enlarge[n](x, inputs.details[2 - n], inputs.attention)

    def reconstruct(self, features: Tensor, inputs: Transferred) -> Tensor:
        """Add what the features say to the enlarged LR image: (B, 3, 4h, 4w), RGB in [-1, 1]."""
        base = F.interpolate(inputs.lr, scale_factor=4, mode="bicubic", align_corners=False).clamp(-1, 1)
        return (base + self.tail(features)).clamp(-1, 1)


class WTRN(TTSR):
    """TTSR whose encoder and enlargements are wavelet transforms."""

    architecture = "wtrn"
    main_class: ClassVar = WaveletMainNet
    encoder_class: ClassVar = WaveletEncoder


def wavelet_names(network: WTRN) -> Names:
    """Name the network's modules as published."""
    found = names(network)
    slices = {"conv1_2": "slice21", "conv2_1": "slice22", "conv2_2": "slice31", "conv3_1": "slice32"}
    found |= {f"encoder.{ours}": f"LTE.{part}.{VGG19_LAYERS[ours]}" for ours, part in slices.items()}
    main = {}
    for n, (first_head, merge, shuffle) in enumerate(
        ((12, "conv15_head", "convps12"), (23, "conv26_head", "convps23"))
    ):
        main |= {f"enlarge.{n}.shuffle.0": shuffle, f"enlarge.{n}.merge": merge}
        cross = f"wave_cross{n + 1}"
        for i, band in enumerate(HIGH_PASS):
            ours = f"enlarge.{n}.branches.{band}"
            main |= {f"{ours}.head": f"conv{first_head + i}_head", f"{ours}.up": f"unpool{n + 1}.{band}"}
            main |= body_names(f"{ours}.body", f"{cross}.{band}_RB", f"{cross}.conv{band}_tail", depth=2)
    return found | {f"main.{ours}": f"MainNet.{theirs}" for ours, theirs in main.items()}


def from_published(checkpoint: Mapping[str, Any]) -> WTRN:
    """Make the network of a published checkpoint, in evaluation mode.

    Raises:
        UserError: the checkpoint is another network's; the line names the keys.
    """
    state = unwrap(checkpoint, "wtrn")
    network = WTRN(sizes(state, ("slice1.0", "slice22.5", "slice32.10")))
    large, medium, _ = network.config.texture_channels
    wavelets = {
        f"LTE.{pool}.{band}.weight": torch.tensor(kernel).expand(channels, 1, 2, 2)
        for pool, channels in (("pool1.4", large), ("pool2.9", medium))
        for band, kernel in HAAR.items()
    }
    require_constants(state, imagenet_normalisation() | wavelets, "wtrn")
    load_published(network, state, wavelet_names(network), "wtrn", UNUSED)
    return network.eval()
