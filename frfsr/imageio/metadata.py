"""What a file says about its pixels, besides the pixels: colour profile, EXIF, XMP, resolution, PNG's colour chunks."""

import math
import re
from typing import NamedTuple

from PIL import Image

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
EXIF_PREFIX = b"Exif\0\0"
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
CM_PER_INCH = 2.54
EXIF_WIDTH, EXIF_HEIGHT = 0xA002, 0xA003
PNG_COLOR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
# Of a TIFF's own directory, the tags that describe the photo and not the layout of the file: ImageDescription, Make,
# Model, Software, DateTime, Artist, Copyright.
DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


class Metadata(NamedTuple):
    """Kept from the file that was read for the file that is written; all optional.

    Attributes:
        icc_profile: colour profile.
        exif: EXIF as a TIFF structure, its orientation removed, because the pixels have been turned.
        xmp: XMP packet, likewise.
        dpi: horizontal and vertical resolution in pixels per inch.
        png_color: (name, body) of PNG's gAMA, cHRM, sRGB and cICP.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    png_color: tuple[tuple[bytes, bytes], ...] = ()


def metadata_from_pil(image: Image.Image) -> tuple[Metadata, int]:
    """Return the metadata of a Pillow image, and its EXIF orientation (1...8)."""
    info = image.info
    orientation, block, dpi = 1, None, valid_dpi(info.get("dpi"))
    try:
        exif = image.getexif()
        orientation = exif.get(ORIENTATION, 1)
        dpi = dpi or exif_dpi(exif)
        block = exif_bytes(exif)
    except Exception:  # broken EXIF is no reason to refuse a picture; Pillow raises nearly every type on it
        block = None
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    metadata = Metadata(info.get("icc_profile") or None, block, upright_xmp(xmp), dpi)
    return metadata, orientation if orientation in range(1, 9) else 1


def exif_bytes(exif: Image.Exif) -> bytes | None:
    """Return EXIF as a TIFF structure without orientation; None if nothing else is in it."""
    rest = Image.Exif()
    for tag, value in exif.items():
        if tag not in (ORIENTATION, EXIF_IFD, GPS_IFD):
            rest[tag] = value
    for ifd in (EXIF_IFD, GPS_IFD):
        if values := exif.get_ifd(ifd):
            rest.get_ifd(ifd).update(values)
    if not (len(rest) or rest.get_ifd(EXIF_IFD) or rest.get_ifd(GPS_IFD)):
        return None
    return rest.tobytes().removeprefix(EXIF_PREFIX)


def exif_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    """Return the resolution that EXIF states, in pixels per inch."""
    unit = {2: 1.0, 3: CM_PER_INCH}.get(exif.get(RESOLUTION_UNIT, 2), 0.0)
    return valid_dpi([unit * float(exif.get(axis, 0)) for axis in (X_RESOLUTION, Y_RESOLUTION)])


def resized_exif(exif: bytes | None, width: int, height: int) -> bytes | None:
    """Return EXIF whose size tags, where it has them, say `width` and `height` in pixels."""
    if not exif:
        return None
    block = Image.Exif()
    block.load(exif)
    details = block.get_ifd(EXIF_IFD)
    details.update({tag: side for tag, side in ((EXIF_WIDTH, width), (EXIF_HEIGHT, height)) if tag in details})
    return block.tobytes().removeprefix(EXIF_PREFIX)


def with_axes_swapped(metadata: Metadata) -> Metadata:
    """Return metadata whose two resolutions change places, as those of a photo that is turned by 90 degrees do."""
    exif, dpi = metadata.exif, metadata.dpi
    if exif:
        block = Image.Exif()
        block.load(exif)
        sides = {X_RESOLUTION: block.get(Y_RESOLUTION), Y_RESOLUTION: block.get(X_RESOLUTION)}
        block.update({axis: value for axis, value in sides.items() if value is not None})
        exif = block.tobytes().removeprefix(EXIF_PREFIX)
    return metadata._replace(exif=exif, dpi=dpi and dpi[::-1])


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """Return an XMP packet whose orientation, where it has one, is 1."""
    if not xmp:
        return None
    xmp = re.sub(rb'(tiff:Orientation=["\'])\d', rb"\g<1>1", xmp)
    return re.sub(rb"(<tiff:Orientation>)\d", rb"\g<1>1", xmp)


def valid_dpi(dpi: object) -> tuple[float, float] | None:
    """Return a resolution in pixels per inch if it is one."""
    try:
        x, y = (float(value) for value in dpi)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < math.inf and 0 < y < math.inf else None
