"""What passes between files and networks: pixels as the file has them, and what the file says about them."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from frfsr.errors import UserError, one_line
from frfsr.imageio.alpha import fill_transparent
from frfsr.imageio.metadata import Metadata, metadata_from_pil, with_axes_swapped

TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations of photos that lie on their side."""


class Photo(NamedTuple):
    """Pixels in the shape that the file has them, upright, with straight (not premultiplied) alpha.

    Attributes:
        pixels: (H, W, C) uint8 or uint16 over the whole range, or, from no file but from people's arrays, floating
            point in [0, 1]; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
        metadata: colour profile, EXIF and the like, for the file that is made of this one.
    """

    pixels: np.ndarray
    metadata: Metadata = Metadata()

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.pixels.shape[2] in (2, 4)

    @property
    def alpha(self) -> np.ndarray | None:
        """(H, W) alpha of the dtype of the pixels, or None."""
        return self.pixels[..., -1] if self.has_alpha else None

    def rgb(self) -> np.ndarray:
        """Return (H, W, 3) RGB of the dtype of the pixels: grey repeated, alpha dropped."""
        color = self.pixels[..., : self.pixels.shape[2] - self.has_alpha]
        return color if color.shape[2] == 3 else color.repeat(3, axis=2)

    def rgb8(self) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB: grey repeated, 16 bits divided by 257 and rounded, alpha dropped."""
        return to_8_bit(self.rgb())

    def filled_rgb(self) -> np.ndarray:
        """Return (H, W, 3) RGB of the dtype of the pixels, with colour under alpha 0 continued from its surroundings.

        Such colour is arbitrary, mostly black, and would leak into its visible neighbours when enlarged.
        """
        return self.rgb() if self.alpha is None else fill_transparent(self.rgb(), self.alpha)


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 pixels of uint8, uint16 (value / 257, rounded) or floating-point ones (value * 255, rounded)."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f":
        return np.rint(pixels * 255).astype(np.uint8)
    # (v * 255 + 32895) >> 16 is round(v / 257) for every 16-bit v, without floating point
    return ((pixels.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def photo_from_pil(image: Image.Image) -> Photo:
    """Turn any Pillow image into a Photo: palettes and other colour spaces become RGB, EXIF orientation is applied.

    Args:
        image: of any mode but floating point; integers of 32 bits must lie in 0...65535.

    Returns:
        The photo, upright.

    Raises:
        UserError: an empty image, a mode without a fixed range, or pixels that do not decode.
    """
    if 0 in image.size:
        raise UserError(f"the image is empty: {image.width}x{image.height} pixels.")
    try:
        image.load()
    except OSError as error:
        raise UserError(f"the image is damaged: {one_line(error)}.") from error
    metadata, orientation = metadata_from_pil(image)
    pixels, keeps_profile = _pixels(image)
    return upright(pixels, metadata if keeps_profile else metadata._replace(icc_profile=None), orientation)


def photo_to_pil(photo: Photo) -> Image.Image:
    """Return a Pillow image of mode L, LA, RGB, RGBA or, for 16-bit grey, I;16; other 16-bit images lose 8 bits."""
    pixels = photo.pixels
    if pixels.shape[2] > 1:
        pixels = to_8_bit(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    facts = {"icc_profile": photo.metadata.icc_profile, "exif": photo.metadata.exif, "dpi": photo.metadata.dpi}
    image.info.update({key: value for key, value in facts.items() if value})
    return image


def upright(pixels: np.ndarray, metadata: Metadata, orientation: int) -> Photo:
    """Return the photo of (H, W, C) pixels with EXIF orientation 1...8 undone, in what its metadata say too."""
    turned = with_axes_swapped(metadata) if orientation in TRANSPOSED else metadata
    return Photo(turn_upright(pixels, orientation), turned)


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1...8 of (H, W, C) pixels: 5 to 8 are transposed, then mirrored along one or both axes."""
    if orientation in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def cmyk_to_rgb(cmyk: Image.Image, profile: bytes | None) -> np.ndarray:
    """Return (H, W, 3) uint8 sRGB of a Pillow CMYK image, through its colour profile where it has a usable one."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(cmyk, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return np.asarray(converted)
        except (OSError, ImageCms.PyCMSError):
            pass  # a broken or foreign profile: the plain conversion
    return np.asarray(cmyk.convert("RGB"))


def _pixels(image: Image.Image) -> tuple[np.ndarray, bool]:
    """Return (H, W, C) pixels of a Pillow image, and whether its colour profile still describes them."""
    if image.mode == "F":
        raise UserError("floating-point images have no fixed range: convert the image to 8 or 16 bits first.")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow also holds it in 32-bit integers
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65_535:
            raise UserError("32-bit images are not supported: convert the image to 8 or 16 bits first.")
        return grey.astype(np.uint16)[..., None], True
    if image.mode == "CMYK":
        return cmyk_to_rgb(image, image.info.get("icc_profile")), False
    if image.mode in ("LAB", "HSV"):
        raise UserError(f"{image.mode} images are not supported: convert the image to RGB first.")
    if image.mode in ("La", "RGBa"):  # Pillow's names for premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    is_grey = image.mode in ("1", "L", "LA")
    has_alpha = image.has_transparency_data
    if not has_alpha:
        return np.atleast_3d(np.asarray(image.convert("L" if is_grey else "RGB"))), True
    if image.mode == "L" and isinstance(image.info.get("transparency"), int):
        grey = np.asarray(image)  # Pillow converts the transparent grey only to RGBA
        return np.stack([grey, np.where(grey == image.info["transparency"], 0, 255).astype(np.uint8)], axis=-1), True
    pixels = np.asarray(image.convert("RGBA"))
    return (pixels[..., [0, 3]] if is_grey else pixels), image.mode != "YCbCr"
