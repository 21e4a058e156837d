"""Any photo and any references in, the photo four times as large out: sizes, tiles, channels and bit depths."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image
from torch import Tensor

from frfsr.base import load_with_base
from frfsr.degrade import SCALE
from frfsr.imageio import Photo
from frfsr.imageio.alpha import restore_flat
from frfsr.imageio.read import Source
from frfsr.network import Network
from frfsr.pixels import full_range, rounded, to_pixels
from frfsr.upscaling.kinds import PhotoLike, as_photos, as_references, in_kind_of
from frfsr.upscaling.matches import Matches
from frfsr.upscaling.memory import Output
from frfsr.upscaling.options import DEFAULTS, Options, Report
from frfsr.upscaling.prepare import EncodedReferences, color_tensor
from frfsr.upscaling.run import Progress, Run

ROWS_AT_ONCE = 256  # of the result that are more than their pixels at a time


class Upscaled(NamedTuple):
    """The result of a run.

    Attributes:
        photo: (4h, 4w, C), as the input.
        report: what was done for it.
        matches: where the textures come from, None without references.
    """

    photo: Photo
    report: Report
    matches: Matches | None


@overload
def upscale(
    lr: np.ndarray,
    references: PhotoLike | Iterable[PhotoLike] = (),
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options: Any,
) -> np.ndarray: ...


@overload
def upscale(
    lr: Tensor,
    references: PhotoLike | Iterable[PhotoLike] = (),
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options: Any,
) -> Tensor: ...


@overload
def upscale(
    lr: Image.Image | Source,
    references: PhotoLike | Iterable[PhotoLike] = (),
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options: Any,
) -> Image.Image: ...


def upscale(
    lr: PhotoLike,
    references: PhotoLike | Iterable[PhotoLike] = (),
    model: Network | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    *,
    base: Network | str | Path | None = None,
    **options: Any,
) -> PhotoLike:
    """Enlarge a photo four times with the textures of sharp reference photos.

    What comes back is of the kind that went in, with its channels (grey stays grey; alpha is enlarged by bicubic
    interpolation). Values are in [0, 1] for floating point, and over the whole range for uint8 and uint16:

    | `lr`                                                  | result                                            |
    |-------------------------------------------------------|---------------------------------------------------|
    | path, bytes or binary file object of an image file    | Pillow image                                      |
    | Pillow image                                          | Pillow image; 16 bits for grey alone              |
    | NumPy array (h, w) or (h, w, C)                       | array (4h, 4w) or (4h, 4w, C) of its dtype        |
    | tensor (C, h, w) or (B, C, h, w)                      | tensor (C, 4h, 4w) or (B, C, 4h, 4w) of its dtype |

    Integers are rounded as files are; floating point is not, and a tensor comes back on its device, without gradients:
    for these call the network itself.

    Args:
        lr: any of these, any size; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha. A batch is enlarged one by one.
        references: one or several of any of these kinds and sizes, ideally at the scale of the result. Without any, the
            result is what the network makes of the photo alone. A batch of B holds one reference for each of B photos.
        model: a loaded network (used as it is), or the name, folder or Hub id of one.
        device: see `frfsr.load`; only for a model given by name.
        dtype: see `frfsr.load`; only for a model given by name.
        base: a single-image network, or its file, folder or name, see `frfsr.base.load_single_image`: `model` refines
            its image instead of one of its own.
        **options: fields of `frfsr.upscaling.options.Options`.

    Returns:
        The enlarged photo, (4h, 4w) pixels.

    Raises:
        UserError: an unreadable image, values or a shape that are none, an unknown model, a device that does not
            exist, a setting out of range.

    Examples:
        >>> import frfsr, numpy as np
        >>> frfsr.upscale("photo.png", ["sharp.png"], "frfsr-tiny-gan").save("out.png")
        >>> frfsr.upscale(np.full((12, 16, 3), 0.5, np.float32), strength=0.5).shape
        (48, 64, 3)
    """
    settings = Options(**options)
    photos = as_photos(lr, "the photo")
    sharp = as_references(references, len(photos))
    network, refined = load_with_base(model, base, device, dtype)
    pairs = zip(photos, sharp, strict=True)
    return in_kind_of(lr, [upscale_photo(photo, own, network, settings, base=refined).photo for photo, own in pairs])


def upscale_photo(
    photo: Photo,
    references: Sequence[Photo],
    model: Network,
    options: Options = DEFAULTS,
    *,
    base: Network | None = None,
    names: Sequence[str] = (),
    progress: Progress = False,
    kept: EncodedReferences | None = None,
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
        kept: encoded references of the photo before, by the same model; those of this one are left there.

    Returns:
        The enlarged photo, and what was done for it.

    Raises:
        UserError: out of memory, a result that is no image, or `model` refines no other network's image.
    """
    height, width, channels = photo.pixels.shape
    result = np.empty((SCALE * height, SCALE * width, channels), photo.pixels.dtype)
    color = result[..., : channels - photo.has_alpha]
    output = Output.of(photo.pixels)
    run = Run(model, options, base, names, progress=progress, kept=kept, output=output)
    top = 0
    for strip in run.strips(color_tensor(photo), references):
        for band in strip.split(ROWS_AT_ONCE, dim=1):
            color[top : top + band.shape[1]] = to_pixels(band, color.shape[2], color.dtype)
            top += band.shape[1]
    if photo.has_alpha:
        enlarge_alpha(photo.pixels[..., -1], result[..., -1])
        restore_flat(color, photo.filled_rgb()[..., : color.shape[2]])
    return Upscaled(photo._replace(pixels=result), run.report(), run.matches)


def enlarge_alpha(alpha: np.ndarray, result: np.ndarray) -> None:
    """Enlarge alpha (h, w) by bicubic interpolation into a result (4h, 4w) of the same type."""
    height, width = alpha.shape
    image = Image.fromarray(alpha.astype(np.float32))
    for top in range(0, height, ROWS_AT_ONCE // SCALE):
        bottom = min(top + ROWS_AT_ONCE // SCALE, height)
        size = (SCALE * width, SCALE * (bottom - top))
        values = np.asarray(image.resize(size, Image.Resampling.BICUBIC, (0, top, width, bottom)))
        result[SCALE * top : SCALE * bottom] = rounded(values.clip(0, full_range(alpha.dtype)), alpha.dtype)
