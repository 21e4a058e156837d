"""What is compared: the bicubic baseline and the networks, all called as ``upscaler(lr, references) -> image``."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import PartialState
from einops import rearrange
from torch import Tensor

from frfsr.architectures import load
from frfsr.base import load_base, load_single_image
from frfsr.degrade import LRProtocol, upscale_bicubic
from frfsr.evals.metrics import to_uint8
from frfsr.imageio import Photo
from frfsr.network import Network
from frfsr.upscaling.options import Options
from frfsr.upscaling.upscale import upscale_photo


class Upscaler(Protocol):
    """Anything that enlarges x4.

    Attributes:
        name: as it appears in tables.
        identity: changes whenever the output may change (a hash of the weights), for the cache of results.
        parameters: number of parameters by part, empty if there are none.
        uses_references: false if the result is the same with any.
    """

    name: str
    identity: str
    uses_references: bool
    parameters: dict[str, int]

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """LR image (h, w, 3) and references (H, W, 3), uint8 RGB of any sizes -> (4h, 4w, 3) uint8."""
        ...


class Bicubic:
    """Bicubic interpolation of the LR protocol; looks at no reference."""

    name = "bicubic"
    uses_references = False

    def __init__(self, protocol: LRProtocol = "pil") -> None:
        self.protocol = protocol
        self.identity = f"bicubic {protocol}"
        self.parameters: dict[str, int] = {}

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        return upscale_bicubic(lr, self.protocol)


class ReferenceNetwork:
    """A network as `frfsr upscale` runs it, by default fed as published evaluations feed theirs: with the LR that
    Pillow enlarged, rounded to 8 bits.

    Args:
        model: in evaluation mode, on its device.
        name: as it appears in tables.
        options: of the engine.
        base: a network whose image `model` refines.
    """

    def __init__(
        self, model: Network, name: str, options: Options | None = None, *, base: Network | None = None
    ) -> None:
        self.model, self.base = model.eval(), base
        self.uses_references = model.max_references != 0
        self.name = name
        self.options = options or Options(upsampled="8-bit", views="off")
        self.identity = f"{version('frfsr')} {model.config} {weights_hash(model)} {self.options}"
        self.parameters = {part: sum(p.numel() for p in child.parameters()) for part, child in model.named_children()}
        if base is not None:
            self.identity += f" {weights_hash(base)}"
            self.parameters["base"] = sum(p.numel() for p in base.parameters())

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        given = [Photo(reference) for reference in references if self.uses_references]
        return upscale_photo(Photo(lr), given, self.model, self.options, base=self.base).photo.pixels


class SingleImageNetwork:
    """Any x4 network that looks at no reference, on the whole image at once.

    Args:
        name_or_path: as `frfsr.base.load_single_image` takes it.
        device: where it runs.

    Raises:
        UserError: it cannot be loaded, or is no x4 RGB network.
    """

    uses_references = False

    def __init__(self, name_or_path: str | Path, device: str | torch.device) -> None:
        self.network = load_single_image(name_or_path, device)
        self.name = Path(name_or_path).stem
        self.identity = weights_hash(self.network)
        self.parameters = {"network": sum(p.numel() for p in self.network.parameters())}

    @torch.inference_mode()
    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        return to_uint8(self.network(to_batch(lr, self.network)).image.clamp(0, 1))


def load_upscaler(
    name_or_path: str | Path, protocol: LRProtocol = "pil", device: str | None = None, base: str | None = None
) -> Upscaler:
    """``bicubic``, or what `frfsr.load` finds under the name, in the folder or on the Hub.

    Args:
        protocol: of the LR, which the bicubic baseline follows.
        device: for example ``cuda`` or ``cpu``; by default this process's GPU where there is one.
        base: file, folder or name of a single-image network whose image the model refines.

    Raises:
        UserError: no such model, or no such device.
    """
    if str(name_or_path) == "bicubic":
        return Bicubic(protocol)
    model, name = load(name_or_path, device or PartialState().device), Path(name_or_path).name
    if base is None:
        return ReferenceNetwork(model, name)
    return ReferenceNetwork(model, f"{name} on {Path(base).stem}", base=load_base(base, model))


def to_batch(image: np.ndarray, model: torch.nn.Module) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1], on the device and in the type of the model's weights."""
    return rearrange(torch.from_numpy(image.copy()), "h w c -> 1 c h w").to(next(model.parameters())) / 255


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and values of the state dict."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
