"""One photo on its way through a network: views, memory, tiles; tensors in, strips of the result out."""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import count
from math import prod
from time import monotonic
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from frfsr import atlas
from frfsr.base import require_refining
from frfsr.degrade import SCALE, upscale_bicubic
from frfsr.errors import UserError
from frfsr.imageio import Photo
from frfsr.network import Network, SRResult
from frfsr.pixels import to_pixels
from frfsr.upscaling import memory
from frfsr.upscaling.fitting import Fitting, Size
from frfsr.upscaling.matches import Matches
from frfsr.upscaling.nearby import Nearby, in_views
from frfsr.upscaling.options import SMALLEST_TILE, Options, Report, View, duration
from frfsr.upscaling.prepare import EncodedReferences, Preparation
from frfsr.upscaling.tiles import Span, cut, place, spans, strips

PAIRS_A_MINUTE = (5 * 10**9, 10**12)  # of positions that an exact search compares: one CPU core, a GPU
ENLARGED = 16 * 3 * (4 + 4 + 1)  # bytes for each LR pixel while the enlarged photo is made in 8 bits
LONG = 60  # seconds from which on a person wants to know
LARGEST = 8.0  # value of a result, where 0 to 1 is a picture: trained networks stay within 2, broken ones do not

Progress = bool | Callable[[int, int], object]
"""True: a bar on stderr; a function is told how many tiles are done, and of how many."""


