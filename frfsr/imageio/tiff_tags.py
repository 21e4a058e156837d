"""TIFF's directory of tags: the file's structure, before any pixel is looked at."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from frfsr.errors import UserError

LITTLE_ENDIAN = b"II*\0"
SIGNATURES = (LITTLE_ENDIAN, b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES = 273, 274, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR, COLOR_MAP = 282, 283, 284, 296, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
BELOW, JPEG_TABLES, SUBFILE, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 330, 347, 254, 332, 338, 339
XMP, ICC_PROFILE, DEPTH, DNG_VERSION = 700, 34675, 32997, 50706
MOST_PAGES = 1000
# numpy's letters by TIFF's type numbers; a rational is two integers
TYPES = dict(
    zip(range(1, 14), ("u1", "u1", "u2", "u4", "2u4", "i1", "u1", "i2", "i4", "2i4", "f4", "f8", "u4"), strict=True)
)
TYPES |= {16: "u8", 17: "i8", 18: "u8"}


class Tags(dict[int, tuple]):
    """One directory: tag number -> values, in the order of the file's bytes.

    Attributes:
        order: "<" little-endian, ">" big-endian.
    """

    order: str = "<"

    def first(self, tag: int, default: int = 0) -> int:
        """Return the first value of an integer tag."""
        values = self.get(tag)
        return int(values[0]) if values else default

    def octets(self, tag: int) -> bytes | None:
        """Return the values of a tag of bytes, None without it."""
        values = self.get(tag)
        return bytes(value & 255 for value in values) if values and isinstance(values[0], int) else None

    def ratio(self, tag: int) -> float:
        """Return the value of a rational or real tag; 0 without it or where it is none."""
        values = self.get(tag, ())
        if len(values) == 2:
            return values[0] / values[1] if values[1] else 0.0
        return float(values[0]) if values else 0.0


def read_directories(data: bytes) -> list[Tags]:
    """Return the chain of directories (pages) of a classic or big TIFF.

    Raises:
        UserError: the first of them is damaged.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    pages: list[Tags] = []
    seen: set[int] = set()
    try:
        (position,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        while position and position not in seen and len(pages) < MOST_PAGES:
            seen.add(position)
            tags, position = _read_directory(data, position, order, big)
            pages.append(tags)
    except struct.error as error:
        if not pages:
            raise UserError("damaged: it ends before its directory (truncated).") from error
    if not pages:
        raise UserError("the image is empty: the file has no page.")
    return pages


def _read_directory(data: bytes, position: int, order: str, big: bool) -> tuple[Tags, int]:
    """Return the tags at a position, and the position of the next directory."""
    count_form, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (count,) = struct.unpack_from(order + count_form, data, position)
    position += struct.calcsize(order + count_form)
    tags = Tags()
    tags.order = order
    size = struct.calcsize(order + entry) + inline
    if position + count * size > len(data):
        raise struct.error
    for start in range(position, position + count * size, size):
        tag, kind, length = struct.unpack_from(order + entry, data, start)
        if kind not in TYPES:
            continue
        dtype = np.dtype(order + TYPES[kind] if TYPES[kind][0] != "2" else f"(2,){order}{TYPES[kind][1:]}")
        at = start + size - inline
        if length * dtype.itemsize > inline:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
        if at + length * dtype.itemsize <= len(data):
            tags.setdefault(tag, tuple(np.frombuffer(data, dtype, length, at).reshape(-1).tolist()))
    (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, position + count * size)
    return tags, following


def head(entries: Mapping[int, Any]) -> bytes:
    """Return a little-endian TIFF of one page up to its pixels, from whose beginning STRIP_OFFSETS count.

    Args:
        entries: tag -> number, numbers, bytes, text, or the entries of a directory below (EXIF, GPS).

    Returns:
        Its bytes.
    """
    start = LITTLE_ENDIAN + struct.pack("<I", 8)
    ifd = ImageFileDirectory_v2(start)
    for tag, value in entries.items():
        ifd[tag] = value
    return start + ifd.tobytes(len(start))
