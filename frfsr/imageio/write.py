"""Photos -> files: what can be stored where, and the whole file or none."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from frfsr.errors import UserError
from frfsr.imageio import png
from frfsr.imageio.metadata import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, Metadata, resized_exif
from frfsr.imageio.photo import Photo, to_8_bit
from frfsr.imageio.read import ImageWarning
from frfsr.imageio.tiff_write import write_tiff

WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # pixels; limits of the formats
DEEP_FORMATS = ("PNG", "TIFF")
MOST_EXIF = 65_527  # bytes in the segment of a JPEG


def check_output(path: str | Path, height: int, width: int, has_alpha: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that an image can be stored under a name; call it before the long work.

    Args:
        path: of the output.
        height, width: in pixels.
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
    with replaced_when_complete(path, discard=True):
        pass


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether two names are one existing file: the same path, a link, or another spelling of it."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def check_absent(path: str | Path, force: bool) -> None:
    """Raise UserError if an output exists and may not be replaced."""
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
    metadata = photo.metadata._replace(exif=resized_exif(photo.metadata.exif, width, height))
    _note_losses(photo, path, image_format)
    with replaced_when_complete(path) as file:
        if image_format == "TIFF":
            write_tiff(photo.pixels, metadata, file)
        elif image_format == "PNG" and photo.pixels.dtype == np.uint16:
            png.write_16_bit(photo.pixels, metadata, file)
        else:
            pixels = to_8_bit(photo.pixels)
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            image.save(file, image_format, **_save_options(image_format, metadata))


@contextmanager
def replaced_when_complete(path: str | Path, discard: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it replaces `path` when the block ends without an error.

    discard: only try whether that would be possible. Raises UserError when the place cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} exists and is not a file: give the output another name.")
        path = path.resolve()  # replace what a link points to, not the link
        partial = path.parent / f".frfsr-{uuid4().hex}.partial"
        with open(partial, "xb") as file:
            try:
                yield file
                file.close()
                if not discard:
                    if path.exists():
                        partial.chmod(path.stat().st_mode & 0o7777)
                    os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error


def _note_losses(photo: Photo, path: str | Path, image_format: str) -> None:
    losses = []
    if photo.pixels.dtype == np.uint16 and image_format not in DEEP_FORMATS:
        losses.append(f"{image_format} holds 8 of the 16 bits; write .png or .tif to keep them")
    if image_format != "PNG" and any(name == b"gAMA" for name, _ in photo.metadata.png_color):
        losses.append(f"{image_format} cannot say the gamma that the input has; write .png to keep it")
    for loss in losses:
        warnings.warn(f"{path}: {loss}.", ImageWarning, stacklevel=3)


def _save_options(image_format: str, metadata: Metadata) -> dict:
    """Return Pillow's keywords that store the metadata, and the quality."""
    options: dict = {"icc_profile": metadata.icc_profile}
    if metadata.exif:
        options["exif"] = metadata.exif
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
            options["exif"] = _with_resolution(metadata)
        return options | {"quality": 95}
    if metadata.exif and len(metadata.exif) > MOST_EXIF:
        del options["exif"]
    if metadata.xmp and len(metadata.xmp) > MOST_EXIF - 29:
        del options["xmp"]
    if metadata.dpi:
        options["dpi"] = tuple(round(value) for value in metadata.dpi)
    return options | {"quality": 95, "subsampling": "4:4:4"}


def _with_resolution(metadata: Metadata) -> bytes:
    """Return the EXIF with the resolution in it, for WebP, which has no other place for it."""
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    inch = 2
    exif.update(zip((X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT), (*metadata.dpi, inch), strict=True))
    return exif.tobytes().removeprefix(b"Exif\0\0")
