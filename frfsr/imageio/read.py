"""The one reader: a file in, upright pixels of 8 or 16 bits out, or one line that says what is wrong."""

import io
import os
import warnings
from collections.abc import Callable
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from frfsr.errors import ImageWarning, UserError, one_line
from frfsr.imageio import damage, jpeg, png, pnm, tiff, tiff_samples, tiff_tags
from frfsr.imageio.metadata import EXIF_PREFIX, metadata_from_pil
from frfsr.imageio.photo import Photo, photo_from_pil, upright

READ_FORMATS = ("PNG", "JPEG", "WebP", "TIFF", "AVIF", "HEIC", "GIF", "BMP", "PPM")
UNKNOWN = f"this is not an image in a known format ({', '.join(READ_FORMATS)})."
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
MAX_PIXELS = 2**28  # 268 megapixels: four times as large as a photo of 16 megapixels
MAX_BYTES_PER_PIXEL = 8  # RGB and alpha at 16 bits
MOST_METADATA = 2**26  # bytes of a file besides its pixels
DEEPER_AVIF = {0x40: 10, 0x60: 12}  # bits, by two flags of its configuration
Source = str | os.PathLike | bytes | BinaryIO
Opener = Callable[[BinaryIO], ImageFile.ImageFile]


def read_photo(source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None, strict: bool = False) -> Photo:
    """Read a PNG, JPEG, WebP, TIFF, AVIF, HEIC, GIF, BMP or PPM file; docs/formats.md says what is kept of each.

    Of several pictures in a file the first is read, with an `ImageWarning`. HEIC needs the extra `heif`.

    Args:
        source: path, content, or binary file object, which is read to its end.
        max_pixels: largest size, width times height; samples and depth count, too: 8 bytes a pixel.
        name: what messages call the file; by default its path.
        strict: refuse what otherwise is an `ImageWarning` about damage.

    Returns:
        Pixels with straight alpha, turned as EXIF says, and the metadata of the file.

    Raises:
        UserError: the file is missing, not an image, of a kind without a fixed range, larger than `max_pixels`, empty
            or damaged.
    """
    name = name or (str(source) if isinstance(source, str | os.PathLike) else "the image")
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about broken metadata
        try:
            photo = _decode(_content(source, max_pixels), max_pixels, strict, notes)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        except MemoryError as error:
            raise UserError(f"{name}: not enough memory to read it.") from error
        except Exception as error:  # decoders raise nearly every type on damaged files
            reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
            raise UserError(f"{name}: it cannot be read as an image: {reason}.") from error
    for note in notes:
        warnings.warn(f"{name}: {note}", ImageWarning, stacklevel=2)
    return photo


def _content(source: Source, max_pixels: int) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | os.PathLike):
        if hasattr(source, "read"):
            return source.read()
        raise UserError(f"a {type(source).__name__} is no image: give a path, bytes or a binary file.")
    if os.path.exists(source) and not os.path.isfile(source):
        raise UserError("this is not a file: give an image file.")
    with _opened(source) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES_PER_PIXEL * max_pixels + MOST_METADATA:
            raise UserError(f"the file is larger than an image of {max_pixels:,} pixels can be.")
        return file.read()


def _opened(path: str | os.PathLike) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{error.strerror or error}.") from error


def _decode(data: bytes, max_pixels: int, strict: bool, notes: list[str]) -> Photo:
    if not data:
        raise UserError("the file is empty.")
    if data.startswith(png.SIGNATURE):
        return _read_png(data, max_pixels, notes)
    if data.startswith(tiff_tags.SIGNATURES):
        return _read_tiff(data, max_pixels, strict, notes)
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        header = pnm.parse_header(data)
        check_size(header.width, header.height, header.samples * (1 + (header.maximum > 255)), max_pixels)
        return Photo(pnm.decode(data, header))
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data, max_pixels, strict, notes)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        damage.check_webp(data)
        return _through_pillow(WebPImagePlugin.WebPImageFile, data, max_pixels, notes)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _read_gif(data, max_pixels, notes)
    if data[:2] == b"BM":
        return _through_pillow(BmpImagePlugin.BmpImageFile, data, max_pixels, notes)
    if data[4:8] == b"ftyp":
        return _read_isobmff(data, max_pixels, strict, notes)
    raise UserError(UNKNOWN)


def check_size(width: int, height: int, bytes_per_pixel: float, max_pixels: int) -> None:
    """Refuse an empty or too large image; call it before memory is taken.

    Args:
        width: in pixels.
        height: in pixels.
        bytes_per_pixel: when it is decoded.
        max_pixels: width times height, at most.

    Raises:
        UserError: it is empty or too large.
    """
    if width < 1 or height < 1:
        raise UserError(f"the image is empty: {width}x{height} pixels.")
    if width * height > max_pixels or width * height * bytes_per_pixel > MAX_BYTES_PER_PIXEL * max_pixels:
        gigabytes = width * height * bytes_per_pixel / 1e9
        raise UserError(
            f"{width}x{height} pixels, {gigabytes:.1f} GB decoded, are more than the limit of {max_pixels:,} "
            "pixels: it could be a decompression bomb; if it is not, raise --max-pixels."
        )


