"""Names -> files -> weights: the one rule of the project for where weights are, and how they are read safely.

A name is looked up in this order: a packaged name without a slash ("frfsr-tiny"; the folder of that name here is
"./frfsr-tiny"), a file or folder of this machine, a Hub id ("owner/name").
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from frfsr.errors import UserError, one_line
from frfsr.settings import shortened
from frfsr.states import as_kept, require_same_keys

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
"""Version of config.json. Later versions read earlier ones; a file without it is of version 1."""
PACKAGED = Path(__file__).parent / "weights"
CHECKPOINT_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class HubOptions:
    """Which files of a Hub repository, and how they are fetched: as `huggingface_hub.hf_hub_download` names them.

    Of a local model `subfolder` counts too, and `revision` is refused; the others say nothing about it.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    subfolder: str | None = None
    local_files_only: bool = False


class ModelFiles(NamedTuple):
    """A model's two files, and its name for messages."""

    config: Path
    weights: Path
    label: str


def packaged_names() -> str:
    """Names of the weights inside the package, comma-separated."""
    return ", ".join(sorted(folder.name for folder in PACKAGED.glob("*/"))) or "none"


def find_model(name_or_path: str | Path, hub: HubOptions | None = None) -> ModelFiles:
    """Find config.json and model.safetensors of a model.

    Args:
        name_or_path: a packaged name, a folder, or a Hub id.
        hub: see `HubOptions`.

    Returns:
        The two files.

    Raises:
        UserError: there is no such model, with what to give instead; or a local one in a revision.
    """
    hub, folder = hub or HubOptions(), _local(name_or_path)
    if folder is None:
        config, weights = (_download(str(name_or_path), name, hub) for name in (CONFIG, WEIGHTS))
        return ModelFiles(config, weights, str(name_or_path))
    if hub.revision is not None:
        raise UserError(f"{name_or_path} is no model of the Hub but of this machine, without revisions: leave it out.")
    if hub.subfolder is not None:
        folder = folder / hub.subfolder
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder with {CONFIG} and {WEIGHTS}, or convert it first.")
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        inner = folder / "weights"
        hint = f"did you mean {inner}?" if (inner / CONFIG).is_file() else "`frfsr convert` and training make both."
        raise UserError(f"{folder} has no {' and no '.join(missing)}: {hint}")
    label = str(name_or_path) if hub.subfolder is None else str(folder)
    return ModelFiles(folder / CONFIG, folder / WEIGHTS, label)


def find_weights(name_or_path: str | Path, hub: HubOptions | None = None) -> Path:
    """Find one file of weights.

    Args:
        name_or_path: a checkpoint file, or whatever `find_model` takes.
        hub: for a Hub id.

    Returns:
        The file.

    Raises:
        UserError: there is none.
    """
    place = _local(name_or_path)
    if place is None:
        return _download(str(name_or_path), WEIGHTS, hub or HubOptions())
    return place if place.is_file() else find_model(name_or_path).weights


def _local(name_or_path: str | Path) -> Path | None:
    """The file or folder that is meant, or None for a Hub id."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name.strip(".") and "/" not in name and os.path.isdir(PACKAGED / name):
        return PACKAGED / name
    path = Path(name).expanduser()
    if name and os.path.exists(path):  # unlike Path.exists, it bears names that are no paths at all
        return path
    parts = name.split("/")
    is_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or "\\" in name
    is_path |= len(parts) != 2 or not all(parts) or os.path.isdir(parts[0]) or path.suffix in CHECKPOINT_ENDINGS
    if is_path:
        raise UserError(f"no model {name!r}: give a packaged name ({packaged_names()}), a folder or a Hub id.")
    return None


def _download(repository: str, name: str, hub: HubOptions) -> Path:
    """A file of a Hub repository, from the cache if it is there; every failure as one line."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            hf_hub_download(
                repository,
                name,
                revision=hub.revision,
                token=hub.token,
                cache_dir=hub.cache_dir,
                subfolder=hub.subfolder,
                local_files_only=hub.local_files_only,
            )
        )
    except GatedRepoError as error:
        raise UserError(f"{repository} on the Hub wants its conditions accepted, and a token.") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{repository} on the Hub has no revision {hub.revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"no model {repository!r} on the Hub, or it is private and needs a token; packaged are {packaged_names()}."
        ) from error
    except LocalEntryNotFoundError as error:
        reason = "it is neither a folder nor in the cache, and the Hub cannot be reached"
        raise UserError(f"no model {repository!r}: {reason}; packaged are {packaged_names()}.") from error
    except EntryNotFoundError as error:
        place = f"{repository}/{hub.subfolder}" if hub.subfolder else repository
        raise UserError(f"{place} on the Hub has no {name}: it is no model of frfsr.") from error
    except HFValidationError as error:
        raise UserError(f"no model {repository!r}: it is neither a folder nor a valid Hub id.") from error
    except (HfHubHTTPError, OSError) as error:
        reason = one_line(error)[:160]
        raise UserError(f"cannot fetch {repository} from the Hub ({reason}).") from error


