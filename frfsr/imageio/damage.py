"""Damage that decoders pass over: pictures of which a part is black or garbage, decoded without an error."""

import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import WebPImagePlugin

from frfsr.errors import UserError

ZERO_RUN = 16  # bytes
UNUSED = 32  # bytes at the end of a lossless WebP that must be needed; decoders can make up a few


def check_webp(data: bytes) -> None:
    """Refuse a WebP whose pixels were overwritten by zeros; it has no checksum.

    A lossless stream ends with its last pixel: if it decodes without its last bytes, it is not the stream that was
    written. Long runs of zeros are flat areas: at most a bit for a pixel or, lossy, for a block.

    Args:
        data: the file.

    Raises:
        UserError: they were.
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


def zeros_in_media(data: bytes, but: bytes = b"") -> int:
    """Return where zeros in an AVIF or HEIC are hardly pixels, 0 if nowhere; their decoders fill in what is missing.

    Its codes, of flat areas too, have at most 3 zero bytes in a row.

    Args:
        data: the file.
        but: a part of it that may have zeros: EXIF lies among the pixels.

    Returns:
        The position, or 0.
    """
    kept = data.replace(but, b"x" * len(but)) if but else data
    return next((at for start, end in _media(data) if (at := kept.find(bytes(ZERO_RUN), start, end)) >= 0), 0)


def _media(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the boxes of an ISO base media file that hold pixels."""
    position = 0
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        head = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        end = position + length if length >= head else len(data)  # 0: the last one
        if name == b"mdat":
            yield position + head, min(end, len(data))
        position = end


def check_gif(data: bytes) -> None:
    """Refuse a GIF whose first picture is not filled by its LZW codes.

    Args:
        data: the file.

    Raises:
        UserError: pixels are left over or missing.
    """
    try:
        width, height, start = _first_gif_picture(data)
        if _lzw_length(*_sub_blocks(data, start + 1), data[start]) < width * height:
            raise UserError("damaged: pixels are missing.")
    except (IndexError, struct.error) as error:
        raise UserError("damaged: it ends too early (truncated).") from error


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
