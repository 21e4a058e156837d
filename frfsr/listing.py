"""What there is: every architecture at its published size, and the weights inside the package."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from frfsr.architectures import ARCHITECTURES, find_architecture
from frfsr.checkpoints import PACKAGED, WEIGHTS, HubOptions, find_model, read_config
from frfsr.errors import UserError
from frfsr.stored import StoredModule


@dataclass(frozen=True)
class Known:
    """An architecture: name, parameters at the published size, and the facts of its `Publication`."""

    name: str
    title: str
    paper: str
    parameters: int
    needs: str
    licence: str
    weights: str
    code: str
    checkpoint_parts: tuple[str, ...]


@dataclass(frozen=True)
class Packaged:
    """Weights inside the package: name, first line of the model card, architecture, parameters, bytes, licence."""

    name: str
    title: str
    architecture: str
    parameters: int
    bytes: int
    licence: str


def architectures() -> list[Known]:
    """All architectures, in the order of `ARCHITECTURES`; no memory is taken for their parameters."""
    return [
        Known(
            name,
            entry.publication.title,
            entry.publication.paper,
            sum(parameter.numel() for parameter in published_size(entry.module).parameters()),
            entry.module.needs(),
            entry.publication.licence,
            entry.publication.weights,
            entry.publication.code,
            entry.checkpoint_parts,
        )
        for name, entry in ARCHITECTURES.items()
    ]


def published_size(module: type[StoredModule]) -> StoredModule:
    """The module as published, on the meta device."""
    with torch.device("meta"):
        return module.of(module.config_class())


def packaged() -> list[Packaged]:
    """All weights that come with the package, by name; only the headers of the files are read."""
    found = []
    for folder in sorted(PACKAGED.glob("*/")):
        with safe_open(folder / WEIGHTS, "pt") as stored:
            names = list(stored.keys())
            parameters = sum(prod(stored.get_slice(name).get_shape()) for name in names)
        architecture, _ = read_config(find_model(folder.name))
        licence, title = card_facts(folder / "README.md")
        found.append(Packaged(folder.name, title, architecture, parameters, (folder / WEIGHTS).stat().st_size, licence))
    return found


def card_facts(card: Path) -> tuple[str, str]:
    """The licence and the first sentence of a model card."""
    _, facts, text = card.read_text(encoding="utf-8").split("---\n", 2)
    licence = next(line.partition(": ")[2] for line in facts.splitlines() if line.startswith("license: "))
    paragraph = text.strip().split("\n\n")[1]
    return licence, " ".join(paragraph.split()).partition(". ")[0]


def open_module(name_or_path: str, **hub: Any) -> tuple[str, StoredModule]:
    """Load a network, or a part of one, on the CPU; an architecture's name gives it at its published size, unloaded.

    Args:
        name_or_path: an architecture, if there is no file or folder of that name; else as `frfsr.load` takes it.
        **hub: fields of `frfsr.checkpoints.HubOptions`.

    Returns:
        The architecture's name, and the module.

    Raises:
        UserError: there is no such model, or an architecture comes with what chooses files of a model.
    """
    if name_or_path in ARCHITECTURES and not Path(name_or_path).exists():
        if hub.get("revision") is not None or hub.get("subfolder") is not None:
            raise UserError(f"{name_or_path} is an architecture, without revisions and subfolders: leave them out.")
        return name_or_path, published_size(ARCHITECTURES[name_or_path].module)
    files = find_model(name_or_path, HubOptions(**hub))
    architecture, values = read_config(files)
    return architecture, find_architecture(architecture).module.from_files(files, values)
