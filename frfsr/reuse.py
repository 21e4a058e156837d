"""The feature reuse framework (section III-A, eq. 1-4), for any reference-based super-resolution network.

A network trained with the reconstruction loss alone finds more texture than one that is trained with all losses. So the
first one is trained so, frozen, and its feature F_rec fed to a second network of the same kind, which is trained with
all losses. A kind of network takes part if it has a feature tap and an injection point (`RefSRNetwork`):

    class Network(nn.Module):
        def __init__(self, reuse: bool): ...                       # with an injection point, or without
        def forward(self, inputs, reused=None): ...                # features; reused goes into the injection point
        def reconstruct(self, features, inputs): ...               # the last convolutions

    first = Network(reuse=False)                                   # train it with the reconstruction loss
    framework = FeatureReuse(first, Network(reuse=True))           # train it with all losses
    image, features = framework(inputs)

A network without a place for F_rec can put an `Injection` behind the layer of its choice. FRFSR itself uses
`reuse_features`, since its two networks share the textures that are found once per image pair.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from frfsr.errors import UserError


class RefSRNetwork(Protocol):
    """What the framework asks of a network. `inputs` is one object with all that the network takes."""

    def __call__(self, inputs: Any, reused: Tensor | None = None) -> Tensor:
        """The feature F_SR (B, C, H, W) before the last convolutions, eq. 1; with F_rec of the same shape, eq. 3."""
        ...

    def reconstruct(self, features: Tensor, inputs: Any) -> Tensor:
        """F_SR -> the image I_SR (B, 3, 4h, 4w), eq. 2 and 4."""
        ...


def reuse_features(first: RefSRNetwork, second: RefSRNetwork, inputs: Any) -> tuple[Tensor, Tensor]:
    """Eq. 1, 3 and 4: the second network's image and features, with F_rec of the first, which gets no gradient."""
    with torch.no_grad():
        reused = first(inputs)
    features = second(inputs, reused)
    return second.reconstruct(features, inputs), features


class FeatureReuse(nn.Module):
    """A trained network, frozen here for good, and a second one that takes its features: inputs -> (image, features).

    The second network, built with an injection point, starts as the first (see `continue_from`) unless `fresh`.
    """

    def __init__(self, first: nn.Module, second: nn.Module, fresh: bool = False):
        super().__init__()
        self.first = first.requires_grad_(False).eval()
        self.second = second
        if not fresh:
            continue_from(second, first)

    def train(self, mode: bool = True) -> "FeatureReuse":
        """Set the second network's mode; the first only infers."""
        super().train(mode)
        self.first.eval()
        return self

    def forward(self, inputs: Any) -> tuple[Tensor, Tensor]:
        return reuse_features(self.first, self.second, inputs)


class Injection(nn.Module):
    """A ready-made injection point: Conv([F; F_rec]) -> F, both (B, ?, H, W). At first it gives F back unchanged."""

    def __init__(self, channels: int, reused_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels + reused_channels, channels, 3, padding=1)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.weight[:, channels:])
        nn.init.zeros_(self.conv.bias)

    def forward(self, features: Tensor, reused: Tensor) -> Tensor:
        return self.conv(torch.cat([features, reused], 1))


@torch.no_grad()
def continue_from(second: nn.Module, first: nn.Module) -> None:
    """Start the second network where the first one ended: then it computes the same, until it learns to use F_rec.

    Weights of the same name are copied. A convolution of the second may have more input channels than the first's, the
    last of which take F_rec: those weights become zero. What the first network lacks keeps its initial values.

    Raises UserError if weights of the same name differ in another way.
    """
    known = first.state_dict()
    for name, weight in second.state_dict().items():
        if name not in known:
            continue
        channels = known[name].shape[1] if weight.dim() > 1 else 0
        if weight.dim() == 4 and weight.shape[1] > channels:
            weight[:, channels:] = 0
            weight = weight[:, :channels]
        if weight.shape != known[name].shape:
            raise UserError(f"{name} has other sizes in the second network: both must be of the same kind and size.")
        weight.copy_(known[name])
