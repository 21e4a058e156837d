"""The feature reuse framework (section III-A, eq. 1-4), for any reference-based super-resolution network.

A network trained with the reconstruction loss alone finds more texture than one that is trained with all losses. So the
first one is trained so, frozen, and its feature F_rec fed to a second network of the same kind, which is trained with
all losses. A network takes part with the box that aggregates its textures (`Aggregation`): it has a feature tap, what
its forward returns, and, if built so, an injection point. `reuse: true` in a network's configuration builds both:

    self.aggregation = aggregation(lambda reuse: MyAggregation(config, reuse), config.reuse)
    ...
    features = self.aggregation(inputs)                        # F_SR, of the second network where there is one
    image = self.aggregation.reconstruct(features, inputs)

`inputs` is one object with all that is found once per image pair and shared by both: matches, reference features.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from frfsr.errors import UserError


class Aggregation(nn.Module):
    """What the framework asks of a network's last box."""

    @abstractmethod
    def forward(self, inputs: Any, reused: Tensor | None = None) -> Tensor:
        """The feature F_SR (B, C, H, W) before the last convolutions, eq. 1; with F_rec of the same shape, eq. 3."""

    @abstractmethod
    def reconstruct(self, features: Tensor, inputs: Any) -> Tensor:
        """F_SR -> the image I_SR (B, 3, 4h, 4w), eq. 2 and 4."""


Box = TypeVar("Box", bound=Aggregation)


class FeatureReuse(Aggregation):
    """A trained aggregation, frozen here for good, and a second one that takes its features.

    The second one, built with an injection point, starts as the first (`continue_from`) unless `fresh`. Weights of a
    network without reuse can be loaded, too: the first one takes them, and the second one starts from there likewise.
    """

    def __init__(self, first: Aggregation, second: Aggregation, fresh: bool = False):
        super().__init__()
        self.first = first.requires_grad_(False).eval()
        self.second = second
        self.fresh = fresh
        if not fresh:
            continue_from(second, first)
        self.register_load_state_dict_pre_hook(_take_weights_of_one)

    def train(self, mode: bool = True) -> "FeatureReuse":
        """Set the second network's mode; the first only infers."""
        super().train(mode)
        self.first.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "FeatureReuse":
        """Thaw or freeze the second network; the first stays frozen."""
        self.second.requires_grad_(requires_grad)
        return self

    def forward(self, inputs: Any, reused: Tensor | None = None) -> Tensor:
        """Eq. 1 and 3: the second network's features, with F_rec of the first, which gets no gradient."""
        if reused is None:
            with torch.no_grad():
                reused = self.first(inputs)
        return self.second(inputs, reused)

    def reconstruct(self, features: Tensor, inputs: Any) -> Tensor:
        """Eq. 4: the second network's image."""
        return self.second.reconstruct(features, inputs)


def aggregation(make: Callable[[bool], Box], reuse: bool) -> Box | FeatureReuse:
    """An aggregation, or both of the feature reuse framework.

    Args:
        make: builds one; its argument says whether it is to have an injection point.
        reuse: whether the framework is asked for.

    Returns:
        What was asked for.
    """
    if not reuse:
        return make(False)
    framework = FeatureReuse(make(False), make(True), fresh=True)  # both are random: there is nothing to continue
    framework.fresh = False
    return framework


@torch.no_grad()
def continue_from(second: nn.Module, first: nn.Module) -> None:
    """Start the second network where the first one ended: then it computes the same, until it learns to use F_rec.

    Weights of the same name are copied. A convolution of the second may have more input channels than the first's, the
    last of which take F_rec: those weights become zero. What the first network lacks keeps its initial values.

    Raises:
        UserError: weights of the same name differ in another way.
    """
    known = first.state_dict()
    for name, weight in second.state_dict().items():
        if name in known:
            weight.copy_(_widened(known[name], weight, name))


def _widened(known: Tensor, weight: Tensor, name: str) -> Tensor:
    """`known`, with zeros for the last input channels that a convolution of the second network has more."""
    if known.shape == weight.shape:
        return known
    if known.dim() < 2 or known.shape[2:] != weight.shape[2:] or known.shape[0] != weight.shape[0]:
        raise UserError(f"{name} has other sizes in the second network: both must be of the same kind and size.")
    if known.shape[1] > weight.shape[1]:
        raise UserError(f"{name} has other sizes in the second network: both must be of the same kind and size.")
    added = known.new_zeros(known.shape[0], weight.shape[1] - known.shape[1], *known.shape[2:])
    return torch.cat([known, added], 1)


def _take_weights_of_one(module: FeatureReuse, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before loading: where the state dict has one network instead of two, put it under the names of both."""
    first, second = f"{prefix}first.", f"{prefix}second."
    single = {
        name.removeprefix(prefix): state.pop(name)
        for name in list(state)
        if name.startswith(prefix) and not name.startswith((first, second))
    }
    if not single:
        return
    initial = module.second.state_dict()
    state.update({first + name: weight for name, weight in single.items()})
    for name, weight in initial.items():
        start = weight if module.fresh or name not in single else _widened(single[name], weight, name)
        state[second + name] = start
