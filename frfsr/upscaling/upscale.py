"""Any photo and any references in, the photo four times as large out: sizes, tiles, channels and bit depths."""

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from frfsr.architectures import load
from frfsr.base import load_base, require_refining
from frfsr.degrade import SCALE, upscale_bicubic
from frfsr.errors import UserError
from frfsr.imageio import Photo, photo_from_pil, photo_to_pil, read_photo
from frfsr.imageio.alpha import restore_flat
from frfsr.network import Network
from frfsr.upscaling.options import DEFAULTS, Options, ReferenceReport, Report
from frfsr.upscaling.tiles import Span, spans, strips

HALO = 16  # LR pixels of context that a tile needs
REFERENCE_PIXELS = 2**21  # of all references together: 2.1 megapixels
LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's conversion to grey

PhotoLike = Image.Image | str | Path


class Upscaled(NamedTuple):
    """What a run returns: the photo (4h, 4w, C), and what was done for it."""

    photo: Photo
    report: Report


def upscale(
    lr: PhotoLike,
    references: PhotoLike | Sequence[PhotoLike] = (),
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options,
) -> Image.Image:
    """Enlarge a photo four times with the textures of sharp reference photos.

    Args:
        lr: Pillow image or file, any size and mode. The result has its channels: grey stays grey, alpha stays (enlarged
            by bicubic interpolation). Pillow holds 16 bits only for grey; `upscale_photo` keeps them for colour too.
        references: one or several Pillow images or files of any sizes, ideally at the scale of the result. Without
            any, the result is what the network makes of the photo alone.
        model: a loaded network (used as it is), or the name, folder or Hub id of one.
        device: see `frfsr.load`; only for a model given by name.
        dtype: see `frfsr.load`; only for a model given by name.
        base: a single-image network, or its file, folder or name, see `frfsr.base.load_single_image`: `model` refines
            its image instead of one of its own.
        **options: fields of `frfsr.upscaling.options.Options`.

    Raises:
        UserError: an unreadable image, an unknown model, a device that does not exist, a setting out of range.
    """
    settings = Options(**options)
    if isinstance(references, PhotoLike):
        references = [references]
    photo, *references = [
        photo_from_pil(image) if isinstance(image, Image.Image) else read_photo(image) for image in (lr, *references)
    ]
    if not isinstance(model, torch.nn.Module):
        model = load(model, device, dtype)
    if isinstance(base, str | Path):
        base = load_base(base, model)
    return photo_to_pil(upscale_photo(photo, references, model, settings, base=base).photo)


def upscale_photo(
    photo: Photo,
    references: Sequence[Photo],
    model: Network,
    options: Options = DEFAULTS,
    *,
    base: Network | None = None,
    progress: bool = False,
) -> Upscaled:
    """Enlarge a photo (h, w, C) to (4h, 4w, C) of the same channels and bit depth.

    Args:
        photo: the LR photo, any size.
        references: sharp photos of any sizes, or none.
        model: in evaluation mode, on its device.
        options: settings.
        base: a network without references whose image `model` refines, on the same device; None: its own.
        progress: show a progress bar on stderr.

    Raises:
        UserError: out of memory, or `model` refines no other network's image.
    """
    height, width, channels = photo.pixels.shape
    result = np.empty((SCALE * height, SCALE * width, channels), photo.pixels.dtype)
    if photo.has_alpha:
        result[..., -1] = enlarge_alpha(photo.pixels[..., -1])
    color = result[..., : channels - photo.has_alpha]
    run = Run(model, options, base, progress=progress)
    top = 0
    for strip in run.strips(to_tensor(photo), [to_tensor(reference) for reference in references]):
        color[top : top + strip.shape[1]] = to_pixels(strip[None], color.shape[2], color.dtype)
        top += strip.shape[1]
    if photo.has_alpha:
        restore_flat(color, photo.filled_rgb()[..., : color.shape[2]])
    return Upscaled(photo._replace(pixels=result), run.report())


