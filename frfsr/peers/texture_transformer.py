"""The texture transformer of TTSR (figures 2 and 4), on which WTRN builds too: its boxes and their published names."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from frfsr.atlas import Atlas, prominence
from frfsr.errors import UserError
from frfsr.kernels import flow_warp, patch_argmax
from frfsr.matching import enlarge_flow, index_to_flow
from frfsr.network import Correspondence, enlarge_8_bit, reduce_8_bit
from frfsr.peers.layers import conv, residual_blocks
from frfsr.pixels import IMAGENET_MEAN, IMAGENET_STD
from frfsr.states import Names, State

OUTSIDE = 2.0**20  # LR pixels: a flow that leaves every reference
LEAST_NORM = 1e-12  # of a patch, where its cosine is computed

# The texture encoder, numbered as VGG19's layers are.
VGG19_LAYERS = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}


class Transferred(NamedTuple):
    """An LR image, and what the texture transformer found for it.

    Attributes:
        lr: (B, 3, h, w), RGB in [-1, 1].
        attention: S, (B, 1, h, w), cosine of the matched patches, -1 ... 1, with a gradient (the argmax has none).
        textures: T, the reference's features where they matched, (B, C, s*h, s*w) for s = 4, 2, 1.
        details: WTRN's high-pass maps where they matched, likewise.
        correspondence: what was matched with what.
    """

    lr: Tensor
    attention: Tensor
    textures: tuple[Tensor, ...]
    details: tuple[Tensor, ...]
    correspondence: Correspondence


def blur(reference: Tensor) -> Tensor:
    """Reduce a reference (B, 3, H, W), RGB in [0, 1], sides multiples of 4, and enlarge it again, at 8 bits each."""
    return enlarge_8_bit(reduce_8_bit(reference))


def search(query: Tensor, key: Tensor) -> Correspondence:
    """Find the most similar 3x3 patch of the reference around every pixel (hard attention).

    Args:
        query: features of the LR image (B, C, h, w).
        key: features of the reference (B, C, hr, wr). Borders of both are padded with zeros, so that there is a patch
            around every pixel.

    Returns:
        Score and flow of every pixel.
    """
    score, index = patch_argmax(F.pad(query, (1, 1, 1, 1)), F.pad(key, (1, 1, 1, 1)))
    return Correspondence(score, index_to_flow(index, key.shape[-1]), index)


def soft_attention(query: Tensor, key: Tensor, flow: Tensor) -> Tensor:
    """Compute S: the cosine of every patch and its match, differentiable in both features.

    Args:
        query: features of the LR image (B, C, h, w).
        key: features of the reference (B, C, hr, wr).
        flow: (B, h, w, 2), displacement (x, y) from a patch of `query` to its match, whole numbers.

    Returns:
        (B, 1, h, w), -1 ... 1.
    """
    height, width = query.shape[-2:]
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(dtype), key.to(dtype)
    padded, product_sum = F.pad(query, (1, 1, 1, 1)), query.new_zeros(())
    for y, x in product(range(3), repeat=2):
        matched = flow_warp(key, flow + flow.new_tensor([x - 1, y - 1]))
        product_sum = product_sum + (padded[..., y : y + height, x : x + width] * matched).sum(1, keepdim=True)
    return product_sum / (patch_norm(query) * flow_warp(patch_norm(key), flow))


def attend(query: Tensor, atlas: Atlas) -> tuple[Correspondence, Tensor]:
    """Search every reference alone; at each position one match counts, see `frfsr.atlas.prominence`.

    Args:
        query: features of the LR image (B, C, h, w).
        atlas: the references, whose `matching` is searched.

    Returns:
        The matches, as displacements on the map of `atlas` (hard attention), and S, (B, 1, h, w) (soft attention).
    """

    def alone(number: int) -> tuple[Correspondence, Tensor]:
        key = atlas.references[number].matching
        found = search(query, key)
        soft = soft_attention(query, key, found.flow)
        return found._replace(flow=found.flow + found.flow.new_tensor(atlas.places[number][::-1])), soft

    best, attention = alone(0)
    if len(atlas.references) == 1 and atlas.corner == (0, 0):
        return best, attention
    source, most = torch.zeros_like(best.index), prominence(best.score, best.flow)
    for number in range(1, len(atlas.references)):
        found, soft = alone(number)
        evidence = prominence(found.score, found.flow)
        better = evidence > most
        most = torch.where(better, evidence, most)
        attention = torch.where(rearrange(better, "b h w -> b 1 h w"), soft, attention)
        best = Correspondence(
            score=torch.where(better, found.score, best.score),
            flow=torch.where(rearrange(better, "b h w -> b h w 1"), found.flow, best.flow),
            index=torch.where(better, found.index, best.index),
        )
        source = source.masked_fill(better, number)
    return best._replace(source=source), attention


def patch_norm(feature: Tensor) -> Tensor:
    """Compute the norm (B, 1, h, w) of every pixel's 3x3 patch of (B, C, h, w), zeros outside; at least LEAST_NORM."""
    energy = feature.square().sum(1, keepdim=True)
    return F.avg_pool2d(energy, 3, 1, 1, divisor_override=1).clamp(min=LEAST_NORM**2).sqrt()


def transfer(feature: Tensor, flow: Tensor, scale: int) -> Tensor:
    """Compute T: every pixel is the mean of what the nine patches around it bring along.

    Args:
        feature: of the reference, (B, C, scale*hr, scale*wr).
        flow: (B, h, w, 2), displacement (x, y) of the patch around each pixel, whole numbers.
        scale: pixels of `feature` in one of `flow`.

    Returns:
        (B, C, scale*h, scale*w); towards the border weaker, where fewer than nine patches lie.
    """
    height, width = flow.shape[1:3]
    padded = F.pad(flow, (0, 0, 1, 1, 1, 1), value=OUTSIDE)
    result = torch.zeros((), dtype=feature.dtype, device=feature.device)
    for y, x in product(range(3), repeat=2):
        result = result + flow_warp(feature, enlarge_flow(padded[:, y : y + height, x : x + width], scale))
    return result / 9


