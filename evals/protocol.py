"""How the LR is made and what is measured: the words and the identity of an evaluation."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from frfsr.degradations import Degradation, degraded_lr
from frfsr.degrade import LRProtocol, downscale
from frfsr.errors import UserError

LowResolution = Literal["pil", "matlab", "real"]
MEASURES = 2  # raised when the same image would get other figures, so that cached ones are not used


@dataclass(frozen=True)
class Protocol:
    """How the LR is made and what is measured.

    Attributes:
        lr: what makes the LR: Pillow's or MATLAB's bicubic interpolation, or what happens to people's photos, blur,
            noise and JPEG, by `frfsr.degradations` with its defaults; drawn by the pixels of the truth, so that every
            photo is degraded the same way wherever it stands.
        border: pixels left out at each side.
        lpips: measure LPIPS too, with the AlexNet of this file or, if it says ``torchvision``, of torchvision.

    Examples:
        >>> from frfsr import evals
        >>> evals.evaluate("bicubic", "set5", evals.Protocol(lr="matlab", border=0)).reference
        'true'
        >>> evals.Protocol(lr="opencv")
        Traceback (most recent call last):
        frfsr.errors.UserError: unknown LR protocol 'opencv': choose one of pil, matlab, real.
    """

    lr: LowResolution = "pil"
    border: int = 4
    lpips: str | None = None

    def __post_init__(self) -> None:
        if self.lr not in get_args(LowResolution):
            raise UserError(f"unknown LR protocol {self.lr!r}: choose one of {', '.join(get_args(LowResolution))}.")
        if self.border < 0:
            raise UserError(f"border is {self.border}: it must be at least 0.")
        if self.alexnet_file and not self.alexnet_file.is_file():
            raise UserError(f"LPIPS: {self.lpips} does not exist; give a safetensors file of AlexNet, or torchvision.")

    def __str__(self) -> str:
        maker = {
            "pil": "Pillow's bicubic",
            "matlab": "MATLAB's antialiased bicubic, rounded once",
            "real": "frfsr.degradations (blur, shrinking, noise, JPEG; drawn by the truth's SHA-256)",
        }[self.lr]
        return (
            f"truth cropped at the bottom and right to multiples of 4; LR = its quarter by {maker}, 8 bits; "
            "references at their own size, nothing padded; result rounded to 8 bits; "
            f"PSNR and SSIM on Y (BT.601, 16-235; RGB where said) without a border of {self.border} pixels; "
            "means over images"
        )

    def low(self, hr: np.ndarray) -> np.ndarray:
        """Make the LR of a truth.

        Args:
            hr: (4h, 4w, 3) uint8.

        Returns:
            (h, w, 3) uint8.
        """
        if self.lr != "real":
            return downscale(hr, self.lr)
        digest = hashlib.sha256(np.ascontiguousarray(hr).tobytes()).digest()
        return degraded_lr(hr, Degradation(), np.random.default_rng(list(digest)))

    @property
    def interpolation(self) -> LRProtocol:
        """Whose bicubic interpolation enlarges the LR again: the baseline's, and a reference's where there is none."""
        return "pil" if self.lr == "real" else self.lr

    @property
    def identity(self) -> str:
        """What changes whenever a figure may change."""
        weights = hashlib.sha256(self.alexnet_file.read_bytes()).hexdigest() if self.alexnet_file else self.lpips
        return f"{MEASURES} {self.lr} {self.border} {weights}"

    @property
    def alexnet_file(self) -> Path | None:
        """The file with AlexNet, None for torchvision's."""
        return None if self.lpips in (None, "torchvision") else Path(self.lpips)
