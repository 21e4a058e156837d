"""PBM, PGM and PPM, plain and binary, with any largest value: Pillow keeps 16 bits of grey only."""

import re
from typing import NamedTuple

import numpy as np

from frfsr.errors import UserError

HEADER = re.compile(rb"P([1-6])" + 2 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})")
MAXIMUM = re.compile(rb"(?:\s|#[^\n]*\n)+(\d{1,9})")


class Header(NamedTuple):
    """Kind 1...6, size in pixels, largest value, and where the pixels begin (at one blank)."""

    kind: int
    width: int
    height: int
    maximum: int
    end: int

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return 3 if self.kind in (3, 6) else 1


def parse_header(data: bytes) -> Header:
    """Read the header.

    Raises:
        UserError: it is damaged.
    """
    match = HEADER.match(data)
    if not match:
        raise UserError("damaged: its header makes no sense.")
    kind, width, height = (int(group) for group in match.groups())
    maximum, end = 1, match.end()
    if kind not in (1, 4):
        if not (match := MAXIMUM.match(data, end)):
            raise UserError("damaged: its header makes no sense.")
        maximum, end = int(match[1]), match.end()
    if not 1 <= maximum <= 65535:
        raise UserError(f"damaged: its largest value is {maximum}, outside 1...65535.")
    return Header(kind, width, height, maximum, end)


def decode(data: bytes, header: Header) -> np.ndarray:
    """Return (H, W, C) uint8 (largest value up to 255) or uint16 pixels.

    Raises:
        UserError: pixels are missing or out of range.
    """
    values = _plain(data, header) if header.kind <= 3 else _binary(data, header)
    if values.max() > header.maximum:
        raise UserError(f"damaged: values above its largest one, {header.maximum}.")
    if header.kind in (1, 4):  # bitmaps say what is black
        values = 1 - values
    full = 255 if header.maximum <= 255 else 65535
    if header.maximum != full:
        values = (values.astype(np.uint32) * full + header.maximum // 2) // header.maximum
    shape = (header.height, header.width, header.samples)
    return values.astype(np.uint8 if full == 255 else np.uint16).reshape(shape)


def _plain(data: bytes, header: Header) -> np.ndarray:
    text = re.sub(rb"#[^\n]*", b"", data[header.end :])
    count = header.width * header.height * header.samples
    words = re.findall(rb"[01]", text) if header.kind == 1 else text.split(maxsplit=count)[:count]
    if len(words) < count:
        raise UserError("damaged: pixels are missing (truncated).")
    try:
        return np.array(words[:count]).astype(np.int64).clip(-1, 65536).astype(np.uint32)
    except ValueError as error:
        raise UserError("damaged: its pixels are no numbers.") from error


def _binary(data: bytes, header: Header) -> np.ndarray:
    start, row = header.end + 1, header.width * header.samples
    dtype = np.dtype(np.uint8 if header.maximum <= 255 else ">u2")
    row_bytes = (row + 7) // 8 if header.kind == 4 else row * dtype.itemsize
    if len(data) - start < row_bytes * header.height:
        raise UserError("damaged: pixels are missing (truncated).")
    if header.kind == 4:
        rows = np.frombuffer(data, np.uint8, row_bytes * header.height, start).reshape(header.height, row_bytes)
        return np.unpackbits(rows, axis=1, count=row)
    return np.frombuffer(data, dtype, row * header.height, start)