def enlarge_attention(attention: Tensor, scale: int) -> Tensor:
    """Enlarge S (B, 1, h, w) -> (B, 1, scale*h, scale*w); as published it may leave [-1, 1] thereby."""
    return F.interpolate(attention, scale_factor=scale, mode="bicubic", align_corners=False) if scale > 1 else attention


def residual_body(channels: int, blocks: int) -> nn.Sequential:
    """Make residual blocks and a convolution, (B, channels, h, w) -> the same shape."""
    return residual_blocks(channels, blocks).append(conv(channels, channels))


class ShallowFeatures(nn.Module):
    """SFE: LR image (B, 3, h, w), RGB in [-1, 1] -> features (B, channels, h, w)."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.head = conv(3, channels)
        self.body = residual_body(channels, blocks)

    def forward(self, lr: Tensor) -> Tensor:
        """Run it."""
        x = F.relu(self.head(lr))
        return x + self.body(x)


class SoftAttention(nn.Module):
    """F + Conv([F, T]) * S: what the texture adds to the features, as far as the match is good (eq. 5)."""

    def __init__(self, channels: int, texture_channels: int):
        super().__init__()
        self.conv = conv(channels + texture_channels, channels)

    def forward(self, x: Tensor, texture: Tensor, attention: Tensor) -> Tensor:
        """Add the texture (B, C, s*h, s*w) to features of its size; attention: S of the LR size, (B, 1, h, w)."""
        attention = enlarge_attention(attention, x.shape[-1] // attention.shape[-1])
        return x + self.conv(torch.cat([x, texture], 1)) * attention.to(x.dtype)


def to_scale(channels: int, source: int, target: int) -> nn.Sequential:
    """Make layers that bring features (B, channels, h, w) of scale 2**source to 2**target, not negative."""
    if source < target:
        up = nn.Upsample(scale_factor=2 ** (target - source), mode="bicubic", align_corners=False)
        return nn.Sequential(up, conv(channels, channels, kernel=1), nn.ReLU())
    halves = ((conv(channels, channels, stride=2), nn.ReLU()) for _ in range(source - target))
    return nn.Sequential(*(layer for half in halves for layer in half))


class ScaleMerge(nn.Module):
    """Cross-scale feature integration towards one scale: Conv([own features, those of the others in rising order]).

    With `reuse` it takes F_rec too, last in the concatenation.
    """

    def __init__(self, channels: int, target: int, scales: int, reuse: bool = False):
        super().__init__()
        self.target, self.reuse = target, reuse
        sources = [source for source in range(scales) if source != target]
        self.moves = nn.ModuleDict({str(source): to_scale(channels, source, target) for source in sources})
        self.merge = conv((scales + reuse) * channels, channels)

    def forward(self, features: Sequence[Tensor], reused: Tensor | None = None) -> Tensor:
        """Merge features (B, channels, s*h, s*w), s = 1, 2, ..., into those of scale 2**target, not negative."""
        moved = [move(features[int(source)]) for source, move in self.moves.items()]
        injected = [reused] if self.reuse and reused is not None else []
        return F.relu(self.merge(torch.cat([features[self.target], *moved, *injected], 1)))


def body_names(ours: str, blocks: str, tail: str, depth: int) -> Names:
    """Name a `residual_body` as published: a list of blocks, and the convolution after it.

    Args:
        ours: its name here.
        blocks: published name of the list.
        tail: published name of the convolution.
        depth: number of blocks.

    Returns:
        Our names -> the published ones.
    """
    return {f"{ours}.{n}": f"{blocks}.{n}" for n in range(depth)} | {f"{ours}.{depth}": tail}


def merge_names(ours: str, theirs: str, merge: str, target: int, scales: int) -> Names:
    """Name a `ScaleMerge` as published, where one module has the convolutions of all scales.

    Args:
        ours: its name here.
        theirs: published beginning of the convolutions' names.
        merge: published name of the last convolution.
        target: number of the scale that it is for.
        scales: how many there are.

    Returns:
        Our names -> the published ones.
    """
    names = {f"{ours}.merge": f"{theirs}.{merge}"}
    for source in range(scales):
        published = f"{theirs}.conv{source + 1}{target + 1}"
        if source - target == 2:
            names |= {f"{ours}.moves.{source}.{2 * n}": f"{published}_{n + 1}" for n in range(2)}
        elif source != target:
            names[f"{ours}.moves.{source}.{int(source < target)}"] = published
    return names


def require_constants(state: State, constants: dict[str, Tensor], what: str) -> None:
    """Refuse a checkpoint with other constants than ours, which are built in.

    Args:
        state: the checkpoint, which may lack them.
        constants: by the checkpoint's keys.
        what: beginning of the message.

    Raises:
        UserError: one has another value.
    """
    for key, expected in constants.items():
        if key in state and not (
            state[key].shape == expected.shape and torch.allclose(state[key].float().cpu(), expected, atol=1e-4)
        ):
            raise UserError(f"{what}: {key!r} is not the published constant, which this network has built in.")


def imagenet_normalisation() -> dict[str, Tensor]:
    """Give the 1x1 convolution by which the published encoder normalises an image."""
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return {"LTE.sub_mean.weight": torch.diag(1 / deviation)[..., None, None], "LTE.sub_mean.bias": -mean / deviation}
