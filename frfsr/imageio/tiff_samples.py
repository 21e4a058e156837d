"""TIFF: strips and tiles -> samples, for every unsigned depth up to 16 bits."""

import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from frfsr.errors import UserError
from frfsr.imageio import tiff_tags as tag

NONE, LZW, DEFLATE, OLD_DEFLATE, PACK_BITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
LIBTIFF_COMPRESSIONS = (LZW, PACK_BITS, LZMA, ZSTD)
RARE = (LZMA, ZSTD)  # which a libtiff can be built without
JPEG = 7
HEADER = 8  # bytes, before which no pixels can be
PILLOW_COMPRESSIONS = (2, 3, 4, 6, JPEG)  # fax and JPEG: pages of at most 8 bits, which libtiff decodes as a whole
SEPARATE, REVERSED, DIFFERENCES = 2, 2, 2  # values of PlanarConfiguration, FillOrder and Predictor
STDERR = RLock()  # one thread at a time may turn it away
REVERSE = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class Grid(NamedTuple):
    """How a page is cut: `rows` x `columns` pieces of (height, width) pixels, `planes` times, `samples` in each."""

    rows: int
    columns: int
    height: int
    width: int
    planes: int
    samples: int


def read_samples(data: bytes, page: tag.Tags) -> np.ndarray:
    """Return (H, W, S) uint8 (up to 8 bits) or uint16 samples as they are numbered in the file.

    Pieces are decoded before room is made for the page: a small file cannot make it take much memory.

    Raises:
        UserError: pieces are missing or damaged, or the compression is not known.
    """
    compression = page.first(tag.COMPRESSION, NONE)
    if compression not in (NONE, DEFLATE, OLD_DEFLATE, *LIBTIFF_COMPRESSIONS):
        raise UserError(f"a TIFF of compression {compression}, which is not supported: save it with LZW or deflate.")
    height, width = page.first(tag.HEIGHT), page.first(tag.WIDTH)
    grid = _grid(page, height, width)
    pieces = _pieces(data, page, grid, compression)
    tiled = tag.TILE_WIDTH in page
    decoded = []
    for number, piece in enumerate(pieces):
        row = number // grid.columns % grid.rows
        lines = grid.height if tiled else min(grid.height, height - row * grid.height)
        decoded.append(_decode(piece, page, (lines, grid.width, grid.samples), compression))
    if grid.columns == 1 and grid.rows == 1 and grid.planes == 1:
        return decoded[0][:height, :width]
    samples = np.empty((height, width, grid.planes * grid.samples), decoded[0].dtype)
    for number, piece in enumerate(decoded):
        plane, place = divmod(number, grid.rows * grid.columns)
        row, column = divmod(place, grid.columns)
        top, left = row * grid.height, column * grid.width
        target = samples[top : top + grid.height, left : left + grid.width, plane : plane + grid.samples]
        target[...] = piece[: target.shape[0], : target.shape[1]]
    return samples


def jpeg_pieces(data: bytes, page: tag.Tags) -> list[bytes]:
    """Return the strips or tiles of a page of JPEG compression as JPEG files of their own.

    Raises:
        UserError: pieces are missing.
    """
    tables = page.octets(tag.JPEG_TABLES) or b""
    grid = _grid(page, page.first(tag.HEIGHT), page.first(tag.WIDTH))
    return [b"\xff\xd8" + tables[2:-2] + piece[2:] for piece in _pieces(data, page, grid, page.first(tag.COMPRESSION))]


