"""Pretrained weights by one mechanism: `torchvision`, a file, a folder, a packaged name or a Hub id."""

import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from frfsr.convert import from_published
from frfsr.errors import UserError
from frfsr.model import PACKAGED_WEIGHTS
from frfsr.published import ESRGAN_UPSAMPLING, TORCHVISION_VGG, unwrap

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

    weights: `torchvision`, a .safetensors or .pth file, or a folder, packaged name or Hub id with model.safetensors.
    purpose: the setting that asks for them, for messages; backbone: vgg16 or vgg19 if torchvision has them.

    Raises UserError that says where to get them.
    """
    try:
        file = locate(weights, purpose, backbone)
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = dict(unwrap(torch.load(file, map_location="cpu", weights_only=True), purpose))
    except UserError:
        raise
    except URLError as error:
        raise UserError(
            f"{purpose}: cannot download {TORCHVISION[backbone]} ({error.reason}); get that file elsewhere and give "
            "its path instead of torchvision."
        ) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{purpose}: no usable weights at {weights!r} ({reason}); give torchvision, a .safetensors or .pth file, a "
            f"folder or Hub id with model.safetensors."
        ) from error
    return Pretrained(state, hashlib.sha256(file.read_bytes()).hexdigest())


def locate(weights: str, purpose: str, backbone: str | None) -> Path:
    """The file that `weights` means, downloaded if it has to be; arguments as `read`."""
    if weights == "torchvision":
        if backbone is None:
            raise UserError(f"{purpose}: torchvision has no such network; give a file, a folder or a Hub id.")
        file = Path(torch.hub.get_dir(), "checkpoints", TORCHVISION[backbone].rpartition("/")[2])
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(TORCHVISION[backbone], str(file), file.stem.rpartition("-")[2])
        return file
    for folder in (Path(weights), PACKAGED_WEIGHTS / weights):
        if folder.is_dir():
            return folder / "model.safetensors"
    if Path(weights).is_file() or weights.count("/") != 1 or Path(weights).suffix in (".safetensors", ".pth"):
        return Path(weights)
    return Path(hf_hub_download(weights, "model.safetensors"))


def part_state(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The weights of a named part of FRFSR out of a state dict of FRFSR, of a VGG as torchvision names it, or of RRDB.

    Raises UserError if it holds none of them.
    """
    own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
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


def load_part(model: nn.Module, part: str, weights: str) -> str:
    """Copy the weights of one part, or of `all` the model, into it; returns the SHA-256 of their file."""
    pretrained = read(weights, f"init {part}", BACKBONES.get(part))
    target = model if part == "all" else submodule(model, part)
    state = pretrained.state if part == "all" else part_state(pretrained.state, part)
    try:
        missing, surplus = target.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"init: {part} of {weights} has other sizes than this model's {part}.") from error
    # A second network that the weights lack starts as the first.
    lacking = [name for name in missing if not name.startswith("reuse_aggregation.")]
    if lacking:
        raise UserError(f"init: {weights} lacks {', '.join(lacking[:3])} of {part}.")
    if surplus and part == "all":
        raise UserError(f"init: the model has no place for {', '.join(surplus[:3])} of {weights}.")
    return pretrained.sha256


def submodule(model: nn.Module, part: str) -> nn.Module:
    """A named part of the model; UserError names those that it has."""
    parts = dict(model.named_children())
    if part not in parts:
        raise UserError(f"the model has no part {part!r}; it has {', '.join(parts)}.")
    return parts[part]
