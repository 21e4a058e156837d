"""What is compared: the bicubic baseline and the networks, all called as ``upscaler(lr, references) -> image``."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from frfsr.degrade import upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.metrics import to_uint8


class Upscaler(Protocol):
    """Anything that enlarges ×4.

    Attributes:
        name: as it appears in tables.
        identity: changes whenever the output may change (a hash of the weights), for the cache of results.
        parameters: number of parameters by part, empty if there are none.
    """

    name: str
    identity: str
    parameters: dict[str, int]

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        """LR image (h, w, 3) and references (H, W, 3), uint8 RGB of any sizes -> (4h, 4w, 3) uint8."""
        ...


class Bicubic:
    """Pillow's bicubic interpolation; looks at no reference."""

    name = identity = "bicubic"
    parameters: dict[str, int]

    def __init__(self) -> None:
        self.parameters = {}

    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        return upscale_bicubic(lr)


class ReferenceNetwork:
    """An `frfsr.FRFSR`, fed as the published evaluation feeds it: the enlarged LR rounded to 8 bits.

    Args:
        model: in evaluation mode, on its device.
        name: as it appears in tables.
    """

    def __init__(self, model: torch.nn.Module, name: str) -> None:
        self.model = model.eval()
        self.name = name
        self.identity = weights_hash(model)
        self.parameters = {part: sum(p.numel() for p in child.parameters()) for part, child in model.named_children()}

    @torch.inference_mode()
    def __call__(self, lr: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
        if len(references) != 1:
            raise UserError(f"{self.name} takes one reference, got {len(references)}")
        parameter = next(self.model.parameters())
        batches = [to_tensor(image).to(parameter) for image in (lr, references[0], upscale_bicubic(lr))]
        return to_uint8(self.model(*batches).image)


def load_upscaler(name_or_path: str | Path, device: str | None = None) -> Upscaler:
    """``bicubic``, or what `frfsr.FRFSR.from_pretrained` finds under the name, in the folder or on the Hub.

    Args:
        device: for example ``cuda`` or ``cpu``; by default a GPU where there is one.

    Raises:
        UserError: no such model, or no such device.
    """
    if str(name_or_path) == "bicubic":
        return Bicubic()
    from frfsr.model import FRFSR

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = FRFSR.from_pretrained(name_or_path).to(device)
    except RuntimeError as error:
        raise UserError(f"cannot use the device {device}: {error}") from error
    return ReferenceNetwork(model, Path(name_or_path).name)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return rearrange(torch.from_numpy(image.copy()), "h w c -> 1 c h w").float() / 255


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and values of the state dict."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
