"""The one list of architectures: name -> network, and how its published checkpoints become ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frfsr import names, parts
from frfsr.checkpoints import HubOptions, find_model, read_config
from frfsr.errors import UserError
from frfsr.model import FRFSR
from frfsr.network import Network
from frfsr.peers import (
    c2_matching,
    crossnet,
    datsr,
    masa,
    matched,
    single_image,
    srntt,
    srntt_tf,
    ssen,
    ttsr,
    wtrn,
)
from frfsr.publications import PUBLICATIONS, Publication
from frfsr.settings import shortened
from frfsr.stored import StoredModule

DTYPES = {name: getattr(torch, name) for name in names.DTYPES}


@dataclass(frozen=True)
class Architecture:
    """A network, or a part of one, and how its published checkpoints become ours.

    Attributes:
        module: its class; a `Network` unless it is only a part.
        from_published: checkpoint (for several `checkpoint_parts`, a mapping of them) -> the module.
        checkpoint_parts: names of the files that make one network; empty for a single file.
    """

    module: type[StoredModule]
    from_published: Callable[[Mapping[str, Any]], StoredModule]
    checkpoint_parts: tuple[str, ...] = ()

    @property
    def publication(self) -> Publication:
        """What was published of it."""
        return PUBLICATIONS[self.module.architecture]


ARCHITECTURES: dict[str, Architecture] = {
    entry.module.architecture: entry
    for entry in (
        Architecture(FRFSR, parts.frfsr_from_published, parts.FRFSR_PARTS),
        Architecture(parts.ReuseNetwork, parts.reuse_from_published),
        Architecture(parts.Extractor, parts.extractor_from_published),
        Architecture(parts.RRDBNet, parts.rrdb_from_published),
        Architecture(c2_matching.C2Matching, c2_matching.from_published, matched.PARTS),
        Architecture(masa.MASA, masa.from_published),
        Architecture(datsr.DATSR, datsr.from_published, matched.PARTS),
        Architecture(ttsr.TTSR, ttsr.from_published),
        Architecture(wtrn.WTRN, wtrn.from_published),
        Architecture(srntt.SRNTT, srntt.from_published, srntt.PARTS),
        Architecture(srntt_tf.SRNTTTensorFlow, srntt_tf.from_published, srntt.PARTS),
        Architecture(crossnet.CrossNet, crossnet.from_published),
        Architecture(ssen.SSEN, ssen.from_published),
        *(Architecture(network, network.from_published) for network in single_image.NETWORKS),
    )
}


def find_architecture(name: str) -> Architecture:
    """Look an architecture up.

    Args:
        name: key of `ARCHITECTURES`.

    Returns:
        Its entry.

    Raises:
        UserError: there is none; it lists the names.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UserError(f"unknown architecture {shortened(name)}: use {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def load(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | None = None, **hub: Any
) -> Network:
    """Load a network of any architecture, ready for inference.

    Args:
        name_or_path: a packaged name, a folder with config.json and model.safetensors, or a Hub id.
        device: as torch names it; by default a CUDA GPU if there is one, else the CPU.
        dtype: float32 (default), bfloat16 or float16.
        **hub: fields of `frfsr.checkpoints.HubOptions`: revision, token, cache_dir, subfolder, local_files_only.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: there is no such model, device or dtype; or the model is only a part of a network.

    Examples:
        >>> import frfsr
        >>> model = frfsr.load("frfsr-tiny", device="cpu")
        >>> model.architecture, model.scale, model.training
        ('frfsr', 4, False)
        >>> frfsr.load("OWNER/NAME", revision="v1")  # doctest: +SKIP
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    device = usable_device(device)
    files = find_model(name_or_path, HubOptions(**hub))
    architecture, values = read_config(files)
    module = find_architecture(architecture).module
    if not issubclass(module, Network):
        raise UserError(f"{files.label} holds {architecture}, a part of a network, which makes no image by itself.")
    return module.from_files(files, values).to(device, DTYPES[dtype or "float32"])


def usable_device(device: str | torch.device | None) -> torch.device:
    """Find a device where something can be computed.

    Args:
        device: its name; None for the default one (see `load`).

    Returns:
        The device.

    Raises:
        UserError: nothing can be computed there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    names.require_device_name(str(device))
    try:
        torch.zeros(1, device=device).add(1).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        unknown = isinstance(error, NotImplementedError)  # built without it, which PyTorch says by its operators' names
        why = "" if unknown else f" ({reason[:120]})"
        raise UserError(f"no device {str(device)!r} here{why}: give another, or none.") from error
    return torch.device(device)
