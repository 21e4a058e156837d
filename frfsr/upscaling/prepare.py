"""References on their way to a network: which views of them, how large, each encoded once."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from frfsr.degrade import SCALE
from frfsr.errors import UserError
from frfsr.imageio import Photo
from frfsr.network import Network
from frfsr.pixels import to_tensor
from frfsr.upscaling import memory, references
from frfsr.upscaling.fitting import BESIDE, SIDES, Fitting, Size, scaled, together
from frfsr.upscaling.nearby import GRID, Located, Nearby, locate, part_size
from frfsr.upscaling.options import Options, View

ENOUGH = 0.93  # of their size at which references match as well as at all of it
SEARCHING = 300  # bytes for each pixel of a view while it is compared with the photo

Key = tuple[bytes, float, int]
"""A digest of the reference's pixels, the zoom and the turn."""


class EncodedReferences:
    """What one network made of the last photo's references, for the next photo: those of a batch often share them.

    It takes no memory that one photo would not: what the next one does not use is forgotten before anything is encoded
    for it.
    """

    def __init__(self) -> None:
        self.held: dict[Key, Any] = {}

    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return sum(tensor.nbytes for encoded in self.held.values() for tensor in memory.tensors(encoded))

    def keep(self, keys: Collection[Key]) -> None:
        """Forget all but these."""
        self.held = {key: encoded for key, encoded in self.held.items() if key in keys}

    def get(self, key: Key, encode: Callable[[], Any]) -> Any:
        """What is held, or what `encode` makes."""
        if key not in self.held:
            self.held[key] = encode()
        return self.held[key]