def _grid(page: tag.Tags, height: int, width: int) -> Grid:
    count = page.first(tag.SAMPLES, 1)
    planes = count if page.first(tag.PLANAR, 1) == SEPARATE else 1
    if tag.TILE_WIDTH in page:
        piece_height, piece_width = page.first(tag.TILE_HEIGHT), page.first(tag.TILE_WIDTH)
    else:
        piece_height, piece_width = min(page.first(tag.STRIP_ROWS, height), height), width
    if piece_height < 1 or piece_width < 1 or max(piece_height, piece_width) > 16 + max(height, width, 4096):
        raise UserError(f"damaged: pieces of {piece_width}x{piece_height} pixels make no sense.")
    return Grid(
        -(-height // piece_height), -(-width // piece_width), piece_height, piece_width, planes, count // planes
    )


def _pieces(data: bytes, page: tag.Tags, grid: Grid, compression: int) -> list[bytes]:
    """Return the stored bytes of every strip or tile, in order.

    Raises:
        UserError: there are too few, or they lie beyond the end of the file.
    """
    tiled = tag.TILE_WIDTH in page
    offsets = page.get(tag.TILE_OFFSETS if tiled else tag.STRIP_OFFSETS, page.get(tag.STRIP_OFFSETS, ()))
    lengths = page.get(tag.TILE_BYTES if tiled else tag.STRIP_BYTES, page.get(tag.STRIP_BYTES, ()))
    count = grid.rows * grid.columns * grid.planes
    if not lengths and len(offsets) == 1:  # allowed in old files
        lengths = (len(data) - offsets[0],)
    if len(offsets) < count or len(lengths) < count:
        raise UserError(f"damaged: {min(len(offsets), len(lengths))} of {count} pieces of the picture are there.")
    pieces = []
    for offset, length in zip(offsets[:count], lengths[:count], strict=True):
        if compression == NONE:
            length = min(length, len(data) - offset)  # too short is found out by its number of pixels
        if length <= 0 or offset + length > len(data):
            raise UserError("damaged: pixels are missing (truncated).")
        if offset < HEADER:
            raise UserError(f"damaged: pixels at byte {offset}, where its header is.")
        pieces.append(data[offset : offset + length])
    return pieces


def _decode(piece: bytes, page: tag.Tags, shape: tuple[int, int, int], compression: int) -> np.ndarray:
    """Return samples of `shape` (height, width, samples) of one strip or tile."""
    height, width, samples = shape
    bits = page.first(tag.BITS, 1)
    row_bytes = (width * samples * bits + 7) // 8
    if page.first(tag.FILL_ORDER, 1) == REVERSED:
        piece = piece.translate(REVERSE)
    octets = _decompress(piece, compression, row_bytes, height)
    if len(octets) < row_bytes * height:
        raise UserError("damaged: pixels are missing (truncated).")
    rows = np.frombuffer(octets, np.uint8, row_bytes * height).reshape(height, row_bytes)
    if bits == 8:
        values = rows.reshape(shape)
    elif bits == 16:
        values = rows.reshape(-1).view(f"{page.order}u2").astype(np.uint16).reshape(shape)
    else:
        values = _unpack(rows, width * samples, bits).reshape(shape)
    if page.first(tag.PREDICTOR, 1) == DIFFERENCES and compression in (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD):
        if bits not in (8, 16):
            raise UserError(f"a TIFF of {bits} bits as differences: save it with LZW or deflate, without predictor.")
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    return values


def _unpack(rows: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Return (H, count) samples of rows of bits, most significant first."""
    values = np.zeros((len(rows), count), np.uint8 if bits < 8 else np.uint16)
    for start in range(0, len(rows), 64):  # unpacked bits take eight times the room
        planes = np.unpackbits(rows[start : start + 64], axis=1, count=count * bits).reshape(-1, count, bits)
        target = values[start : start + 64]
        for bit in range(bits):
            target <<= 1
            target |= planes[..., bit]
    return values


def _decompress(piece: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    try:
        if compression == NONE:
            return piece
        if compression in (DEFLATE, OLD_DEFLATE):
            inflate = zlib.decompressobj()
            octets = inflate.decompress(piece, row_bytes * rows)
            inflate.decompress(inflate.unconsumed_tail, 1)  # reaches the checksum
            return octets
        return _decompress_with_libtiff(piece, compression, row_bytes, rows)
    except (OSError, zlib.error, ValueError, SyntaxError) as error:
        rare = ", or Pillow was built without this compression: save it with LZW or deflate"
        raise UserError(f"damaged: its pixels do not decompress{rare if compression in RARE else ''}.") from error


def _decompress_with_libtiff(piece: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """Decompress a piece as the only strip of an 8-bit grey TIFF that is `row_bytes` pixels wide."""
    entries = {
        tag.WIDTH: row_bytes,
        tag.HEIGHT: rows,
        tag.BITS: 8,
        tag.COMPRESSION: compression,
        tag.PHOTOMETRIC: 1,
        tag.STRIP_OFFSETS: 0,
        tag.SAMPLES: 1,
        tag.STRIP_ROWS: rows,
        tag.STRIP_BYTES: len(piece),
    }
    file = io.BytesIO(tag.head(entries) + piece)
    with quiet_libtiff(), TiffImagePlugin.TiffImageFile(file) as image:
        return image.tobytes()


@contextmanager
def quiet_libtiff() -> Iterator[None]:
    """Keep libtiff from writing to the standard error stream, past Python, what becomes one line of ours.

    Pillow offers no way to set libtiff's error handler.
    """
    with STDERR:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
