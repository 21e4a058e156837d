"""Photos as TIFF, at 8 and 16 bits: deflated strips of differences, classic little-endian."""

import zlib
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from frfsr.errors import UserError
from frfsr.imageio import tiff_tags as tag
from frfsr.imageio.metadata import DESCRIPTIVE_TAGS, EXIF_IFD, GPS_IFD, Metadata
from frfsr.imageio.tiff_samples import DEFLATE, DIFFERENCES

LEVEL = 4  # of 9: photographic noise does not get smaller by more effort
STRIP = 1 << 18  # bytes of pixels in a strip, about
LARGEST = 2**32 - 1  # bytes; offsets have 32 bits
STRAIGHT_ALPHA, INCH = 2, 2


def write_tiff(pixels: np.ndarray, metadata: Metadata, file: BinaryIO) -> None:
    """Write (H, W, C) uint8 or uint16 pixels and their metadata.

    Raises:
        UserError: the file would be larger than 4 GB.
    """
    height, width, samples = pixels.shape
    rows = max(1, STRIP // (width * samples * pixels.itemsize))
    strips = [_compress(pixels[top : top + rows]) for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    entries = _metadata(metadata) | {
        tag.WIDTH: width,
        tag.HEIGHT: height,
        tag.BITS: [8 * pixels.itemsize] * samples,
        tag.COMPRESSION: DEFLATE,
        tag.PHOTOMETRIC: 2 if samples > 2 else 1,
        tag.STRIP_OFFSETS: list(accumulate(lengths[:-1], initial=0)),
        tag.SAMPLES: samples,
        tag.STRIP_ROWS: rows,
        tag.STRIP_BYTES: lengths,
        tag.PLANAR: 1,
        tag.PREDICTOR: DIFFERENCES,
    }
    if samples in (2, 4):
        entries[tag.EXTRA_SAMPLES] = STRAIGHT_ALPHA
    head = tag.head(entries)
    if len(head) + sum(lengths) > LARGEST:
        raise UserError("TIFF holds at most 4 GB: write .png.")
    file.write(head)
    file.writelines(strips)


def _compress(strip: np.ndarray) -> bytes:
    """Return rows (h, W, C) as deflated differences to the pixel on the left."""
    differences = np.diff(strip, axis=1, prepend=np.zeros_like(strip[:, :1]))
    return zlib.compress(differences.astype(strip.dtype.newbyteorder("<")).tobytes(), LEVEL)


def _metadata(metadata: Metadata) -> dict[int, Any]:
    """Return the tags that say of the photo what its file said."""
    entries: dict[int, Any] = {}
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        entries |= {number: exif[number] for number in DESCRIPTIVE_TAGS if number in exif}
        entries |= {ifd: values for ifd in (EXIF_IFD, GPS_IFD) if (values := exif.get_ifd(ifd))}
    if metadata.dpi:
        entries |= dict(
            zip((tag.X_RESOLUTION, tag.Y_RESOLUTION, tag.RESOLUTION_UNIT), (*metadata.dpi, INCH), strict=True)
        )
    if metadata.icc_profile:
        entries[tag.ICC_PROFILE] = metadata.icc_profile
    if metadata.xmp:
        entries[tag.XMP] = metadata.xmp
    return entries
