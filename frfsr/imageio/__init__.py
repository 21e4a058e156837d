"""Image files <-> pixel arrays: one reader and one writer for the whole project (docs/formats.md)."""

from frfsr.imageio.photo import Metadata, Photo, photo_from_pil, photo_to_pil
from frfsr.imageio.read import MAX_PIXELS, READ_FORMATS, read_photo
from frfsr.imageio.write import WRITE_FORMATS, check_absent, check_output, is_same_file, write_photo

__all__ = [
    "MAX_PIXELS",
    "READ_FORMATS",
    "WRITE_FORMATS",
    "Metadata",
    "Photo",
    "check_absent",
    "check_output",
    "is_same_file",
    "photo_from_pil",
    "photo_to_pil",
    "read_photo",
    "write_photo",
]
