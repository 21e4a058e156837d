"""Image files <-> pixel arrays, at 8 and 16 bits, with transparency; outputs appear whole or not at all."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from frfsr.errors import UserError

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # pixels; limits of the formats
EXIF_ORIENTATION = 0x0112
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_BIT_DEPTH = 24  # its place in the file: after signature (8), chunk length (4), "IHDR" (4), width (4), height (4)


class Photo(NamedTuple):
    """Pixels in the shape that the file has them.

    pixels: (H, W, C) uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (straight, not premultiplied).
    icc_profile: the embedded colour profile, if any.
    """

    pixels: np.ndarray
    icc_profile: bytes | None = None

    @property
    def has_alpha(self) -> bool:
        return self.pixels.shape[2] in (2, 4)


def read_photo(path: str | Path) -> Photo:
    """Read a PNG, JPEG, WebP, TIFF, BMP, GIF or PPM file (the first image of several), turned upright by its EXIF tag.

    16-bit files keep 16 bits, for which Pillow has no colour mode: imagecodecs reads these PNGs, tifffile the TIFFs.
    Raises UserError for whatever does not decode completely, and for decompression bombs (Image.MAX_IMAGE_PIXELS).
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken metadata is no reason to worry anyone
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if path.exists() and not path.is_file():
                raise UserError(f"{path} is not a file: give an image file.")
            with open(path, "rb") as file:
                signature = file.read(PNG_BIT_DEPTH + 1)
            if signature[:4] in TIFF_SIGNATURES and (photo := _read_plain_tiff(path)):
                return photo
            with Image.open(path, formats=READ_FORMATS) as image:
                if image.format == "PNG" and signature[PNG_BIT_DEPTH] == 16:
                    return _read_16_bit_png(path, image)
                return photo_from_pil(image)
        except UserError:
            raise
        except UnidentifiedImageError as error:
            raise UserError(f"{path} is not an image in a known format ({', '.join(READ_FORMATS)}).") from error
        except Exception as error:  # decoders raise nearly every type on damaged files
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path} cannot be read as an image: {reason}") from error


def photo_from_pil(image: Image.Image) -> Photo:
    """Any Pillow image -> Photo. Palettes and other colour spaces become RGB; EXIF orientation is applied."""
    if 0 in image.size:
        raise UserError(f"the image is empty: {image.width}x{image.height} pixels.")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise UserError("floating-point images have no fixed range: convert the image to 8 or 16 bits first.")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow also holds it in 32-bit integers
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65_535:
            raise UserError("32-bit images are not supported: convert the image to 8 or 16 bits first.")
        return Photo(grey.astype(np.uint16)[..., None], image.info.get("icc_profile"))
    is_grey = image.mode in ("1", "L", "LA")
    mode = ("L" if is_grey else "RGB") + ("A" if image.has_transparency_data else "")
    pixels = np.asarray(
        image.convert("RGBA" if mode == "LA" else mode)
    )  # the transparent grey of L converts only to RGBA
    if mode == "LA":
        pixels = pixels[..., [0, 3]]
    keeps_profile = is_grey or image.mode in ("RGB", "RGBA", "P", "PA")
    return Photo(np.atleast_3d(pixels), image.info.get("icc_profile") if keeps_profile else None)


