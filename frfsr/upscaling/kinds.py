"""Kinds of images that people have in Python: how they become photos, and how a result comes back in the same kind."""

import os
from collections.abc import Iterable
from typing import TypeVar, cast

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from frfsr.errors import UserError
from frfsr.imageio import Photo, photo_from_pil, photo_to_pil, read_photo
from frfsr.imageio.read import Source

PhotoLike = Image.Image | Source | np.ndarray | Tensor
"""A Pillow image; a path, bytes or a binary file object of an image file; an array (H, W) or (H, W, C), or a tensor
(C, H, W) or (B, C, H, W): uint8, uint16, or floating point in [0, 1]; C is 1 grey, 2 grey and alpha, 3 RGB,
4 RGB and alpha."""
Given = TypeVar("Given", bound=PhotoLike)

CHANNELS = "1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGB + alpha)"
OVERSHOOT = 1e-3  # beyond [0, 1]: what half precision makes of 0 and 1


def as_photos(image: PhotoLike, name: str) -> list[Photo]:
    """Read an image of any kind; a batch becomes as many photos, everything else one.

    Args:
        image: see `PhotoLike`.
        name: what messages call it, where it has no path.

    Returns:
        The photos.

    Raises:
        UserError: it is of no known kind, or its shape, type or values are not those of an image.
    """
    if isinstance(image, str | os.PathLike):
        return [read_photo(image)]
    if isinstance(image, bytes) or hasattr(image, "read"):
        return [read_photo(cast(Source, image), name=name)]
    try:
        if isinstance(image, Image.Image):
            return [photo_from_pil(image)]
        if isinstance(image, Tensor):
            return [Photo(pixels) for pixels in _arrays(image)]
        if isinstance(image, np.ndarray):
            return [Photo(_checked(image))]
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    raise UserError(
        f"{name}: a {type(image).__name__} is no image: give a path, bytes, a binary file, a Pillow image, "
        "a NumPy array or a torch tensor."
    )


def as_references(references: PhotoLike | Iterable[PhotoLike], photos: int) -> list[list[Photo]]:
    """Read one or several references of any kind, and say which belong to which of the photos.

    Args:
        references: a batch belongs to a batch of photos, one to each; a batch of one, and all else, to every photo.
        photos: their number.

    Returns:
        The references of each photo.

    Raises:
        UserError: as `as_photos`, or a batch of another size than that of the photos.
    """
    read = [as_photos(image, f"reference {number}") for number, image in enumerate(several(references), start=1)]
    for number, batch in enumerate(read, start=1):
        if len(batch) not in (1, photos):
            raise UserError(
                f"reference {number}: a batch of {len(batch)} for {photos} photo{'s' * (photos > 1)}: "
                "give one for each photo, or several for the same photo as a list."
            )
    return [[batch[number % len(batch)] for batch in read] for number in range(photos)]


def several(images: PhotoLike | Iterable[PhotoLike]) -> list[PhotoLike]:
    """One image as a list of one; several as a list."""
    is_one = isinstance(images, PhotoLike) or hasattr(images, "read") or not isinstance(images, Iterable)
    return [cast(PhotoLike, images)] if is_one else list(cast(Iterable[PhotoLike], images))


def in_kind_of(image: Given, results: list[Photo]) -> Given | Image.Image:
    """Give back photos in the kind of the image that they were made of.

    Returns:
        An array or a tensor of the same number of axes and type, a tensor on its device; a Pillow image of all else.
    """
    if isinstance(image, Tensor):
        stacked = torch.from_numpy(np.stack([result.pixels for result in results]))
        tensor = rearrange(stacked, "b h w c -> b c h w").contiguous().to(image.device, image.dtype)
        return cast(Given, tensor if image.ndim == 4 else tensor[0])
    if isinstance(image, np.ndarray):
        return cast(Given, results[0].pixels if image.ndim == 3 else results[0].pixels[..., 0])
    return photo_to_pil(results[0])


def _arrays(image: Tensor) -> list[np.ndarray]:
    """The images of a tensor as checked arrays (H, W, C)."""
    if image.ndim not in (3, 4) or not 1 <= image.shape[-3] <= 4:
        raise UserError(
            f"a tensor of shape {tuple(image.shape)} is no image: give (C, H, W) or (B, C, H, W), C is {CHANNELS}."
        )
    if image.ndim == 4 and not len(image):
        raise UserError("the batch is empty.")
    image = image.detach().cpu()
    batch = (image.float() if image.dtype == torch.bfloat16 else image).reshape(-1, *image.shape[-3:])
    return [_checked(np.ascontiguousarray(one)) for one in rearrange(batch, "b c h w -> b h w c").numpy()]


def _checked(image: np.ndarray) -> np.ndarray:
    """The array as (H, W, C) if it is an image; floating-point values are clipped to [0, 1]."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4):
        first = image.ndim == 3 and 1 <= image.shape[0] <= 4
        raise UserError(
            f"an array of shape {image.shape} is no image: give (H, W) or (H, W, C), C is {CHANNELS}"
            f"{'; numpy.moveaxis(image, 0, -1) moves the channels last' if first else ''}."
        )
    if 0 in image.shape:
        raise UserError(f"the image is empty: {image.shape[1]}x{image.shape[0]} pixels.")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise UserError(f"values of type {image.dtype} have no fixed range: give uint8, uint16, or floats in [0, 1].")
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        if not np.isfinite([low, high]).all():
            raise UserError("it has NaN or infinite values.")
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise UserError(
                f"its values from {low:.3g} to {high:.3g} leave [0, 1]: clip them, or divide values of 8 bits by 255."
            )
        image = image.clip(0, 1)
    return np.atleast_3d(image)
