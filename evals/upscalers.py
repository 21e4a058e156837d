"""What is compared: the bicubic baseline and the networks, all called as ``upscaler(lr, references) -> image``."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import numpy as np
import torch
from accelerate import PartialState
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from frfsr.degrade import LRProtocol, upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.metrics import to_uint8
from frfsr.imageio import Photo
from frfsr.model import FRFSR
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
    """

    uses_references = True

    def __init__(self, model: torch.nn.Module, name: str, options: Options | None = None) -> None:
        self.model = model.eval()
        self.name = name
        self.options = options or Options(upsampled="8-bit")
        self.identity = f"{version('frfsr')} {model.config} {weights_hash(model)} {self.options}"
        self.parameters = {part: sum(p.numel() for p in child.parameters()) for part, child in model.named_children()}

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        return upscale_photo(Photo(lr), [Photo(reference) for reference in references], self.model, self.options)[
            0
        ].pixels


class SingleImageNetwork:
    """Any x4 network that spandrel can load; looks at no reference.

    Args:
        file: weights of a published single-image super-resolution network, .pth or .safetensors.
        device: where it runs.

    Raises:
        UserError: spandrel is not installed, does not know the network, or it is no x4 RGB network.
    """

    uses_references = False

    def __init__(self, file: str | Path, device: str | torch.device) -> None:
        try:
            import spandrel
        except ImportError as error:
            raise UserError("single-image networks need spandrel: pip install 'frfsr[sisr]'") from error
        try:
            if Path(file).suffix == ".safetensors":
                weights = load_file(file)
            else:
                weights = spandrel.canonicalize_state_dict(torch.load(file, map_location="cpu", weights_only=True))
            descriptor = spandrel.ModelLoader(device).load_from_state_dict(weights)
        except (spandrel.UnsupportedModelError, SafetensorError, UnpicklingError, OSError, RuntimeError) as error:
            raise UserError(f"spandrel cannot load {file}: {str(error).splitlines()[0]}") from error
        if (descriptor.scale, descriptor.input_channels, descriptor.output_channels) != (4, 3, 3):
            raise UserError(
                f"{file} is a x{descriptor.scale} network of {descriptor.input_channels} channels, not x4 RGB"
            )
        self.network = descriptor.eval()
        self.name = Path(file).stem
        self.identity = weights_hash(descriptor.model)
        self.parameters = {"network": sum(p.numel() for p in descriptor.model.parameters())}

    @torch.inference_mode()
    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        return to_uint8(self.network(to_batch(lr, self.network.model)))


def load_upscaler(name_or_path: str | Path, protocol: LRProtocol = "pil", device: str | None = None) -> Upscaler:
    """``bicubic``, or what `frfsr.FRFSR.from_pretrained` finds under the name, in the folder or on the Hub.

    Args:
        device: for example ``cuda`` or ``cpu``; by default this process's GPU where there is one.

    Raises:
        UserError: no such model, or no such device.
    """
    if str(name_or_path) == "bicubic":
        return Bicubic(protocol)
    model = FRFSR.from_pretrained(name_or_path)
    try:
        model = model.to(device or PartialState().device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use the device {device}: {str(error).splitlines()[0]}") from error
    return ReferenceNetwork(model, Path(name_or_path).name)


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
