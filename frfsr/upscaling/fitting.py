"""How large references and tiles may be, so that a run keeps to its memory; known before anything is computed."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from frfsr import atlas
from frfsr.degrade import SCALE
from frfsr.errors import UserError
from frfsr.network import Network, ReferenceFeatures, SRResult
from frfsr.upscaling import memory
from frfsr.upscaling.held import usage
from frfsr.upscaling.options import SMALLEST_TILE

Size = tuple[int, int]
"""Height and width in pixels."""

SIDES = (SMALLEST_TILE, 48, 64, 96, 128, 192, 256, 384, 512)  # LR pixels: few, so that runs rarely differ by theirs
BESIDE = 64  # LR pixels, side of the tiles for which references leave room
LARGEST_REFERENCES = 2**24  # pixels of all views together that are encoded where memory is no question
SMALLEST_REFERENCE = 64**2  # pixels; references that must be smaller than that are refused
MARGIN = 1.2  # times what tensors hold: what the C library keeps, and what libraries hold for themselves
ABUNDANCE = (256_000, 2_000)  # bytes for a pixel of a tile and of references: more than networks take


class Fitting:
    """What a photo's run needs.

    Args:
        model: in evaluation mode, on its device.
        super_resolve: a tile (1, 3, h, w), encoded references, the tile enlarged or None -> its result.
        size: of the photo.
        free: bytes that the run may take beside its output.
        writing: bytes that are taken beside encoded references while the result is written.
    """

    def __init__(
        self,
        model: Network,
        super_resolve: Callable[[Tensor, Any, Tensor | None], SRResult],
        size: Size,
        *,
        free: int,
        writing: int,
    ):
        self.model, self.super_resolve, self.size = model, super_resolve, size
        self.free, self.writing = free, writing
        self.settled = False  # whether of several references only the map is kept, see `frfsr.atlas.settled`
        self.rehearsed: dict[tuple[tuple[Size, ...], int, bool], int] = {}  # a rehearsal takes up to a second

    def needed(self, references: Sequence[Size], side: int) -> int:
        """Bytes at most.

        Args:
            references: sizes of all views that are encoded.
            side: of the tiles, in LR pixels.

        Returns:
            Bytes that encoding them, computing one tile and joining it with its neighbours hold.
        """
        key = tuple(references), side, self.settled
        if key not in self.rehearsed:
            self.rehearsed[key] = self.rehearse(references, side)
        return self.rehearsed[key]

    def rehearse(self, references: Sequence[Size], side: int) -> int:
        """Find out what `needed` tells."""
        height, width = self.size
        joined = 2 * 3 * 4 * SCALE**2 * min(side, height) * width

        def compute() -> Any:
            like = next(self.model.parameters())
            images = (torch.empty(1, 3, *size, dtype=like.dtype, device="meta") for size in references)
            encoded: Any = [self.model.encode_reference(image) for image in images] or None
            if encoded is not None:
                encoded = together(self.model, encoded)
                encoded = atlas.settled(encoded) if self.settled else encoded
            self.super_resolve(torch.empty(1, 3, *self.seen(side), dtype=like.dtype, device="meta"), encoded, None)
            return encoded

        before = memory.resident()
        found = usage(compute)
        self.free -= max(0, memory.resident() - before)  # of PyTorch, which loads 150 MB when it is first asked
        return max(int(MARGIN * found.peak) + joined, int(MARGIN * found.left) + self.writing)

    def seen(self, side: int) -> list[int]:
        """Height and width of what a tile of this side sees, at most."""
        around = 2 * self.model.halo + self.model.tile_step - 1
        return [min(length, side + around) for length in self.size]

    def fits(self, references: Sequence[Size], side: int) -> bool:
        """Whether a run with these references and tiles keeps to the memory."""
        of_tile, of_references = ABUNDANCE
        if of_tile * prod(self.seen(side)) + of_references * sum(map(prod, references)) <= self.free:
            return True
        return self.needed(references, side) <= self.free

    def reduction(self, references: Sequence[Size], side: int = BESIDE) -> float:
        """By which the sides of all references are reduced, so that they leave room for tiles; at most 1.

        Args:
            references: sizes of all views that are encoded.
            side: of the tiles, in LR pixels.

        Returns:
            The factor.

        Raises:
            UserError: hardly anything would be left of them.
        """
        area = min(1.0, LARGEST_REFERENCES / sum(map(prod, references)))
        smallest = [(64, 64)] * len(references)
        side = min(side, max(self.size))
        while not self.fits(scaled(references, area**0.5), side):
            alone, together = self.needed([], side), self.needed(scaled(references, area**0.5), side)
            area *= min(0.9, 0.98 * max(0, self.free - alone) / max(1, together - alone))
            if area * max(map(prod, references)) < SMALLEST_REFERENCE or self.needed(smallest, side) > self.free:
                raise self.refusal(self.needed(smallest, side), "a tile with the references")
        return area**0.5

    def tile(self, references: Sequence[Size]) -> int:
        """The largest side of tiles, in LR pixels, that fits beside references of these sizes.

        Raises:
            UserError: not even the smallest one does.
        """
        longest = max(self.size)
        sides = [side for side in SIDES if side < longest] + ([longest] if longest <= SIDES[-1] else [])
        low, high = 0, len(sides)  # sides[:low] fit, sides[high:] do not
        if self.fits(references, sides[-1]):
            return max(SMALLEST_TILE, sides[-1])
        high -= 1
        while low < high:
            middle = (low + high) // 2
            if self.fits(references, sides[middle]):
                low = middle + 1
            else:
                high = middle
        if not low:
            raise self.refusal(self.needed(references, sides[0]), "a tile")
        return sides[low - 1]

    def refusal(self, needed: int, what: str) -> UserError:
        """Say that the memory is too small."""
        free, more = (f"{bytes_ / 1e6:.0f} MB" for bytes_ in (max(0, self.free), needed - self.free + 10**6))
        return UserError(
            f"not enough memory: {what} takes about {needed / 1e6:.0f} MB and {free} are left of what is allowed: "
            f"allow {more} more by --max-memory, or give fewer references."
        )


def together(model: Network, encoded: Sequence[Any]) -> Any:
    """Encoded references as the network takes them."""
    several = model.max_references is None and isinstance(encoded[0], ReferenceFeatures)
    return atlas.lay_out(encoded) if several else encoded[0]


def scaled(sizes: Sequence[Size], factor: float) -> list[Size]:
    """Sizes times a factor."""
    return [(max(1, round(factor * height)), max(1, round(factor * width))) for height, width in sizes]
