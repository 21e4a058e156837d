"""Published checkpoints -> modules of this package, and the folders that `frfsr convert` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frfsr.architectures import find_architecture
from frfsr.cards import converted
from frfsr.checkpoints import read_checkpoint
from frfsr.errors import UserError
from frfsr.files import added_to_folder
from frfsr.parts import Extractor, ReuseNetwork, RRDBNet
from frfsr.states import load_published, require_parts, unwrap
from frfsr.stored import StoredModule

__all__ = [
    "Extractor",
    "RRDBNet",
    "ReuseNetwork",
    "convert_files",
    "from_published",
    "load_published",
    "read_checkpoint",
    "unwrap",
]


def from_published(state_dict: Mapping[str, Any], arch: str) -> StoredModule:
    """Make the module of a published architecture with the weights of its checkpoint, in evaluation mode.

    Sizes and numbers of blocks are read from the shapes. Every state dict may be wrapped as checkpoint files are
    ("params", "params_ema", "state_dict", "module." before the keys).

    Args:
        state_dict: tensors under the published keys; for architectures that are published in several files, such as
            frfsr {"net_g": ..., "extractor": ..., "vgg": ..., "rrdb": ...}, a mapping of them. VGG19 may also have
            torchvision's names.
        arch: a key of `frfsr.architectures.ARCHITECTURES`.

    Returns:
        The module.

    Raises:
        UserError: a key is missing, unknown or of a wrong shape; it names the keys.
    """
    return find_architecture(arch).from_published(state_dict).eval()


def convert_files(checkpoints: Sequence[str], output: str | Path, arch: str) -> None:
    """Write config.json and model.safetensors of published checkpoints, for `frfsr.load`.

    Nothing is written before everything has been read and found to fit.

    Args:
        checkpoints: a .pth or .safetensors file; `part=file` for each part of an architecture that has several.
        output: a folder, made if it does not exist.
        arch: a key of `frfsr.architectures.ARCHITECTURES`.

    Raises:
        UserError: files cannot be read or do not fit the architecture, or the folder cannot be written.
    """
    parts = find_architecture(arch).checkpoint_parts
    if parts:
        files = dict(checkpoint.split("=", 1) for checkpoint in checkpoints if "=" in checkpoint)
        if len(files) != len(checkpoints):
            raise UserError(f"{arch} needs files as {' '.join(f'{part}=FILE' for part in parts)}.")
        require_parts(files, parts, arch)
        state_dict = {part: read_checkpoint(file) for part, file in files.items()}
    elif len(checkpoints) == 1:
        state_dict = read_checkpoint(checkpoints[0])
    else:
        raise UserError(f"{arch} needs one checkpoint, got {len(checkpoints)}.")
    module = from_published(state_dict, arch)
    with added_to_folder(output) as folder:
        module.save_pretrained(folder, model_card_kwargs={"origin": converted(find_architecture(arch).publication)})
