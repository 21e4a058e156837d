"""Pretrained weights by one mechanism: `torchvision`, a file, a folder, a packaged name or a Hub id."""

import hashlib
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn

from frfsr.checkpoints import find_weights, read_checkpoint
from frfsr.convert import from_published
from frfsr.errors import UserError
from frfsr.features import SIFE
from frfsr.published import ESRGAN_UPSAMPLING, TORCHVISION_VGG
from frfsr.recipes.carry import below
from frfsr.states import unwrap

TORCHVISION = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
BACKBONES = {
    "encoder": "vgg16",
    "reference_encoder": "vgg16",
    "pyramid": "vgg19",
}  # what `torchvision` means for a part


class Pretrained(NamedTuple):
    """A state dict, and the SHA-256 of the file that it came from."""

    state: dict[str, Tensor]
    sha256: str


def read(weights: str, purpose: str, backbone: str | None = None) -> Pretrained:
    """Find and read weights.

    Args:
        weights: `torchvision`, a .safetensors or .pth file, or a folder, packaged name or Hub id with
            model.safetensors.
        purpose: the setting that asks for them, for messages.
        backbone: vgg16 or vgg19 if torchvision has them.

    Returns:
        The weights.

    Raises:
        UserError: there are none, or they cannot be read; it says where to get them.
    """
    try:
        file = torchvision_file(backbone) if weights == "torchvision" else find_weights(weights)
        state = unwrap(read_checkpoint(file), str(weights))
    except UserError as error:
        raise UserError(f"{purpose}: {error}") from error
    return Pretrained(state, hashlib.sha256(file.read_bytes()).hexdigest())


def torchvision_file(backbone: str | None) -> Path:
    """Download the weights that torchvision publishes, once.

    Args:
        backbone: vgg16 or vgg19; None: a network that torchvision has not.

    Returns:
        The file.

    Raises:
        UserError: torchvision has none, or they cannot be had.
    """
    if backbone is None:
        raise UserError("torchvision has no such network; give a file, a folder or a Hub id.")
    url = TORCHVISION[backbone]
    file = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), file.stem.rpartition("-")[2])
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise UserError(
                f"cannot download {url} ({reason}); get that file elsewhere and give its path instead of torchvision."
            ) from error
    return file


def part_state(state: dict[str, Tensor], part: str, makes_image: bool = False) -> dict[str, Tensor]:
    """Take the weights of a part of FRFSR out of a state dict of FRFSR, of a VGG as torchvision names it, or of RRDB.

    Args:
        state: the state dict.
        part: the part's name.
        makes_image: it is the single-image network, which one FRFSR has as its base and another as its SIFE.

    Returns:
        The weights under the part's own names.

    Raises:
        UserError: it holds none of them.
    """
    places = [name for name in ("base", "sife") if f"{name}.image_head.0.weight" in state] if makes_image else []
    own = below(state, f"{[*places, part][0]}.")
    if own:
        return own
    vgg = {
        f"{name}.{kind}": f"features.{layer}.{kind}"
        for name, layer in TORCHVISION_VGG.items()
        for kind in ("weight", "bias")
    }
    if part in BACKBONES and all(theirs in state for theirs in vgg.values()):
        return {ours: state[theirs] for ours, theirs in vgg.items()}
    if part == "sife":
        rrdb = from_published(state, "rrdb").state_dict()
        return {name: value for name, value in rrdb.items() if not name.startswith(ESRGAN_UPSAMPLING)}
    vgg_or = "torchvision, a VGG under torchvision's names, or " if part in BACKBONES else ""
    raise UserError(f"init: these weights have no part {part}; give {vgg_or}those of an FRFSR that has it.")


def load_part(model: nn.Module, part: str, weights: str | list[str]) -> str:
    """Copy the weights of one part, or of `all` the model, into it.

    Args:
        model: gets them.
        part: a part's name, or all.
        weights: see `read`; of several the mean is taken, as of fine-tunings of one network (Wortsman et al., "Model
            soups", ICML 2022).

    Returns:
        The SHA-256 of their file; of several, joined by +.

    Raises:
        UserError: they cannot be read, or are of another network.
    """
    places = [weights] if isinstance(weights, str) else weights
    if not places:
        raise UserError(f"init {part}: the list of weights is empty: name at least one.")
    found = [read(place, f"init {part}", BACKBONES.get(part)) for place in places]
    target = model if part == "all" else submodule(model, part)
    makes_image = getattr(target, "image_head", None) is not None
    states = [each.state if part == "all" else part_state(each.state, part, makes_image) for each in found]
    states = [grown(target, state) for state in states]
    for place, state in zip(places, states, strict=True):
        fit(target, state, part, place)
    if len(states) > 1:
        names = target.state_dict()
        target.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in names})
    return "+".join(each.sha256 for each in found)


def grown(target: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let trunks that are larger than their weights start by giving what these gave.

    Args:
        target: a SIFE or a network with some, with initial weights.
        state: of it, or of one whose trunks have fewer blocks or are fed nothing.

    Returns:
        The weights for all of it.
    """
    for name, trunk in target.named_modules():
        if isinstance(trunk, SIFE):
            prefix = f"{name}." if name else ""
            whole = grown_trunk(trunk, below(state, prefix))
            state = state | {prefix + inner: value for inner, value in whole.items()}
    return state


def grown_trunk(trunk: SIFE, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights for all blocks of a trunk; see `grown`.

    The added ones' dense blocks add nothing yet, so that each multiplies by 1.2, and the convolution behind them
    divides by that. What feeds the trunk adds nothing yet either.
    """
    given = {name.split(".")[1] for name in state if name.startswith("body.")}
    if not given:
        return state
    added = {
        name: torch.zeros_like(value) if ".conv5." in name else value
        for name, value in trunk.state_dict().items()
        if name.startswith("body.") and name.split(".")[1] not in given
    }
    blocks = len({name.split(".")[1] for name in added})
    behind = {name: value / 1.2**blocks for name, value in state.items() if name == "conv_body.weight"}
    if trunk.conv_fed is not None and not below(state, "conv_fed."):
        added |= {f"conv_fed.{name}": torch.zeros_like(value) for name, value in trunk.conv_fed.state_dict().items()}
    return state | added | behind


def fit(target: nn.Module, state: dict[str, Tensor], part: str, weights: str) -> None:
    """Load a state dict into the module that it is of.

    Args:
        target: the module.
        state: the state dict.
        part: the module's name, for messages.
        weights: where the state dict comes from, for messages.

    Raises:
        UserError: it is of another network.
    """
    try:
        missing, surplus = target.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"init: {part} of {weights} has other sizes than this model's {part}.") from error
    if missing:
        raise UserError(f"init: {weights} lacks {', '.join(missing[:3])} of {part}.")
    surplus = [name for name in surplus if part == "all" or not name.startswith("image_head.")]
    if surplus:
        place = "the model" if part == "all" else f"the model's {part}"
        raise UserError(f"init: {place} has no place for {', '.join(surplus[:3])} of {weights}.")


def submodule(model: nn.Module, part: str) -> nn.Module:
    """Give a named part of the model.

    Args:
        model: has it.
        part: its name, or that of a part of it, as sife.body.

    Returns:
        The part.

    Raises:
        UserError: there is none; it names those that it has.
    """
    parts = dict(model.named_modules())
    if not part or part not in parts:
        raise UserError(f"the model has no part {part!r}; it has {', '.join(dict(model.named_children()))}.")
    return parts[part]
