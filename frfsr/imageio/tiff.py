"""TIFF: which samples a page has, and what they mean as grey, RGB and alpha."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from frfsr.errors import UserError
from frfsr.imageio import tiff_tags as tag
from frfsr.imageio.metadata import (
    CM_PER_INCH,
    DESCRIPTIVE_TAGS,
    EXIF_IFD,
    GPS_IFD,
    Metadata,
    exif_bytes,
    upright_xmp,
    valid_dpi,
)
from frfsr.imageio.photo import Photo, cmyk_to_rgb, to_8_bit, upright
from frfsr.imageio.tiff_samples import PILLOW_COMPRESSIONS, read_samples

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}
OTHERS = {4: "a transparency mask", YCBCR: "YCbCr without JPEG", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
OTHERS |= {32803: "a raw (colour filter) photo", 32844: "LogL", 32845: "LogLuv", 34892: "a linear raw photo"}
PREMULTIPLIED, STRAIGHT = 1, 2
SIGNED, FLOAT, COMPLEX = (2,), (3,), (5, 6)
CENTIMETRE = 3
REDUCED, MASK = 1, 4
CANON_RAW = b"CR"
RAW_PHOTO = "a raw photo of a camera: develop it to a TIFF or PNG of 8 or 16 bits first."
DESCRIPTION = 0x010E
PROGRAMS_DESCRIPTIONS = ('{"shape"', "ImageJ", "<?xml")  # of the layout of the file, no longer true of the result


class Page(NamedTuple):
    """What is read of a file, and whether there are more pages like it."""

    tags: tag.Tags
    one_of_several: bool


def choose_page(data: bytes) -> Page:
    """Return the first page that is a picture of its own, not a thumbnail or mask of another.

    Raises:
        UserError: there is none, or it is of a kind that cannot be read, and what to do.
    """
    if data[8:10] == CANON_RAW:
        raise UserError(RAW_PHOTO)
    pages = tag.read_directories(data)
    whole = [page for page in pages if not page.first(tag.SUBFILE) & (REDUCED | MASK)]
    if any(tag.DNG_VERSION in page or (tag.BELOW in page and not whole) for page in pages):
        raise UserError(RAW_PHOTO)
    whole = whole or pages[:1]
    _check_kind(whole[0])
    return Page(whole[0], len(whole) > 1)


def size_of(page: tag.Tags) -> tuple[int, int, int, int]:
    """Return (width, height, samples per pixel, bits per sample) of a page."""
    width, height = page.first(tag.WIDTH), page.first(tag.HEIGHT)
    return width, height, page.first(tag.SAMPLES, 1), page.first(tag.BITS, 1)


def is_pillows(page: tag.Tags) -> bool:
    """Whether libtiff (through Pillow) reads all of a page: JPEG and fax compression, always of at most 8 bits."""
    return page.first(tag.COMPRESSION, 1) in PILLOW_COMPRESSIONS


def read_page(data: bytes, page: tag.Tags) -> Photo:
    """Decode a page that is not Pillow's.

    Raises:
        UserError: it is damaged.
    """
    photometric, bits = _photometric(page), page.first(tag.BITS, 1)
    alpha_at, alpha_kind = _alpha(page, COLORS[photometric])
    samples = read_samples(data, page)
    color = samples[..., : COLORS[photometric]]
    alpha = None if alpha_at is None else samples[..., alpha_at]
    if photometric == PALETTE:
        color = _look_up(color[..., 0], page)
        alpha = None if alpha is None else to_8_bit(_whole_range(alpha, bits))
    else:
        color = _whole_range(color, bits)
        alpha = None if alpha is None else _whole_range(alpha, bits)
    if alpha is not None and alpha_kind == PREMULTIPLIED:
        color = _divide(color, alpha)
    if photometric == WHITE_IS_ZERO:
        color = np.iinfo(color.dtype).max - color
    metadata = metadata_of(data, page)
    if photometric == CMYK:
        ink = Image.frombytes("CMYK", (color.shape[1], color.shape[0]), to_8_bit(color).tobytes())
        color, metadata = cmyk_to_rgb(ink, metadata.icc_profile), metadata._replace(icc_profile=None)
        alpha = None if alpha is None else to_8_bit(alpha)
    pixels = color if alpha is None else np.concatenate([color, alpha[..., None]], axis=-1)
    return upright(pixels, metadata, page.first(tag.ORIENTATION, 1))


def _check_kind(page: tag.Tags) -> None:
    """Refuse what has no meaning as a photo of 1 to 16 bits.

    Args:
        page: its tags.

    Raises:
        UserError: the kind of samples or of colours is another.
    """
    width, height, samples, bits = size_of(page)
    if not (width and height and samples):
        raise UserError(f"the image is empty: {width}x{height} pixels of {samples} samples.")
    if page.first(tag.DEPTH, 1) > 1:
        raise UserError(f"a TIFF of a volume of {page.first(tag.DEPTH)} slices: save one of them as an image first.")
    advice = "convert it to unsigned integers of 8 or 16 bits first"
    kinds = set(page.get(tag.SAMPLE_FORMAT, (1,)))
    for formats, what in ((SIGNED, "signed integers"), (FLOAT, "floating-point numbers"), (COMPLEX, "complex numbers")):
        if kinds & set(formats):
            raise UserError(f"a TIFF of {bits}-bit {what}, which have no fixed range: {advice}.")
    if len(set(page.get(tag.BITS, (1,)))) > 1:
        depths = ", ".join(map(str, page[tag.BITS][:8]))
        raise UserError(f"a TIFF whose samples have different depths ({depths} bits): {advice}.")
    if not 1 <= bits <= 16:
        raise UserError(f"a TIFF of {bits}-bit integers: {advice}.")
    photometric = _photometric(page)
    if photometric not in COLORS and not (photometric == YCBCR and is_pillows(page)):
        kind = OTHERS.get(photometric, f"colour kind {photometric}")
        raise UserError(f"a TIFF of the kind {kind}, which is not supported: convert it to RGB or grey first.")
    if photometric == CMYK and page.first(tag.INK_SET, 1) != 1:
        raise UserError("a TIFF of inks other than CMYK: convert it to RGB first.")
    if samples < COLORS.get(photometric, 3):
        raise UserError(f"damaged: {samples} samples per pixel are too few for its colours.")
    extras = len(page.get(tag.EXTRA_SAMPLES, ()))
    if extras and photometric in COLORS and COLORS[photometric] + extras != samples:
        raise UserError(f"damaged: its colours and {extras} extra samples are not {samples} samples per pixel.")
    if is_pillows(page) and bits not in (1, 8):
        raise UserError(f"a TIFF of {bits} bits with JPEG compression: save it with LZW or deflate first.")


def _photometric(page: tag.Tags) -> int:
    """Return how samples become colours; the tag is required, but files without it are seen."""
    return page.first(tag.PHOTOMETRIC, RGB if page.first(tag.SAMPLES, 1) >= 3 else BLACK_IS_ZERO)


def _alpha(page: tag.Tags, colors: int) -> tuple[int | None, int]:
    """Return place and kind of the alpha sample: the first one that ExtraSamples calls so, wherever it stands.

    Raises:
        UserError: three or more samples are called grey, without a word on the others: perhaps colours.
    """
    samples = page.first(tag.SAMPLES, 1)
    if colors == 1 and samples > 2 and tag.EXTRA_SAMPLES not in page:
        raise UserError(f"damaged: nothing says what its {samples} samples per pixel are besides one of grey.")
    for place, kind in enumerate(page.get(tag.EXTRA_SAMPLES, ()), start=colors):
        if kind in (PREMULTIPLIED, STRAIGHT) and place < samples:
            return place, kind
    return None, 0


def _whole_range(samples: np.ndarray, bits: int) -> np.ndarray:
    """Stretch samples of 1 to 16 bits to the whole range of uint8 or uint16."""
    full = 255 if bits <= 8 else 65535
    if bits in (8, 16):
        return samples
    top = 2**bits - 1
    scaled = (samples.astype(np.uint32) * full + top // 2) // top
    return scaled.astype(np.uint8 if bits < 8 else np.uint16)


def _look_up(index: np.ndarray, page: tag.Tags) -> np.ndarray:
    """Return (H, W, 3) uint8 colours of palette indices (H, W)."""
    table = np.array(page.get(tag.COLOR_MAP, ()), dtype=np.uint32)
    entries = 2 ** page.first(tag.BITS, 1)
    if len(table) < 3 * entries:
        raise UserError("damaged: its palette is too short.")
    table = table[: 3 * entries].reshape(3, entries)
    if table.max() > 255:  # as the standard says, though some writers store value * 256 instead of * 257, or 8 bits
        table >>= 8
    return table.T.astype(np.uint8)[index]


def _divide(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Turn premultiplied colours (H, W, C) into straight ones, rounded; under alpha 0 they are 0."""
    top = np.iinfo(color.dtype).max
    weight = alpha.astype(np.uint64)[..., None]
    straight = (color.astype(np.uint64) * top + weight // 2) // np.maximum(weight, 1)
    return np.where(weight > 0, np.minimum(straight, top), 0).astype(color.dtype)


def metadata_of(data: bytes, page: tag.Tags) -> Metadata:
    """Return what a page says about its pixels; EXIF is taken from the first page."""
    to_inch = CM_PER_INCH if page.first(tag.RESOLUTION_UNIT, 2) == CENTIMETRE else 1.0
    has_unit = page.first(tag.RESOLUTION_UNIT, 2) in (2, CENTIMETRE)
    dpi = tuple(page.ratio(axis) * to_inch for axis in (tag.X_RESOLUTION, tag.Y_RESOLUTION)) if has_unit else None
    return Metadata(page.octets(tag.ICC_PROFILE), _exif(data), upright_xmp(page.octets(tag.XMP)), valid_dpi(dpi))


def _exif(data: bytes) -> bytes | None:
    """Return the descriptive tags of the file's first page and its EXIF directories as an EXIF block."""
    try:
        found, kept = Image.Exif(), Image.Exif()
        found.load_from_fp(io.BytesIO(data))
        kept.update({number: found[number] for number in DESCRIPTIVE_TAGS if number in found})
        if str(kept.get(DESCRIPTION)).startswith(PROGRAMS_DESCRIPTIONS):
            del kept[DESCRIPTION]
        for ifd in (EXIF_IFD, GPS_IFD):
            kept.get_ifd(ifd).update(found.get_ifd(ifd))
        return exif_bytes(kept)
    except Exception:  # broken EXIF is no reason to refuse a picture; Pillow raises nearly every type on it
        return None