class Run:
    """One photo on its way through the network: what is known of it so far, for the report at its end.

    Args:
        model: in evaluation mode, on its device.
        options: settings.
        base: see `upscale_photo`.
        progress: show a progress bar on stderr.
    """

    def __init__(self, model: Network, options: Options, base: Network | None = None, *, progress: bool = False):
        if base is not None:
            require_refining(model)
        self.model, self.options, self.base, self.progress = model, options, base, progress
        self.references: tuple[ReferenceReport, ...] = ()
        self.scores: list[float] = []
        self.tiles = 0

    def strips(self, lr: Tensor, references: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the result (3, 4h, 4w) from top to bottom in strips, float32, on the CPU, not clamped.

        Args:
            lr: (1, 3, h, w) RGB in [0, 1].
            references: (1, 3, H, W) each, RGB in [0, 1].
        """
        rows, columns = (spans(side, self.options.tile, HALO) for side in lr.shape[-2:])
        self.tiles = len(rows) * len(columns)
        upsampled = enlarged_8_bit(lr) if self.options.upsampled == "8-bit" else None
        weight = next(self.model.parameters())
        with (
            torch.inference_mode(),
            tqdm(total=1 + self.tiles, desc="upscale", unit="tile", disable=not self.progress) as steps,
        ):
            try:
                encoded = self.encode(references)
                steps.update()

                def render(row: Span, column: Span) -> Tensor:
                    piece = cut(lr, row, column).to(weight)
                    enlarged = None if upsampled is None else cut(upsampled, row, column, SCALE).to(weight)
                    image = self.super_resolve(piece, encoded, enlarged)
                    steps.update()
                    return image[0]

                for strip in strips(rows, columns, render):
                    if not strip.isfinite().all():
                        raise UserError("the network's result has NaN or infinite values: its weights are damaged.")
                    yield strip
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"out of memory: try smaller tiles (now {self.options.tile}) or another device."
                ) from error

    def encode(self, references: Sequence[Tensor]):
        """What the network needs of all references; None without any."""
        if not references or self.options.strength == 0:
            return None
        canvas = references[0] if len(references) == 1 else join(references)
        self.references = tuple(
            ReferenceReport(size=reference.shape[:-3:-1], used=reference.shape[:-3:-1], share=1 / len(references))
            for reference in references
        )
        return self.model.encode_reference(canvas.to(next(self.model.parameters())))

    def super_resolve(self, lr: Tensor, encoded, upsampled: Tensor | None) -> Tensor:
        """One tile (1, 3, h, w) -> (1, 3, 4h, 4w), at the strength that was asked for."""
        given = {} if self.base is None else {self.model.refines: self.base(lr, None, upsampled).image}
        result = self.model(lr, encoded, upsampled, **given)
        if result.correspondence is not None:
            self.scores.append(float(result.correspondence.score.mean()))
        if encoded is None or self.options.strength == 1:
            return result.image
        alone = self.model(lr, None, upsampled, **given).image
        return torch.lerp(alone, result.image, self.options.strength)

    def report(self) -> Report:
        """What was done."""
        confidence = sum(self.scores) / len(self.scores) if self.scores else None
        return Report(self.references, self.tiles, confidence)


def cut(image: Tensor, row: Span, column: Span, scale: int = 1) -> Tensor:
    """What a tile sees of an image (..., scale * h, scale * w)."""
    return image[..., scale * row.start : scale * row.stop, scale * column.start : scale * column.stop]


def enlarged_8_bit(lr: Tensor) -> Tensor:
    """The LR image (1, 3, h, w) enlarged by Pillow's bicubic interpolation and rounded to 8 bits: (1, 3, 4h, 4w)."""
    pixels = upscale_bicubic(to_pixels(lr, 3, np.uint8))
    return rearrange(torch.from_numpy(pixels.astype(np.float32) / 255), "h w c -> 1 c h w")


def join(references: Sequence[Tensor]) -> Tensor:
    """References (1, 3, H, W) -> one canvas that shows them all, side by side or stacked, whichever is smaller.

    Gaps repeat the borders. The canvas is bounded by `shrink`.
    """
    heights, widths = zip(*(reference.shape[-2:] for reference in references), strict=True)
    tallest, widest = max(heights), max(widths)
    if tallest * sum(widths) <= widest * sum(heights):
        return shrink(torch.cat([pad_to(reference, tallest, reference.shape[-1]) for reference in references], dim=3))
    return shrink(torch.cat([pad_to(reference, reference.shape[-2], widest) for reference in references], dim=2))


def pad_to(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the right and bottom borders of (1, 3, H, W) up to (1, 3, height, width)."""
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), mode="replicate")


def shrink(image: Tensor) -> Tensor:
    """At most REFERENCE_PIXELS of (1, 3, H, W): time and memory grow with the reference."""
    factor = sqrt(REFERENCE_PIXELS / (image.shape[-2] * image.shape[-1]))
    return image if factor >= 1 else resize(image, factor)


def resize(image: Tensor, factor: float) -> Tensor:
    """Antialiased bicubic interpolation of (1, 3, H, W) in [0, 1]."""
    height, width = (max(1, int(factor * side)) for side in image.shape[-2:])
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def enlarge_alpha(alpha: np.ndarray) -> np.ndarray:
    """(h, w) -> (4h, 4w) of the same integer type, by bicubic interpolation."""
    height, width = alpha.shape
    image = Image.fromarray(alpha.astype(np.float32))
    values = np.asarray(image.resize((SCALE * width, SCALE * height), Image.Resampling.BICUBIC))
    return np.rint(values.clip(0, np.iinfo(alpha.dtype).max)).astype(alpha.dtype)


def to_tensor(photo: Photo) -> Tensor:
    """Return the colour of a photo as (1, 3, H, W) float32 RGB in [0, 1], continued into what is transparent."""
    color = photo.filled_rgb()
    values = torch.from_numpy(color.astype(np.float32) / np.iinfo(color.dtype).max)
    return rearrange(values, "h w c -> 1 c h w")


def to_pixels(image: Tensor, channels: int, dtype: np.dtype) -> np.ndarray:
    """(1, 3, H, W) float RGB in about [0, 1] -> (H, W, channels) integers over the whole range of `dtype`."""
    values = rearrange(image.float().clamp(0, 1).cpu().numpy(), "1 c h w -> h w c")
    if channels == 1:
        values = (values @ LUMA)[..., None]
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)
