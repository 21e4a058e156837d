"""Splits, as the Hugging Face Hub means them: which files belong to train, validation or test."""

import re
from collections.abc import Sequence
from pathlib import Path

from frfsr.errors import UserError

KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def named_split(name: str) -> str | None:
    """The split that the name of a file or folder stands for, None if it names none.

    ``train-00000-of-00002.parquet`` and ``my_train.parquet`` are train, ``dev.parquet`` is validation,
    ``night-00000-of-00001.parquet`` is night, ``pairs.parquet`` and ``trainstation.parquet`` are none.
    """
    for split, keywords in KEYWORDS.items():
        if re.search(rf"(?:^|[-._ 0-9])(?:{'|'.join(keywords)})(?:[-._ 0-9]|$)", name):
            return split
    shard = re.match(r"([\w.-]+)-\d{5}-of-\d{5}", name)
    return shard[1] if shard else None


def of_split(files: Sequence[Path], split: str) -> list[Path]:
    """Those of `files` that belong to the split.

    All of them if no name says of which split it is; else those without a split in their name are train's.

    Raises:
        UserError: the names say splits, and this one is not among them.
    """
    named = {file: named_split(file.name) for file in files}
    if not any(named.values()):
        return list(files)
    wanted = named_split(split) or split
    chosen = [file for file, name in named.items() if (name or "train") == wanted]
    if not chosen:
        present = ", ".join(sorted({name or "train" for name in named.values()}))
        raise UserError(f"{files[0].parent} has no split {split}, only {present}; name a file itself to have it anyway")
    return chosen


def split_folder(path: Path, split: str) -> Path:
    """The subfolder named like the split (``val/`` for validation, too) if there is one, else `path` itself."""
    keywords = KEYWORDS.get(named_split(split) or split, ())
    return next((path / name for name in (split, *keywords) if (path / name).is_dir()), path)
