"""What can be set, and what is told about a run; no torch, so that faces check it before they load anything."""

from dataclasses import dataclass
from typing import Literal, get_args

from frfsr.errors import UserError

Upsampled = Literal["exact", "8-bit"]
SMALLEST_TILE = 32  # LR pixels that a tile keeps of itself, at least


@dataclass(frozen=True)
class Options:
    """Settings of one run; the same for the command line, the page, Python and `frfsr eval`.

    Attributes:
        tile: side in LR pixels of the pieces that larger photos are processed in, at least 32; bounds the memory.
        strength: 0 ... 1, how much of what the references change is taken: 0 is the network's single-image result.
        upsampled: what the network sees as the enlarged LR: "exact" (it enlarges by itself) or "8-bit" (enlarged by
            Pillow and rounded, as in the published evaluation).
    """

    tile: int = 192
    strength: float = 1.0
    upsampled: Upsampled = "exact"

    def __post_init__(self) -> None:
        if self.tile < SMALLEST_TILE:
            raise UserError(f"tile is {self.tile} pixels: it must be at least {SMALLEST_TILE}.")
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength is {self.strength}: it must lie between 0 and 1.")
        if self.upsampled not in get_args(Upsampled):
            raise UserError(
                f"unknown way to upsample {self.upsampled!r}: choose one of {', '.join(get_args(Upsampled))}."
            )


DEFAULTS = Options()


@dataclass(frozen=True)
class ReferenceReport:
    """What became of one reference.

    Attributes:
        size: (width, height) of the given image, in pixels.
        used: (width, height) of what the network saw.
        share: of the photo's positions that were matched with it, 0 ... 1.
    """

    size: tuple[int, int]
    used: tuple[int, int]
    share: float


@dataclass(frozen=True)
class Report:
    """What a run did, for people.

    Attributes:
        references: in the order in which they were given.
        tiles: number of pieces.
        confidence: mean score of the matches, -1 ... 1; None without references.
        warnings: one line each.
    """

    references: tuple[ReferenceReport, ...]
    tiles: int
    confidence: float | None
    warnings: tuple[str, ...] = ()