class Preparation:
    """Chooses views of one photo's references, reduces them as far as the memory asks, encodes them.

    Args:
        model: in evaluation mode, on its device.
        options: settings.
        names: of the references, for messages.
        kept: encoded references of the photo before.
        fitting: tells what fits into the memory.
    """

    def __init__(
        self, model: Network, options: Options, names: Sequence[str], kept: EncodedReferences, fitting: Fitting
    ):
        self.model, self.options, self.names, self.kept, self.fitting = model, options, names, kept, fitting
        self.weight = next(model.parameters())
        self.views: list[View] = []
        self.sizes: list[Size] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def encode(self, lr: Tensor, images: Sequence[Photo]) -> Any:
        """Encode what is used of the references: as the network takes them, or None without any.

        Args:
            lr: (1, 3, h, w), RGB in [0, 1].
            images: the references; only one at a time becomes a tensor, which takes four times what the photo does.

        Returns:
            The encoded references; None without any.
        """
        if not images or self.options.strength == 0 or self.model.max_references == 0:
            if images and self.model.max_references == 0:
                self.warnings.append(f"{self.model.architecture} takes no references: they change nothing.")
            self.kept.keep([])
            return None
        views = self.choose_views(lr, images)
        sizes = [image.pixels.shape[:2] for image in images]
        seen = [references.seen_size(sizes[view.reference], view) for view in views]
        factor = self.fitting.reduction(seen, self.options.tile or BESIDE)
        if factor < ENOUGH and self.model.searches:
            whole = [replace(view, size=(width, height)) for view, (height, width) in zip(views, seen, strict=True)]
            searched = [locate(lr, images[view.reference].filled_rgb(), view, self.weight.device) for view in whole]
            parts = [each for each in zip(whole, searched, strict=True) if each[1].found.any()]
            if parts:
                return self.encode_parts(images, whole, parts)
        if factor < 1:
            self.notes.append(f"references are reduced to {factor:.0%} of their size to fit into the memory")
        self.views = [self.reduced(view, images, factor) for view in views]
        digests = {number: digest(images[number]) for number in {view.reference for view in views}}
        keys = [(digests[view.reference], view.zoom, view.turn) for view in self.views]
        self.kept.keep(keys)
        encoded = [
            self.kept.get(key, partial(self.encode_view, images, view))
            for key, view in zip(keys, self.views, strict=True)
        ]
        self.sizes = [(view.size[1], view.size[0]) for view in self.views]
        return together(self.model, encoded)

    def encode_parts(
        self, images: Sequence[Photo], views: Sequence[View], parts: Sequence[tuple[View, Located]]
    ) -> Any:
        """Encode parts of views, for each tile others, and beside them the views reduced.

        Args:
            images: the references.
            views: of them, of full size.
            parts: those of which parts are taken, and where the photo's content lies in them.

        Returns:
            The encoded references.
        """
        self.kept.keep([])
        self.fitting.settled = True
        seen = [(view.size[1], view.size[0]) for view in views]
        side, factor = self.divided(seen, [view for view, _ in parts])
        self.notes.append(
            f"references are too large to be taken whole: for each tile {side}x{side} pixels of them, and all of them "
            f"reduced to {factor:.0%} of their size"
        )
        reduced = [self.reduced(view, images, factor) for view in views]
        self.views = [view for view, _ in parts] + reduced
        nearby = Nearby(
            self.views,
            [image.filled_rgb() for image in images],
            [located for _, located in parts],
            whole=(self.pixels(images, view) for view in reduced),
            side=side,
            encode=lambda image: self.model.encode_reference(image.to(self.weight)),
        )
        self.sizes = nearby.sizes()
        return nearby

    def divided(self, seen: Sequence[Size], parts: Sequence[View]) -> tuple[int, float]:
        """Divide the pixels that fit between parts of views and the views reduced, half and half.

        Args:
            seen: sizes of the views.
            parts: those of which parts are taken.

        Returns:
            The side of the parts, and the factor of the views: beside the largest tiles of which parts show what is
            kept, and half of what is seen around it.
        """

        def beside(tile: int) -> tuple[int, float]:
            factor = self.fitting.reduction(seen, tile)
            side = int(factor * (sum(map(prod, seen)) / 2 / len(parts)) ** 0.5)
            factor *= 0.5**0.5
            held = [part_size(view, side) for view in parts] + scaled(seen, factor)
            again = self.fitting.reduction(held, tile)
            return max(GRID, int(side * again) // 4 * 4), factor * again

        if self.options.tile is not None:
            return beside(self.options.tile)
        chosen = beside(BESIDE)
        for tile in (side for side in SIDES if side > BESIDE):
            shown = SCALE * (tile + self.model.halo)
            if chosen[0] < shown:
                break
            try:
                larger = beside(tile)
            except UserError:  # such tiles leave no room for references
                break
            if larger[0] < shown:
                break
            chosen = larger
        return chosen

    def reduced(self, view: View, images: Sequence[Photo], factor: float) -> View:
        """The view, smaller by a factor."""
        view = replace(view, zoom=view.zoom * factor)
        height, width = references.seen_size(images[view.reference].pixels.shape[:2], view)
        return replace(view, size=(width, height))

    def pixels(self, images: Sequence[Photo], view: View) -> Tensor:
        """A reference as a view shows it, (1, 3, H, W)."""
        image = references.resized_pixels(images[view.reference].filled_rgb(), view.zoom)
        return references.turned(image, view.turn)

    def encode_view(self, images: Sequence[Photo], view: View) -> Any:
        """Encode a reference as a view shows it."""
        return self.model.encode_reference(self.pixels(images, view).to(self.weight))

    def choose_views(self, lr: Tensor, images: Sequence[Photo]) -> list[View]:
        """What of each reference is used."""
        if isinstance(self.options.views, int) and not self.model.takes_views:
            self.notes.append(f"{self.model.architecture} takes references only as they are: views change nothing")
        if self.options.views == "off" or not self.model.takes_views:
            return self.as_many_as_it_takes([View(number) for number in range(len(images))])
        most = 1 if self.options.views == "auto" else self.options.views
        chosen = []
        for number, image in enumerate(images):
            largest = max(0, self.fitting.free) / SEARCHING
            found = references.search(lr, image.filled_rgb(), self.weight.device, largest)
            if found and references.is_unrelated(found):
                self.warnings.append(
                    f"{self.name(number)} seems to show nothing of the photo: only similar textures are taken from it."
                )
            chosen += references.choose(number, found, most)
        return self.as_many_as_it_takes(chosen)

    def as_many_as_it_takes(self, views: list[View]) -> list[View]:
        """The most coherent views, where the network cannot take all."""
        if self.model.max_references is not None and len(views) > self.model.max_references:
            views = sorted(views, key=lambda view: -(view.coherence or 0))[: self.model.max_references]
            names = ", ".join(self.name(view.reference) for view in views)
            self.notes.append(f"the network takes {self.model.max_references} reference: {names}")
        return views

    def name(self, number: int) -> str:
        """Of a reference, for messages."""
        return self.names[number] if number < len(self.names) else f"reference {number + 1}"


def digest(photo: Photo) -> bytes:
    """Tells photos apart by their pixels."""
    pixels = np.ascontiguousarray(photo.pixels)
    known = blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    known.update(pixels.data)
    return known.digest()


def color_tensor(photo: Photo) -> Tensor:
    """The colour of a photo as (1, 3, H, W) float32 RGB in [0, 1], continued into what is transparent."""
    return to_tensor(photo.filled_rgb())[None]
