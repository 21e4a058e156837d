"""Names that the command line checks before torch is imported."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from frfsr.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices on which networks run, as torch names them; a number may follow: cuda:1."""

HUB_NAME = r"[\w.-]+/[\w.-]+"
"""Pattern of OWNER/NAME."""


def require_known(kind: str, name: str, names: Sequence[str]) -> None:
    """Refuse an unknown name, with the nearest one and all that there are.

    Args:
        kind: of thing, for the message.
        name: that was given.
        names: that are known.

    Raises:
        UserError: it is none of them.
    """
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown {kind} {name!r}: {hint}choose one of {', '.join(names)}.")


def require_device_name(device: str) -> None:
    """Refuse a device of a kind on which no network runs; whether it is there, torch knows.

    Args:
        device: its name.

    Raises:
        UserError: no network runs there.
    """
    if not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", device):
        raise UserError(f"no network runs on a device {device!r}: give {', '.join(DEVICES)}, or cuda:1.")


def require_pack_name(file: str | Path) -> None:
    """Refuse what is no name of a pack.

    Args:
        file: that is to be written.

    Raises:
        UserError: it does not end in .parquet.
    """
    if Path(file).suffix != ".parquet":
        raise UserError(f"{file}: the pack's name must end in .parquet.")
