"""JPEG: decoded once, by a libjpeg whose warnings are heard, and damage that it says nothing about."""

from collections.abc import Iterator

import numpy as np
import simplejpeg

from frfsr.errors import UserError

ZERO_RUN = 48  # bytes; the longest in 1,284 photos has 8, docs/formats.md
STEEPEST = 4  # bits of a difference of mean values from block to block: 16 and more leave the range within such a run
COLORS = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}  # by libjpeg's name; others are decoded as RGB
START_OF_SCAN, HUFFMAN_TABLES, END_OF_IMAGE = 0xDA, 0xC4, 0xD9
PROGRESSIVE, SEQUENTIAL = (0xC2, 0xC6), (0xC0, 0xC1)


def decode(data: bytes, notes: list[str], scale: int = 1) -> np.ndarray | None:
    """Decode a JPEG.

    Args:
        data: the file.
        notes: gets what is suspicious but, in files of some cameras or of unusual pictures, harmless.
        scale: 1, or 8 for an eighth of the size: all codes are read, few pixels made.

    Returns:
        (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) CMYK uint8 pixels; None for kinds that are another decoder's.

    Raises:
        UserError: a part of the picture is certainly wrong.
    """
    if run := _unlikely_zeros(data):
        notes.append(f"a run of zeros in the middle of its pixels, at byte {run}")
    try:
        colors = COLORS.get(simplejpeg.decode_jpeg_header(data, strict=False)[2], "RGB")
        size: dict = {"min_height": 1, "min_width": 1, "min_factor": scale} if scale > 1 else {}
        try:
            return simplejpeg.decode_jpeg(data, colors, **size)
        except ValueError as error:
            if "extraneous" not in str(error):
                raise
            notes.append(f"libjpeg says: {error}")
            return simplejpeg.decode_jpeg(data, colors, strict=False, **size)
    except ValueError as error:
        if any(word in str(error).lower() for word in ("premature", "corrupt")):
            raise UserError(f"damaged: {error}.") from error
        return None


def _unlikely_zeros(data: bytes) -> int:
    """Return where zeros in a JPEG's scan cannot be a picture, 0 if nowhere.

    All-zero bits are the shortest code again and again. Where that means "end of block", they are a flat area or, by
    equal differences of its mean values, a slope; anything else is dozens of equal waves in each block.
    """
    run, zero_symbols, frame = bytes(ZERO_RUN), {}, 0
    if run not in data:
        return 0
    for marker, start, end in _jpeg_segments(data):
        if marker in (*SEQUENTIAL, *PROGRESSIVE):
            frame = marker
        elif marker == HUFFMAN_TABLES:
            zero_symbols |= _zero_symbols(data[start:end])
        elif marker == START_OF_SCAN and frame in (*SEQUENTIAL, *PROGRESSIVE):
            header = start + data[start] * 2 + 1
            first, last, approximation = data[header], data[header + 1], data[header + 2]
            if approximation >> 4 and first == 0:
                continue  # a refinement of the mean values: plain bits
            tables = [data[start + 2 + 2 * i] for i in range(data[start])]
            steps = {zero_symbols.get(table >> 4, 0) for table in tables} if first == 0 else set()
            waves = {zero_symbols.get(16 + (table & 15), 0) for table in tables} if last > 0 else set()
            is_flat = max(steps, default=0) <= STEEPEST and all(
                symbol & 15 == 0 and symbol >> 4 < 15 for symbol in waves
            )
            if not is_flat and (found := data.find(run, header + 3, end)) >= 0:
                return found
    return 0


def _zero_symbols(segment: bytes) -> dict[int, int]:
    """Return, for each Huffman table (16 added for AC), the symbol whose code is all zeros."""
    symbols, position = {}, 0
    while position + 17 < len(segment):
        symbols[segment[position]] = segment[position + 17]
        position += 17 + sum(segment[position + 1 : position + 17])
    return symbols


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments; a scan reaches to the next marker that is no restart."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == END_OF_IMAGE:
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if marker == START_OF_SCAN:
            end = _end_of_scan(data, end)
        yield marker, position + 4, min(end, len(data))
        position = end


def _end_of_scan(data: bytes, position: int) -> int:
    while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
        if data[position + 1] not in (0, *range(0xD0, 0xD8)):
            return position
        position += 2
    return len(data)
