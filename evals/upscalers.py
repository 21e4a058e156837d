"""What is compared: bicubic, networks and functions, all called as ``upscaler(lr, references) -> image``."""

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image

from frfsr.architectures import find_architecture, load
from frfsr.base import load_base, load_single_image
from frfsr.checkpoints import CHECKPOINT_ENDINGS, find_model, read_config
from frfsr.degrade import LRProtocol, upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.choices import BICUBIC, PUBLISHED
from frfsr.evals.metrics import Picture, to_uint8
from frfsr.imageio import Photo
from frfsr.network import Network
from frfsr.upscaling.options import Options
from frfsr.upscaling.upscale import upscale_photo


@runtime_checkable
class Upscaler(Protocol):
    """Anything that enlarges x4.

    Attributes:
        name: as it appears in tables.
        identity: changes whenever the output may change (a hash of the weights), for the cache of results; None if
            nothing tells.
        parameters: number of parameters by part, empty if there are none.
        uses_references: false if the result is the same with any.
    """

    name: str
    identity: str | None
    uses_references: bool
    parameters: dict[str, int]

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """Enlarge an LR image (h, w, 3) with references (H, W, 3), uint8 RGB of any sizes, to (4h, 4w, 3) uint8."""
        ...


class Bicubic:
    """Bicubic interpolation of the LR protocol; looks at no reference."""

    uses_references = False

    def __init__(self, protocol: LRProtocol = "pil") -> None:
        self.protocol: LRProtocol = protocol
        self.name = BICUBIC
        self.identity: str | None = f"{BICUBIC} {protocol}"
        self.parameters: dict[str, int] = {}

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """Enlarge; see `Upscaler.__call__`."""
        return upscale_bicubic(lr, self.protocol)


class NetworkUpscaler:
    """A network as `frfsr upscale` runs it, by default fed as published evaluations feed theirs.

    Args:
        model: in evaluation mode, on its device.
        name: as it appears in tables.
        options: of the engine.
        base: a network whose image `model` refines.
    """

    def __init__(self, model: Network, name: str, options: Options = PUBLISHED, *, base: Network | None = None) -> None:
        self.model, self.base = model.eval(), base
        self.uses_references = model.max_references != 0
        self.name = name
        self.options = options
        self.identity: str | None = f"{version('frfsr')} {model.config} {weights_hash(model)} {self.options}"
        self.parameters = {part: sum(p.numel() for p in child.parameters()) for part, child in model.named_children()}
        if base is not None:
            self.identity += f" {weights_hash(base)}"
            self.parameters["base"] = sum(p.numel() for p in base.parameters())

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """Enlarge; see `Upscaler.__call__`."""
        given = [Photo(reference) for reference in references if self.uses_references]
        return upscale_photo(Photo(lr), given, self.model, self.options, base=self.base).photo.pixels


class Altered:
    """An upscaler that sees its references altered.

    Args:
        upscaler: that sees them.
        words: what is done to them.
        alter: does it to each, (H, W, 3) uint8.
    """

    uses_references = True

    def __init__(self, upscaler: Upscaler, words: str, alter: Callable[[np.ndarray], np.ndarray]) -> None:
        self.upscaler, self.alter = upscaler, alter
        self.name = f"{upscaler.name}, references {words}"
        self.identity = upscaler.identity and f"{upscaler.identity} references {words}"
        self.parameters = upscaler.parameters

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """Enlarge; see `Upscaler.__call__`."""
        return self.upscaler(lr, [np.ascontiguousarray(self.alter(reference)) for reference in references])


def resized(image: np.ndarray, zoom: float = 1, size: Sequence[int] | None = None) -> np.ndarray:
    """Resize (H, W, 3) uint8 by Pillow's bicubic interpolation: by a factor, or to a height and width."""
    height, width = size or [max(1, round(zoom * side)) for side in image.shape[:2]]
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