def photo_to_pil(photo: Photo) -> Image.Image:
    """Photo -> Pillow image of mode L, LA, RGB, RGBA or, for 16-bit grey, I;16; other 16-bit images lose 8 bits."""
    pixels = photo.pixels
    if pixels.shape[2] > 1:
        pixels = _to_8_bit(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if photo.icc_profile:
        image.info["icc_profile"] = photo.icc_profile
    return image


def check_output(path: str | Path, height: int, width: int, has_alpha: bool) -> None:
    """Raise UserError if an image of this size cannot be stored under this name; call it before the long work."""
    path = Path(path)
    image_format = WRITE_FORMATS.get(path.suffix.lower())
    if image_format is None:
        raise UserError(f"{path}: unknown image format; end the name in {', '.join(WRITE_FORMATS)}.")
    if has_alpha and image_format == "JPEG":
        raise UserError(f"{path}: JPEG cannot store the transparency of the input; write .png, .webp or .tif.")
    limit = LONGEST_SIDE.get(image_format)
    if limit and max(height, width) > limit:
        raise UserError(
            f"{path}: {image_format} holds at most {limit} pixels a side, not {width}x{height}; write .png."
        )
    with replaced_when_complete(path, discard=True):
        pass


def write_photo(photo: Photo, path: str | Path) -> None:
    """Write PNG, JPEG, WebP or TIFF by the name's ending; 16 bits where the format has them (PNG, TIFF), else 8."""
    check_output(path, *photo.pixels.shape[:2], photo.has_alpha)
    image_format = WRITE_FORMATS[Path(path).suffix.lower()]
    deep = photo.pixels.dtype == np.uint16
    with replaced_when_complete(path) as file:
        if deep and image_format == "PNG":
            file.write(_encode_16_bit_png(photo))
        elif deep and image_format == "TIFF":
            _write_16_bit_tiff(photo, file)
        else:
            image = photo_to_pil(photo._replace(pixels=_to_8_bit(photo.pixels)))
            options = {"subsampling": "4:4:4"} if image_format == "JPEG" else {}
            image.save(file, image_format, quality=95, icc_profile=photo.icc_profile, **options)


@contextmanager
def replaced_when_complete(path: str | Path, discard: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it replaces `path` when the block ends without an error.

    discard: only try whether that would be possible. Raises UserError when the place cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} exists and is not a file: give the output another name.")
        path = path.resolve()  # replace what a link points to, not the link
        partial = path.parent / f".frfsr-{uuid4().hex}.partial"
        with open(partial, "xb") as file:
            try:
                yield file
                file.close()
                if not discard:
                    os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error


def _read_16_bit_png(path: Path, image: Image.Image) -> Photo:
    """`image`: the same file, opened by Pillow, which has checked its size and knows its metadata."""
    pixels = np.atleast_3d(imagecodecs.png_decode(path.read_bytes()))
    return Photo(_turn_upright(pixels, image.getexif().get(EXIF_ORIENTATION, 1)), image.info.get("icc_profile"))


def _read_plain_tiff(path: Path) -> Photo | None:
    """The first page of a grey or RGB TIFF of 8 or 16 bits; None for other kinds, which Pillow may know.

    Pillow scrambles uncompressed TIFFs that are turned by 90 degrees, and reduces 16-bit colour.
    """
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        is_plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        if not is_plain or page.dtype not in (np.uint8, np.uint16) or page.bitspersample != 8 * page.dtype.itemsize:
            return None
        if page.imagelength * page.imagewidth > (Image.MAX_IMAGE_PIXELS or np.inf):
            size = f"{page.imagewidth}x{page.imagelength}"
            raise UserError(f"{path} has {size} pixels: it could be a decompression bomb.")
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        upright = _turn_upright(np.atleast_3d(pixels)[..., :4], page.tags.valueof("Orientation", 1))
        return Photo(upright, page.iccprofile)


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1...8 of (H, W, C) pixels: 5 to 8 are transposed, then mirrored along one or both axes."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_8_bit(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / np.float32(257)).astype(np.uint8)


def _encode_16_bit_png(photo: Photo) -> bytes:
    data = imagecodecs.png_encode(photo.pixels)
    if not photo.icc_profile:
        return data
    body = b"iCCPprofile\0\0" + zlib.compress(photo.icc_profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    after_header = 33  # signature 8, IHDR chunk 25
    return data[:after_header] + chunk + data[after_header:]


def _write_16_bit_tiff(photo: Photo, file: BinaryIO) -> None:
    tifffile.imwrite(
        file,
        photo.pixels[..., 0] if photo.pixels.shape[2] == 1 else photo.pixels,
        photometric="rgb" if photo.pixels.shape[2] > 2 else "minisblack",
        planarconfig="contig" if photo.pixels.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if photo.has_alpha else None,
        compression="zlib",
        iccprofile=photo.icc_profile,
        metadata=None,
    )
