"""Photos -> files: what can be stored where, and the whole file or none."""

import os
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from frfsr.errors import ImageWarning, UserError
from frfsr.files import require_writable, whole_file
from frfsr.imageio import png
from frfsr.imageio.metadata import EXIF_PREFIX, RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, Metadata, resized_exif
from frfsr.imageio.photo import Photo, to_8_bit
from frfsr.imageio.tiff_write import write_tiff

WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # pixels; limits of the formats
USUAL_GAMMA = struct.pack(">I", 45_455)  # in a PNG: that of sRGB, which every program supposes
DEEP_FORMATS = ("PNG", "TIFF")
MOST_EXIF = 65_500  # bytes in a segment of a JPEG, besides its name


def check_output(path: str | Path, height: int, width: int, has_alpha: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that an image can be stored under a name; call it before the long work.

    Args:
        path: of the output.
        height: in pixels.
        width: in pixels.
        has_alpha: whether the image has transparency.
        inputs: files that must not be overwritten: the photo and its references.

    Raises:
        UserError: the format is unknown or cannot hold the image, `path` is one of `inputs` (links are followed), or
            cannot be written.
    """
    path = Path(path)
    image_format = WRITE_FORMATS.get(path.suffix.lower())
    if image_format is None:
        raise UserError(f"{path}: unknown image format; end the name in {', '.join(WRITE_FORMATS)}.")
    if has_alpha and image_format == "JPEG":
        raise UserError(f"{path}: JPEG cannot store the transparency of the input; write .png, .webp or .tif.")
    limit = LONGEST_SIDE.get(image_format)
    if limit and max(height, width) > limit:
        raise UserError(
            f"{path}: {image_format} holds at most {limit} pixels a side, not {width}x{height}; write .png."
        )
    for source in inputs:
        if is_same_file(path, source):
            raise UserError(f"{path} is the input {source}: it would be overwritten; give the output another name.")
    require_writable(path)


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether two names are one existing file: the same path, a link, or another spelling of it."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def check_absent(path: str | Path, force: bool) -> None:
    """Refuse to replace an output that exists.

    Args:
        path: of the output.
        force: it may be replaced.

    Raises:
        UserError: it exists and may not be.
    """
    if not force and os.path.lexists(path):
        raise UserError(f"{path} exists: give --force to replace it, or another name.")


def write_photo(photo: Photo, path: str | Path) -> None:
    """Write PNG, JPEG, WebP or TIFF by the name's ending, with the metadata that the format holds.

    16 bits where the format has them (PNG, TIFF), else 8, with an `ImageWarning`.

    Raises:
        UserError: as `check_output`.
    """
    height, width = photo.pixels.shape[:2]
    check_output(path, height, width, photo.has_alpha)
    image_format = WRITE_FORMATS[Path(path).suffix.lower()]
    _note_losses(photo, path, image_format)
    metadata = photo.metadata._replace(exif=resized_exif(photo.metadata.exif, width, height))
    if image_format == "JPEG":
        short = {name: value for name in ("exif", "xmp") if len(value := getattr(metadata, name) or b"") <= MOST_EXIF}
        metadata = metadata._replace(**(dict.fromkeys(("exif", "xmp")) | short))
    with whole_file(path) as partial, open(partial, "wb") as file:
        if image_format == "TIFF":
            write_tiff(photo.pixels, metadata, file)
        elif image_format == "PNG" and photo.pixels.dtype == np.uint16:
            png.write_16_bit(photo.pixels, metadata, file)
        else:
            pixels = to_8_bit(photo.pixels)
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            image.save(file, image_format, **_save_options(image_format, metadata))


def _note_losses(photo: Photo, path: str | Path, image_format: str) -> None:
    losses = []
    if photo.pixels.dtype == np.uint16 and image_format not in DEEP_FORMATS:
        losses.append(f"{image_format} holds 8 of the 16 bits; write .png or .tif to keep them")
    gamma = dict(photo.metadata.png_color).get(b"gAMA", USUAL_GAMMA)
    if image_format != "PNG" and gamma != USUAL_GAMMA:
        losses.append(f"{image_format} cannot say the gamma that the input has; write .png to keep it")
    if image_format == "JPEG" and max(map(len, (photo.metadata.exif or b"", photo.metadata.xmp or b""))) > MOST_EXIF:
        losses.append(
            "JPEG holds 64 KB of EXIF or XMP; the longer ones of the input are dropped; write .png to keep them"
        )
    for loss in losses:
        warnings.warn(f"{path}: {loss}.", ImageWarning, stacklevel=3)


def _save_options(image_format: str, metadata: Metadata) -> dict:
    """Return Pillow's keywords that store the metadata, and the quality."""
    options: dict = {"icc_profile": metadata.icc_profile}
    if metadata.exif:
        options["exif"] = EXIF_PREFIX + metadata.exif
    if image_format == "PNG":
        chunks = PngInfo()
        for name, body in metadata.png_color:
            chunks.add(name, body)
        if metadata.xmp:
            chunks.add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
        options |= {"pnginfo": chunks} | ({"dpi": metadata.dpi} if metadata.dpi else {})
        return options
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    if image_format == "WEBP":
        if metadata.dpi:
            options["exif"] = EXIF_PREFIX + _with_resolution(metadata.exif, *metadata.dpi)
        return options | {"quality": 95}
    if metadata.dpi:
        options["dpi"] = tuple(round(value) for value in metadata.dpi)
    return options | {"quality": 95, "subsampling": "4:4:4"}


def _with_resolution(block: bytes | None, x: float, y: float) -> bytes:
    """Return the EXIF with a resolution in pixels per inch in it, for WebP, which has no other place for it."""
    exif, inch = Image.Exif(), 2
    if block:
        exif.load(block)
    exif[X_RESOLUTION], exif[Y_RESOLUTION], exif[RESOLUTION_UNIT] = x, y, inch
    return exif.tobytes().removeprefix(EXIF_PREFIX)
