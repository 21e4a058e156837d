"""Any photo and any references in, the photo four times as large out: sizes, tiles, channels and bit depths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frfsr.architectures import load
from frfsr.base import load_base
from frfsr.degrade import SCALE
from frfsr.imageio import Photo, photo_from_pil, photo_to_pil, read_photo
from frfsr.imageio.alpha import restore_flat
from frfsr.network import Network
from frfsr.pixels import to_pixels, to_tensor
from frfsr.upscaling.options import DEFAULTS, Options, Report
from frfsr.upscaling.run import Matches, Progress, Run

PhotoLike = Image.Image | str | Path


class Upscaled(NamedTuple):
    """What a run returns.

    photo: (4h, 4w, C), as the input; report: what was done for it; matches: where the textures come from, None without
    references.
    """

    photo: Photo
    report: Report
    matches: Matches | None


def upscale(
    lr: PhotoLike,
    references: PhotoLike | Sequence[PhotoLike] = (),
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options: Any,
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
    photo, *sharp = [
        photo_from_pil(image) if isinstance(image, Image.Image) else read_photo(image) for image in (lr, *references)
    ]
    if not isinstance(model, torch.nn.Module):
        model = load(model, device, dtype)
    if isinstance(base, str | Path):
        base = load_base(base, model)
    return photo_to_pil(upscale_photo(photo, sharp, model, settings, base=base).photo)


def upscale_photo(
    photo: Photo,
    references: Sequence[Photo],
    model: Network,
    options: Options = DEFAULTS,
    *,
    base: Network | None = None,
    names: Sequence[str] = (),
    progress: Progress = False,
) -> Upscaled:
    """Enlarge a photo (h, w, C) to (4h, 4w, C) of the same channels and bit depth.

    Args:
        photo: the LR photo, any size.
        references: sharp photos of any sizes, or none.
        model: in evaluation mode, on its device.
        options: settings.
        base: a network without references whose image `model` refines, on the same device; None: its own.
        names: of the references, for messages.
        progress: True shows a bar on stderr; a function is told the tiles that are done, and of how many.

    Raises:
        UserError: out of memory, a result that is no image, or `model` refines no other network's image.
    """
    height, width, channels = photo.pixels.shape
    result = np.empty((SCALE * height, SCALE * width, channels), photo.pixels.dtype)
    if photo.has_alpha:
        result[..., -1] = enlarge_alpha(photo.pixels[..., -1])
    color = result[..., : channels - photo.has_alpha]
    run = Run(model, options, base, names, progress=progress)
    top = 0
    for strip in run.strips(color_tensor(photo), [color_tensor(reference) for reference in references]):
        color[top : top + strip.shape[1]] = to_pixels(strip, color.shape[2], color.dtype)
        top += strip.shape[1]
    if photo.has_alpha:
        restore_flat(color, photo.filled_rgb()[..., : color.shape[2]])
    return Upscaled(photo._replace(pixels=result), run.report(), run.matches)


def color_tensor(photo: Photo) -> Tensor:
    """The colour of a photo as (1, 3, H, W) float32 RGB in [0, 1], continued into what is transparent."""
    return to_tensor(photo.filled_rgb())[None]


def enlarge_alpha(alpha: np.ndarray) -> np.ndarray:
    """(h, w) -> (4h, 4w) of the same integer type, by bicubic interpolation."""
    height, width = alpha.shape
    image = Image.fromarray(alpha.astype(np.float32))
    values = np.asarray(image.resize((SCALE * width, SCALE * height), Image.Resampling.BICUBIC))
    return np.rint(values.clip(0, np.iinfo(alpha.dtype).max)).astype(alpha.dtype)