class FunctionUpscaler:
    """Any function from (LR, references) to an image, under its own name.

    Args:
        function: see `frfsr.evals.evaluate`.
    """

    uses_references = True

    def __init__(self, function: Callable[[np.ndarray, Sequence[np.ndarray]], Picture]) -> None:
        self.function = function
        self.identity: str | None = None  # nothing tells whether it would do the same tomorrow
        self.name = getattr(function, "__name__", type(function).__name__)
        self.parameters: dict[str, int] = {}

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """Enlarge; see `Upscaler.__call__`."""
        return to_uint8(self.function(lr, references))


Model = Upscaler | Network | Callable[[np.ndarray, Sequence[np.ndarray]], Picture] | str | Path


def as_upscaler(model: Model, protocol: LRProtocol = "pil") -> Upscaler:
    """Make an upscaler of a network, a name or a function; one that is an upscaler already stays as it is.

    Args:
        model: see `frfsr.evals.evaluate`.
        protocol: of the LR, which the bicubic baseline follows.

    Returns:
        The upscaler.

    Raises:
        UserError: it is none of these, or there is no model of this name.
    """
    if isinstance(model, str | Path):
        return load_upscaler(model, protocol)
    if isinstance(model, Network):
        return NetworkUpscaler(model, model.architecture)
    if isinstance(model, Upscaler):
        return model
    if not callable(model):
        raise UserError(f"a {type(model).__name__} is no model: give a network, its name, or a function.")
    return FunctionUpscaler(model)


def load_upscaler(
    name_or_path: str | Path,
    protocol: LRProtocol = "pil",
    device: str | None = None,
    options: Options = PUBLISHED,
    *,
    base: str | Path | None = None,
) -> Upscaler:
    """Load ``bicubic``, or a network of any architecture, with references or without.

    Args:
        name_or_path: bicubic; a packaged name, a folder or a Hub id; or a checkpoint of a single-image network.
        protocol: of the LR, which the bicubic baseline follows.
        device: for example ``cuda`` or ``cpu``; by default this process's GPU where there is one.
        options: of the engine.
        base: file, folder or name of a single-image network whose image the model refines.

    Returns:
        The upscaler.

    Raises:
        UserError: no such model or device, or the model refines no other network's image.

    Examples:
        >>> from frfsr import evals
        >>> upscaler = evals.load_upscaler("frfsr-tiny", device="cpu")
        >>> upscaler.name, upscaler.uses_references, upscaler.parameters["sife"] > 0
        ('frfsr-tiny', True, True)
    """
    if str(name_or_path) == BICUBIC:
        if base is not None:
            raise UserError(f"{BICUBIC} cannot refine a network's image: leave out the base.")
        return Bicubic(protocol)
    model, name = load_network(name_or_path, device or PartialState().device), short_name(name_or_path)
    if base is None:
        return NetworkUpscaler(model, name, options)
    return NetworkUpscaler(model, f"{name} on {short_name(base)}", options, base=load_base(base, model))


def short_name(name_or_path: str | Path) -> str:
    """The last part of a path or Hub id, of checkpoints without their ending."""
    path = Path(name_or_path)
    return path.stem if path.suffix in CHECKPOINT_ENDINGS else path.name


def load_network(name_or_path: str | Path, device: str | torch.device | None) -> Network:
    """Load a network with references by `frfsr.load`, any other by `frfsr.base.load_single_image`."""
    path = Path(name_or_path).expanduser()
    if not path.is_file() and path.suffix not in CHECKPOINT_ENDINGS:
        architecture, _ = read_config(find_model(name_or_path))
        module = find_architecture(architecture).module
        if issubclass(module, Network) and module.max_references != 0:
            return load(name_or_path, device)
    return load_single_image(name_or_path, device)


def weights_hash(model: torch.nn.Module) -> str:
    """Compute the SHA-256 over names, shapes and values of the state dict."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