def read_config(files: ModelFiles) -> tuple[str, dict[str, Any]]:
    """Read a config.json.

    Args:
        files: whose.

    Returns:
        The architecture's name ("frfsr" where none is named), and its configuration.

    Raises:
        UserError: it is no JSON object, or of a later version.
    """
    try:
        values = json.loads(files.config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{CONFIG} of {files.label} cannot be read: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{CONFIG} of {files.label} is no JSON object.")
    version = values.pop("format", FORMAT)
    if version != FORMAT:
        raise UserError(f"{files.label} has format {shortened(version)}, this version reads {FORMAT}: update frfsr.")
    architecture = values.pop("architecture", "frfsr")
    return architecture if isinstance(architecture, str) else shortened(architecture), values


def load_module(make: Callable[[], Module], files: ModelFiles) -> Module:
    """Make a module and load its weights, whose names and shapes are compared before memory is taken.

    Args:
        make: builds the module; called without memory, on the meta device.
        files: where the weights are.

    Returns:
        The module, on the CPU.

    Raises:
        UserError: the file is damaged, does not fit the configuration, or has values that are not finite.
    """
    with torch.device("meta"):
        module = make()
    empty = module.state_dict()
    expected = {name: list(value.shape) for name, value in empty.items()}
    try:
        with safe_open(files.weights, "pt") as stored:
            found = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
        require_same_keys(expected, found, f"{WEIGHTS} of {files.label} does not fit its {CONFIG}")
        state = load_file(files.weights)
    except (OSError, SafetensorError) as error:
        reason = one_line(error)[:160]
        raise UserError(f"{WEIGHTS} of {files.label} cannot be read ({reason}): fetch it again.") from error
    loaded = {name: as_kept(state[name], kept, f"{name} of {files.label}") for name, kept in empty.items()}
    module.load_state_dict(loaded, assign=True)
    if any(buffer.is_meta for buffer in module.buffers()):  # which are not stored
        module = make()
        module.load_state_dict(loaded)
    return module


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a checkpoint; of a .pth file only tensors and plain containers are unpickled.

    Args:
        path: of a .safetensors or .pth file.

    Returns:
        What it holds, by key, on the CPU.

    Raises:
        UserError: the file is missing, damaged or neither.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"cannot read the checkpoint {path}: it is no file.")
    try:
        with open(path, "rb") as content:
            damaged = damaged_entry(content)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}.") from error
    if damaged:
        raise UserError(f"the checkpoint {path} is damaged ({damaged} has another checksum): fetch it again.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling something else than a checkpoint can fail in any way
        raise UserError(
            f"{path} is not a checkpoint, or not a whole one: give a .pth or .safetensors file of weights."
        ) from error


def damaged_entry(content: BinaryIO) -> str | None:
    """The first part of a .pth file whose checksum, at which torch does not look, is wrong; None if there is none."""
    try:
        with ZipFile(content) as archive:
            return archive.testzip()
    except (BadZipFile, NotImplementedError, RuntimeError):  # not in the form of today, or not even whole
        return None
