"""Damage that decoders pass over: pictures of which a part is black or garbage, decoded without an error."""

import struct
from collections.abc import Iterator
from io import BytesIO

import simplejpeg
from PIL import WebPImagePlugin

from frfsr.errors import UserError

ZERO_RUN = 16  # bytes
UNUSED = 32  # bytes at the end of a lossless WebP that must be needed; decoders can make up a few
JPEG_COLORS = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}  # of the check alone; others are decoded as RGB
START_OF_SCAN, HUFFMAN_TABLES, END_OF_IMAGE = 0xDA, 0xC4, 0xD9
PROGRESSIVE, SEQUENTIAL = (0xC2, 0xC6), (0xC0, 0xC1)


def check_jpeg(data: bytes) -> str | None:
    """Look for damage in the entropy-coded data of a JPEG.

    Returns:
        None, or what is suspicious but, in files of some cameras, harmless.

    Raises:
        UserError: a part of the picture is certainly wrong.
    """
    if run := _unlikely_zeros(data):
        raise UserError(f"damaged at byte {run}: a run of zeros in the middle of its pixels.")
    try:
        kind = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        # an eighth of the size: all codes are read, few pixels made
        simplejpeg.decode_jpeg(data, JPEG_COLORS.get(kind, "RGB"), min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        message = str(error)
        if "extraneous" in message:
            return f"libjpeg says: {message}"
        if "premature" in message.lower() or "corrupt" in message.lower():
            raise UserError(f"damaged: {message}.") from error
    return None


def check_webp(data: bytes) -> None:
    """Raise UserError for pixels of a WebP that were overwritten by zeros; it has no checksum.

    A lossless stream ends with its last pixel: if it decodes without its last bytes, it is not the stream that was
    written. Long runs of zeros are flat areas: at most a bit for a pixel or, lossy, for a block.
    """
    for name, start, end in _riff_chunks(data):
        if name == b"VP8L" and end - start > 5:
            packed = int.from_bytes(data[start + 1 : start + 5], "little")
            width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
            if end - start > 2 * UNUSED and _decodes(data[start : end - UNUSED]):
                raise UserError("damaged: its pixels end too early.")
            bits = width * height
        elif name == b"VP8 " and end - start > 10:
            width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, start + 6))
            bits = -(-width // 16) * -(-height // 16)
        else:
            continue
        if (found := data.find(bytes(max(ZERO_RUN, bits // 8)), start, end)) >= 0:
            raise UserError(f"damaged at byte {found}: zeros in the middle of its pixels.")


def _decodes(stream: bytes) -> bool:
    """Whether a lossless WebP stream is complete."""
    chunk = b"VP8L" + struct.pack("<I", len(stream)) + stream + b"\0" * (len(stream) % 2)
    try:
        with WebPImagePlugin.WebPImageFile(
            BytesIO(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)
        ) as image:
            image.load()
    except Exception:  # Pillow raises several types
        return False
    return True


def check_gif(data: bytes) -> None:
    """Raise UserError unless the LZW codes of the first picture of a GIF fill it."""
    try:
        width, height, start = _first_gif_picture(data)
        if _lzw_length(*_sub_blocks(data, start + 1), data[start]) < width * height:
            raise UserError("damaged: pixels are missing.")
    except (IndexError, struct.error) as error:
        raise UserError("damaged: it ends too early (truncated).") from error


def _unlikely_zeros(data: bytes) -> int:
    """Return where zeros in a JPEG's scan cannot be a picture, 0 if nowhere.

    All-zero bits are the shortest code again and again. Where that means "no change" and "end of block", they are a
    flat area; anything else is dozens of equal waves in each block, which no camera and no encoder makes.
    """
    run, zero_symbols, frame = bytes(ZERO_RUN), {}, 0
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
            symbols = {zero_symbols.get(table >> 4, 0) for table in tables} if first == 0 else set()
            if last > 0:
                symbols |= {zero_symbols.get(16 + (table & 15), 0) for table in tables}
            is_flat = all(symbol & 15 == 0 and symbol >> 4 < 15 for symbol in symbols)
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


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the chunks of a RIFF file, those of animation frames (ANMF) too."""
    position = 12
    while position + 8 <= len(data):
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if name == b"ANMF":
            position += 8 + 16
            continue
        yield name, position + 8, min(position + 8 + length, len(data))
        position += 8 + length + length % 2


def _first_gif_picture(data: bytes) -> tuple[int, int, int]:
    """Return width and height of a GIF's first picture, and where its code size stands."""
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    while data[position] == 0x21:
        _, position = _sub_blocks(data, position + 2)
    if data[position] != 0x2C:
        raise UserError("damaged: it holds no picture.")
    width, height = struct.unpack_from("<HH", data, position + 5)
    flags = data[position + 9]
    return width, height, position + 10 + (3 << (flags & 7) + 1 if flags & 128 else 0)


def _sub_blocks(data: bytes, position: int) -> tuple[bytes, int]:
    """Return joined sub-blocks, and the position after their end."""
    blocks = []
    while length := data[position]:
        blocks.append(data[position + 1 : position + 1 + length])
        position += 1 + length
    return b"".join(blocks), position + 1


def _lzw_length(codes: bytes, _: int, code_size: int) -> int:
    """Return how many pixels GIF's LZW codes stand for."""
    clear, end = 1 << code_size, (1 << code_size) + 1
    lengths: list[int] = []
    total = width = bits = held = previous = 0
    for octet in codes:
        held |= octet << bits
        bits += 8
        width = width or code_size + 1
        while bits >= width:
            code = held & (1 << width) - 1
            held >>= width
            bits -= width
            if code == end:
                return total
            if code == clear or not lengths:
                lengths, width, previous = [1] * clear + [0, 0], code_size + 1, 0
                if code == clear:
                    continue
            if code > len(lengths) or (code == len(lengths) and not previous):
                raise UserError("damaged: its pixels do not decompress.")
            length = lengths[code] if code < len(lengths) else previous + 1
            if previous and len(lengths) < 4096:
                lengths.append(previous + 1)
                if len(lengths) == 1 << width and width < 12:
                    width += 1
            previous = length
            total += length
    return total
