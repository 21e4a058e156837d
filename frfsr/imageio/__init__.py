"""Image files <-> pixel arrays: one reader and one writer for the whole project (docs/formats.md)."""

from frfsr.imageio.photo import Metadata, Photo, photo_from_pil, photo_to_pil
from frfsr.imageio.read import MAX_PIXELS, READ_FORMATS, ImageWarning, read_photo
from frfsr.imageio.write import WRITE_FORMATS, check_output, write_photo

__all__ = [
    "MAX_PIXELS",
    "READ_FORMATS",
    "WRITE_FORMATS",
    "ImageWarning",
    "Metadata",
    "Photo",
    "check_output",
    "photo_from_pil",
    "photo_to_pil",
    "read_photo",
    "write_photo",
]