class Run:
    """One photo on its way: `strips` does it, then `report` and `matches` tell what was done.

    Args:
        model: in evaluation mode, on its device.
        options: settings.
        base: a network without references whose image `model` refines, on the same device; None: its own.
        names: of the references, for messages.
        progress: see `Progress`.
        kept: encoded references of the photo before, by the same model.
        output: what the result takes, for which memory is left.
    """

    def __init__(
        self,
        model: Network,
        options: Options,
        base: Network | None = None,
        names: Sequence[str] = (),
        *,
        progress: Progress = False,
        kept: EncodedReferences | None = None,
        output: memory.Output | None = None,
    ):
        if base is not None:
            require_refining(model)
        self.model, self.options, self.base, self.names, self.progress = model, options, base, names, progress
        self.weight = next(model.parameters())
        self.kept = EncodedReferences() if kept is None else kept
        self.output = memory.Output() if output is None else output
        self.views: list[View] = []
        self.sizes: list[Size] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.tile = self.tiles = 0
        self.matches: Matches | None = None

    @torch.inference_mode()
    def strips(self, lr: Tensor, images: Sequence[Photo]) -> Iterator[Tensor]:
        """Compute the result.

        Args:
            lr: (1, 3, h, w) RGB in [0, 1].
            images: the references, of any sizes.

        Yields:
            The image (3, 4h, 4w) from top to bottom in strips, float32, on the CPU, not clamped.

        Raises:
            UserError: out of memory, or a result that is no image.
        """
        try:
            fitting = self.fitting(lr)
            encoded = self.prepare(lr, images, fitting)
            size = self.options.tile or fitting.tile(self.sizes)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_exhausted(error):
                raise
            raise UserError(
                "out of memory: reduce the references, give fewer of them, or take another device."
            ) from error
        self.start(lr, size)
        upsampled = enlarged_8_bit(lr) if self.options.upsampled == "8-bit" else None
        encoded = self.choose_search(lr, encoded)
        while not (yield from self.render(lr, upsampled, encoded)):
            self.tile = max(SMALLEST_TILE, self.tile // 2)
        if self.tile < min(size, max(lr.shape[-2:])):
            self.notes.append(f"memory ran out: tiles of {self.tile} pixels instead of {size}")

    def fitting(self, lr: Tensor) -> Fitting:
        """What can be told about the memory that this photo needs."""
        if self.options.max_memory is not None:
            memory.give_back()
        free = memory.budget(self.options.max_memory, self.weight.device, held=self.kept.nbytes())
        if self.weight.device.type == "cpu":
            free -= self.output.held
        if self.options.upsampled == "8-bit":
            free -= ENLARGED * lr[0, 0].numel()
        size = (lr.shape[-2], lr.shape[-1])
        return Fitting(self.model, self.super_resolve, size, free=free, writing=self.output.writing)

    def prepare(self, lr: Tensor, images: Sequence[Photo], fitting: Fitting) -> Any:
        """Encode what is used of the references; None without any."""
        preparation = Preparation(self.model, self.options, self.names, self.kept, fitting)
        encoded = preparation.encode(lr, images)
        self.views, self.notes, self.warnings = preparation.views, preparation.notes, preparation.warnings
        self.sizes = preparation.sizes
        return encoded

    def render(self, lr: Tensor, upsampled: Tensor | None, encoded: Any) -> Generator[Tensor, None, bool]:
        """Do what `strips` does, after all preparations.

        Args:
            lr: see `strips`.
            upsampled: the LR enlarged, (1, 3, 4h, 4w); None if the network enlarges by itself.
            encoded: the references.

        Yields:
            See `strips`.

        Returns:
            Whether it was done; False, without having yielded, if the tiles are too large.

        Raises:
            UserError: out of memory with the smallest tiles.
        """
        rows, columns = self.spans(lr)
        self.tiles, begun, clock, done = len(rows) * len(columns), False, monotonic(), count(1)
        with tqdm(total=self.tiles, desc="upscale", unit="tile", disable=self.progress is not True) as steps:

            def tile(row: Span, column: Span) -> Tensor:
                enlarged = None if upsampled is None else cut(upsampled, row, column, SCALE).to(self.weight)
                part = cut(lr, row, column).to(self.weight)
                if isinstance(encoded, Nearby):
                    references, *where = encoded.near(row, column)
                    result = self.super_resolve(part, references, enlarged)
                    found = result.correspondence and in_views(result.correspondence, *where)
                else:
                    result = self.super_resolve(part, place(encoded, row, column), enlarged)
                    found = result.correspondence
                if found is not None and self.matches is not None:
                    self.matches.keep(found, row, column)
                steps.update()
                if callable(self.progress):
                    self.progress(next(done), self.tiles)
                if steps.n == 1 < self.tiles:
                    seconds = monotonic() - clock
                    self.announce(seconds * self.tiles, f"{self.tiles} tiles, the first took {seconds:.0f} s")
                return result.image[0]

            try:
                for strip in strips(rows, columns, tile):
                    self.require_image(strip)
                    begun = True
                    yield strip
            except (RuntimeError, MemoryError) as error:
                if not memory.is_exhausted(error):
                    raise
                if begun or self.tile <= SMALLEST_TILE:
                    raise UserError(
                        f"out of memory with tiles of {self.tile} pixels: reduce the references, give fewer of them, "
                        "end other programs or take another device."
                    ) from error
        return begun

    def require_image(self, strip: Tensor) -> None:
        """Refuse what is no image.

        Args:
            strip: of the result.

        Raises:
            UserError: it has NaN or infinite values, or some that no picture has.
        """
        if (strip.abs() <= LARGEST).all():  # NaN is not
            return
        half = self.weight.dtype == torch.float16
        remedy = "compute in float32 or bfloat16" if half else "its weights are of no use, take others"
        what = "values far beyond [0, 1]" if strip.isfinite().all() else "NaN or infinite values"
        raise UserError(f"the network's result has {what}: {remedy}.")

    def announce(self, seconds: float, reason: str) -> None:
        """Say how long it will take, where that is long, and from what this follows."""
        if self.progress is True and seconds > LONG:
            tqdm.write(f"frfsr: about {duration(seconds)}: {reason}", file=sys.stderr)

    def choose_search(self, lr: Tensor, encoded: Any) -> Any:
        """Let the references be searched as the options say: exactly, unless that takes more than a minute."""
        if not self.model.searches or not isinstance(encoded, atlas.Atlas | Nearby):
            if self.options.search == "fast" and encoded is not None:
                self.notes.append(f"{self.model.architecture} searches in its own way: search changes nothing")
            return encoded
        pairs = lr[0, 0].numel() * sum(map(prod, self.sizes)) // SCALE**2
        minutes = pairs / PAIRS_A_MINUTE[self.weight.device.type == "cuda"]
        fast = self.options.search == "fast" or (self.options.search == "auto" and minutes > 1)
        if fast:
            exactly = duration(60 * minutes)
            self.notes.append(f"references are searched coarse to fine: exactly it takes about {exactly}")
        elif minutes > 1:
            self.announce(60 * minutes, "the search is exact")
        if isinstance(encoded, Nearby):
            encoded.fast = fast
            return encoded
        return encoded._replace(fast=fast)

    def start(self, lr: Tensor, size: int) -> None:
        """Decide the tiles, and make room for what is remembered of them."""
        self.tile = min(size, max(lr.shape[-2:]))
        if self.views:
            self.matches = Matches.none_yet(*lr.shape[-2:])

    def spans(self, lr: Tensor) -> tuple[list[Span], list[Span]]:
        """Rows and columns of tiles."""
        model = self.model
        rows, columns = (spans(side, self.tile, model.halo, model.tile_step) for side in lr.shape[-2:])
        return rows, columns

    def super_resolve(self, lr: Tensor, encoded: Any, upsampled: Tensor | None) -> SRResult:
        """One tile (1, 3, h, w), at the strength that was asked for."""
        given: dict[str, Tensor] = {}
        if self.base is not None and self.model.refines is not None:
            given[self.model.refines] = self.base(lr, None, upsampled).image
        result = self.model(lr, encoded, upsampled, **given)
        if encoded is None or self.options.strength == 1:
            return result
        alone = self.model(lr, None, upsampled, **given).image
        return result._replace(image=torch.lerp(alone, result.image, self.options.strength))

    def report(self) -> Report:
        """What was done."""
        views, confidence = self.views, None
        if self.matches is not None:
            counts = np.bincount(self.matches.source.ravel(), minlength=len(views)) / self.matches.source.size
            views = [replace(view, share=float(count)) for view, count in zip(views, counts, strict=True)]
            confidence = float(self.matches.score.mean())
        return Report(tuple(views), self.tile, self.tiles, confidence, tuple(self.notes), tuple(self.warnings))


def enlarged_8_bit(lr: Tensor) -> Tensor:
    """The LR image (1, 3, h, w) enlarged by Pillow's bicubic interpolation and rounded to 8 bits: (1, 3, 4h, 4w)."""
    pixels = upscale_bicubic(to_pixels(lr[0]))
    return rearrange(torch.from_numpy(pixels.astype(np.float32) / 255), "h w c -> 1 c h w")
