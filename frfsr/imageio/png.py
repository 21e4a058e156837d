"""PNG: every chunk checked, and 16 bits, which Pillow decodes and encodes only for grey."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from frfsr.errors import UserError
from frfsr.imageio.metadata import PNG_COLOR_CHUNKS, Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
GREY, RGB = 0, 2
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
LEVEL = 4  # of 9: photographic noise does not get smaller by more effort
BLOCK = 1 << 20  # bytes inflated at a time
MOST_INFLATED = 1032  # bytes by each one of a deflate stream
MISSING = "damaged: pixels are missing (truncated)."
METRES_PER_INCH = 0.0254


class Header(NamedTuple):
    """IHDR: sizes in pixels, bits per sample, colour type, whether interlaced."""

    width: int
    height: int
    depth: int
    color: int
    interlaced: bool

    def raw_bytes(self) -> int:
        """Return the length of the inflated pixels, with a filter byte for each row."""
        passes = ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, step_x, step_y in passes:
            columns, rows = -(-(self.width - left) // step_x), -(-(self.height - top) // step_y)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * SAMPLES[self.color] * self.depth + 7) // 8)
        return total


class Png(NamedTuple):
    """Parsed file: header, the compressed pixels, and the other chunks before them."""

    header: Header
    compressed: bytes
    others: dict[bytes, bytes]

    @property
    def color_chunks(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return (name, body) of the chunks that say what the numbers mean."""
        return tuple((name, self.others[name]) for name in PNG_COLOR_CHUNKS if name in self.others)


def parse_header(data: bytes) -> Header:
    """Read IHDR of a PNG file.

    Raises:
        UserError: it is damaged.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise UserError("damaged: its header is missing.")
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if color not in SAMPLES or depth not in (1, 2, 4, 8, 16):
        raise UserError("damaged: its header makes no sense.")
    return Header(width, height, depth, color, bool(interlace))


def parse_png(data: bytes) -> Png:
    """Check the CRC of every chunk, and that the pixels could fill the picture.

    Raises:
        UserError: the file is damaged, and where.
    """
    header, position, compressed, others = parse_header(data), len(SIGNATURE), [], {}
    name = b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise UserError("damaged: it ends too early (truncated).")
        (length,), name = struct.unpack_from(">I", data, position), data[position + 4 : position + 8]
        if position + 12 + length > len(data):
            raise UserError("damaged: it ends too early (truncated).")
        (crc,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(memoryview(data)[position + 4 : position + 8 + length]) != crc:
            raise UserError(f"damaged at byte {position}: the checksum does not match.")
        body = data[position + 8 : position + 8 + length]
        if name == b"IDAT":
            compressed.append(body)
        else:
            others.setdefault(name, body)
        position += 12 + length
    png = Png(header, b"".join(compressed), others)
    if header.raw_bytes() > MOST_INFLATED * (len(png.compressed) + 1):
        raise UserError(MISSING)
    return png


def check_last_row(png: Png, decoded: np.ndarray | Image.Image) -> None:
    """Raise UserError if rows are missing: Pillow takes pixels that end too early, in a valid stream, for complete.

    Rows that were not decoded are zero. So pixels are inflated a second time only where the last row is black, or
    does not come last (interlaced).

    Raises:
        UserError: the compressed pixels inflate to fewer bytes than the header promises.
    """
    if isinstance(decoded, Image.Image):
        decoded = np.asarray(decoded.crop((0, decoded.height - 1, decoded.width, decoded.height)))
    if decoded[-1].any() and not png.header.interlaced:
        return
    missing, inflate, rest = png.header.raw_bytes(), zlib.decompressobj(), png.compressed
    try:
        while missing > 0 and (block := inflate.decompress(rest, BLOCK)):
            missing, rest = missing - len(block), inflate.unconsumed_tail
    except zlib.error as error:
        raise UserError("damaged: its pixels do not decompress.") from error
    if missing > 0:
        raise UserError(MISSING)


def decode_16_bit(png: Png) -> np.ndarray:
    """Return (H, W, C) uint16 pixels; a transparent colour (tRNS) becomes alpha.

    Pillow's decoder takes one byte of two, the high ones of big-endian samples or, asked for little-endian ones, the
    low ones: twice decoded, all 16 bits are there.
    """
    header = png.header
    size = (header.width, header.height)

    def decode(mode: str, raw_mode: str) -> np.ndarray:
        return np.asarray(Image.frombytes(mode, size, png.compressed, "zip", raw_mode, int(header.interlaced)))

    if SAMPLES[header.color] < 3:  # the bytes of one or two samples, taken as two or four channels of 8 bits
        octets = decode("LA", "LA") if header.color == GREY else decode("RGBA", "RGBA")
        pixels = octets[..., 0::2].astype(np.uint16) << 8 | octets[..., 1::2]
    else:
        mode = "RGB" if header.color == RGB else "RGBA"
        pixels = decode(mode, f"{mode};16B").astype(np.uint16) << 8 | decode(mode, f"{mode};16L")
    transparent = png.others.get(b"tRNS", b"")
    if header.color in (GREY, RGB) and len(transparent) == 2 * SAMPLES[header.color]:
        hidden = (pixels == np.frombuffer(transparent, ">u2")).all(axis=-1, keepdims=True)
        pixels = np.concatenate([pixels, np.where(hidden, 0, 65535).astype(np.uint16)], axis=-1)
    return pixels


def write_16_bit(pixels: np.ndarray, metadata: Metadata, file: BinaryIO) -> None:
    """Write (H, W, C) uint16 pixels and their metadata as PNG."""
    height, width, samples = pixels.shape
    color = {count: color for color, count in SAMPLES.items() if color != 3}[samples]
    file.write(SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))
    for name, body in _metadata_chunks(metadata):
        _write_chunk(file, name, body)
    for body in _deflated(pixels):
        _write_chunk(file, b"IDAT", body)
    _write_chunk(file, b"IEND", b"")


def _metadata_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    if metadata.icc_profile:
        yield b"iCCP", b"profile\0\0" + zlib.compress(metadata.icc_profile)
    yield from metadata.png_color
    if metadata.dpi:
        x, y = (round(value / METRES_PER_INCH) for value in metadata.dpi)
        yield b"pHYs", struct.pack(">IIB", x, y, 1)
    if metadata.exif:
        yield b"eXIf", metadata.exif
    if metadata.xmp:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp


def _deflated(pixels: np.ndarray) -> Iterator[bytes]:
    """Compress rows as differences to the row above, some at a time."""
    up = b"\x02"
    deflate, above = zlib.compressobj(LEVEL), np.zeros(2 * pixels[0].size, np.uint8)
    for row in pixels:
        octets = row.astype(">u2").reshape(-1).view(np.uint8)
        if block := deflate.compress(up + (octets - above).tobytes()):
            yield block
        above = octets
    yield deflate.flush()


def _write_chunk(file: BinaryIO, name: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
