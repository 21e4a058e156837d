"""Reference-based super-resolution: a photo, enlarged four times with the textures of a sharper, similar photo."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frfsr.architectures import load
    from frfsr.config import FRFSRConfig
    from frfsr.model import FRFSR
    from frfsr.upscaling.explain import explain
    from frfsr.upscaling.upscale import upscale

    __version__: str

__all__ = ["FRFSR", "FRFSRConfig", "__version__", "explain", "load", "upscale"]

# Public names load on first use: `import frfsr` and `frfsr --help` stay quick because torch is not imported before.
_HOME = {
    "FRFSR": "frfsr.model",
    "FRFSRConfig": "frfsr.config",
    "explain": "frfsr.upscaling.explain",
    "load": "frfsr.architectures",
    "upscale": "frfsr.upscaling.upscale",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("frfsr")
    if name not in _HOME:
        raise AttributeError(f"module 'frfsr' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
