"""What can be set, and what is told about a run; no torch, so that faces check it before they load anything."""

import re
from dataclasses import dataclass
from math import inf
from typing import Literal, cast, get_args

from frfsr.errors import UserError

Upsampled = Literal["exact", "8-bit"]
Search = Literal["auto", "exact", "fast"]
SMALLEST_TILE = 32  # LR pixels that a tile keeps of itself, at least
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Options:
    """Settings of one run; the same for the command line, the page, Python and `frfsr eval`.

    Attributes:
        views: whether references are also looked at resized and turned: "auto", "off", or at most how many views of
            each are used at the same time (1, 2, ...).
        search: of the references: "exact", "fast" (coarse to fine), or "auto": exact while it takes under a minute,
            by an estimate from the sizes alone.
        strength: 0 ... 1, how much of what the references change is taken: 0 is the network's single-image result.
        upsampled: what the network sees as the enlarged LR: "exact" (it enlarges by itself) or "8-bit" (enlarged by
            Pillow and rounded, as in the published evaluation).
        tile: side in LR pixels of the pieces that larger photos are processed in, at least 32; by default as large as
            the memory allows.
        max_memory: bytes that the process may take; by default most of what is free. Tiles, and then references, are
            made as small as it asks.
    """

    views: Literal["auto", "off"] | int = "auto"
    search: Search = "auto"
    strength: float = 1.0
    upsampled: Upsampled = "exact"
    tile: int | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if self.views not in ("auto", "off") and not (is_number(self.views, int) and self.views >= 1):
            raise UserError(f"views is {self.views!r}: give auto, off or a number from 1 on.")
        if not is_number(self.strength, int, float) or not 0 <= self.strength <= 1:
            raise UserError(f"strength is {self.strength!r}: it must lie between 0 and 1.")
        for what, given, ways in (
            ("way to upsample", self.upsampled, get_args(Upsampled)),
            ("search", self.search, get_args(Search)),
        ):
            if given not in ways:
                raise UserError(f"unknown {what} {given!r}: choose one of {', '.join(ways)}.")
        if self.tile is not None and not (is_number(self.tile, int) and self.tile >= SMALLEST_TILE):
            raise UserError(f"tile is {self.tile!r} pixels: it must be a whole number, at least {SMALLEST_TILE}.")
        if self.max_memory is not None and not (is_number(self.max_memory, int, float) and 0 < self.max_memory < inf):
            raise UserError(f"max_memory is {self.max_memory!r} bytes: it must be a number above 0.")


def is_number(value: object, *kinds: type) -> bool:
    """Whether it is a number of these kinds; to Python, true and false are whole numbers."""
    return isinstance(value, kinds) and not isinstance(value, bool)


DEFAULTS = Options()


def parse_views(text: str) -> Literal["auto", "off"] | int:
    """Read auto, off or a number, as a command line gives it; `Options` says what is wrong with others."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else cast(Literal["auto", "off"], text)


def parse_memory(text: str) -> int:
    """Read an amount of memory.

    Args:
        text: like 2GB, 800M or 2.5g.

    Returns:
        Bytes.

    Raises:
        UserError: it is none.
    """
    if (amount := parse_amount(text, "i?B?")) is None:
        raise UserError(f"{text!r} is no amount of memory: write for example 2GB or 800MB.")
    return amount


def parse_pixels(text: str) -> int:
    """Read a number of pixels.

    Args:
        text: like 50MP, 50M or 50000000.

    Returns:
        At least 1.

    Raises:
        UserError: it is none.
    """
    if not (amount := parse_amount(text, "P?")):
        raise UserError(f"--max-pixels is {text}: it must be a number of pixels, at least 1: for example 50MP.")
    return amount


def parse_amount(text: str, unit: str) -> int | None:
    """Read a number that may end in K, M, G or T and in a unit, given as a pattern; None if it is none."""
    found = re.fullmatch(rf"(\d{{1,18}}(?:\.\d+)?)\s*([KMGT]?){unit}", text.strip(), re.IGNORECASE | re.ASCII)
    return int(float(found[1]) * UNITS[found[2].upper()]) if found else None


@dataclass(frozen=True)
class View:
    """A reference as the network sees it.

    Attributes:
        reference: its number, from 0.
        zoom: by which it is resized.
        turn: by which it is turned counter-clockwise, in degrees: 0, 90, 180 or 270.
        coherence: share of neighbouring positions whose matches are neighbours too, from 0, as many as by chance, to 1;
            None if not looked for.
        size: (width, height) in pixels.
        share: of the photo's positions that are matched with it, 0 ... 1.
    """

    reference: int
    zoom: float = 1.0
    turn: int = 0
    coherence: float | None = None
    size: tuple[int, int] = (0, 0)
    share: float = 0.0


@dataclass(frozen=True)
class Report:
    """What a run did, for people.

    Attributes:
        views: what was used of the references, in their order; `Matches.source` counts these.
        tile: side of the pieces in LR pixels.
        tiles: their number.
        confidence: mean score of the matches, -1 ... 1; None without references.
        notes: what was decided and a person may want to know, one line each.
        warnings: what a person should know, one line each.
    """

    views: tuple[View, ...]
    tile: int
    tiles: int
    confidence: float | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def duration(seconds: float) -> str:
    """A time as people say it: 3.2 s, 12 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