def _through_pillow(opener: Opener, data: bytes, max_pixels: int, notes: list[str]) -> Photo:
    """Decode the first frame with one of Pillow's readers, opened directly: our limit of sizes holds, not Pillow's."""
    with opener(io.BytesIO(data)) as image:
        check_size(*image.size, len(image.getbands()), max_pixels)
        _note_frames(getattr(image, "n_frames", 1), notes)
        return photo_from_pil(image)


def _note_frames(count: int, notes: list[str]) -> None:
    if count > 1:
        notes.append("several pictures are in the file: the first one is used.")


def _read_png(data: bytes, max_pixels: int, notes: list[str]) -> Photo:
    header = png.parse_header(data)
    check_size(header.width, header.height, png.SAMPLES[header.color] * max(header.depth, 8) / 8, max_pixels)
    parsed = png.parse_png(data)
    with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
        _note_frames(getattr(image, "n_frames", 1), notes)
        if header.depth == 16:
            metadata, orientation = metadata_from_pil(image)
            pixels = png.decode_16_bit(parsed)
            png.check_last_row(parsed, pixels)
            photo = upright(pixels, metadata, orientation)
        else:
            if header.color == png.GREY and isinstance(image.info.get("transparency"), int):
                image.info["transparency"] *= 255 // (2**header.depth - 1)  # Pillow stretches the pixels alone
            photo = photo_from_pil(image)
            png.check_last_row(parsed, image)
    return photo._replace(metadata=photo.metadata._replace(png_color=parsed.color_chunks))


def _read_jpeg(data: bytes, max_pixels: int, strict: bool, notes: list[str]) -> Photo:
    """Colours by libjpeg, metadata by Pillow, which also decodes CMYK: it knows who writes it inverted."""
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        check_size(*image.size, len(image.getbands()), max_pixels)
        doubts: list[str] = []
        is_ink = image.mode == "CMYK"
        pixels = jpeg.decode(data, doubts, scale=8 if is_ink else 1)
        _note_doubts(doubts, strict, notes)
        if is_ink or pixels is None:
            return photo_from_pil(image)
        metadata, orientation = metadata_from_pil(image)
    return upright(pixels, metadata, orientation)


def _note_doubts(doubts: list[str], strict: bool, notes: list[str]) -> None:
    """Turn what is suspicious about a file into a warning or, in strict reading, an error."""
    if doubts and strict:
        raise UserError(f"damaged: {doubts[0]}.")
    notes += [f"it may be damaged: look at it; {doubt}." for doubt in doubts[:1]]


def _read_tiff(data: bytes, max_pixels: int, strict: bool, notes: list[str]) -> Photo:
    page, one_of_several = tiff.choose_page(data)
    width, height, samples, bits = tiff.size_of(page)
    check_size(width, height, samples * (1 if bits <= 8 else 2), max_pixels)
    _note_frames(1 + one_of_several, notes)
    if tiff.is_pillows(page):
        if page.first(tiff_tags.COMPRESSION) == tiff_samples.JPEG:
            doubts: list[str] = []
            for piece in tiff_samples.jpeg_pieces(data, page):
                jpeg.decode(piece, doubts, scale=8)
            _note_doubts(doubts, strict, notes)
        with tiff_samples.quiet_libtiff(), TiffImagePlugin.TiffImageFile(io.BytesIO(data)) as image:
            photo = photo_from_pil(image)
        said = tiff.metadata_of(data, page)
        return photo._replace(metadata=said._replace(icc_profile=photo.metadata.icc_profile))
    return tiff.read_page(data, page)


def _read_gif(data: bytes, max_pixels: int, notes: list[str]) -> Photo:
    with GifImagePlugin.GifImageFile(io.BytesIO(data)) as image:
        check_size(*image.size, 1, max_pixels)
    damage.check_gif(data)
    return _through_pillow(GifImagePlugin.GifImageFile, data, max_pixels, notes)


def _read_isobmff(data: bytes, max_pixels: int, strict: bool, notes: list[str]) -> Photo:
    """AVIF by Pillow, HEIC by pillow-heif; the brands at the beginning say which it is."""
    brands = data[8 : int.from_bytes(data[:4], "big")]
    if b"avif" in brands or b"avis" in brands:
        start = data.find(b"av1C")
        if bits := DEEPER_AVIF.get(data[start + 6] & 0x60 if 0 <= start < len(data) - 6 else 0):
            notes.append(f"an AVIF of {bits} bits is read at 8: Pillow holds no more.")
        return _through_codec(AvifImagePlugin.AvifImageFile, data, max_pixels, strict, notes)
    if not any(brand in brands for brand in HEIC_BRANDS):
        raise UserError(UNKNOWN)
    try:
        from pillow_heif import HeifImageFile  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("HEIC needs pillow-heif: pip install 'frfsr[heif]'; or convert the photo to JPEG.") from error
    return _through_codec(HeifImageFile, data, max_pixels, strict, notes)


def _through_codec(opener: Opener, data: bytes, max_pixels: int, strict: bool, notes: list[str]) -> Photo:
    """As `_through_pillow`, for the formats whose decoders fill in what is missing."""
    photo = _through_pillow(opener, data, max_pixels, notes)
    if damage.zeros_in_media(data):
        with opener(io.BytesIO(data)) as image:
            exif = image.info.get("exif", b"").removeprefix(EXIF_PREFIX)
        if found := damage.zeros_in_media(data, but=exif):
            _note_doubts([f"a run of zeros in the middle of its pixels, at byte {found}"], strict, notes)
    return photo
