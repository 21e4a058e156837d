"""The photos of a data set as arrays: each decoded once, as far as memory allows, and the LR image of the whole."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
from datasets import Dataset
from PIL import Image as PILImage

from frfsr import degrade
from frfsr.data.decoding import image_size
from frfsr.data.pairs import decode_image, stored
from frfsr.errors import UserError

Place = tuple[int, int]
"""A photo's place in a data set: number of the pair; 0 for its input, 1, 2, ... for its references."""


class UnreadablePhotoError(UserError):
    """A photo of the data that cannot be decoded."""


class Photos:
    """Photos (H, W, 3) uint8, RGB, sides cut to multiples of 4, by their place.

    Decoded photos and their LR images are kept until `megabytes` are full; those that come later are made anew each
    time, which in random order costs the same as dropping others for them.
    """

    def __init__(self, pairs: Dataset, megabytes: float):
        self.pairs = stored(pairs)
        self.room = megabytes * 2**20
        self.kept: dict[tuple[str, Place], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def sharp(self, place: Place) -> np.ndarray:
        """Read the photo itself.

        Args:
            place: which one.

        Returns:
            (H, W, 3) uint8.

        Raises:
            UnreadablePhotoError: it cannot be decoded; it names it.
        """
        return self.keep(("sharp", place), lambda: self.decode(place))

    def low(self, place: Place) -> np.ndarray:
        """The LR image of the whole photo, (H / 4, W / 4, 3)."""
        return self.keep(("low", place), lambda: degrade.downscale(self.sharp(place)))

    def keep(self, key: tuple[str, Place], make: Callable[[], np.ndarray]) -> np.ndarray:
        """Give what was made under a key, from memory where there was room for it."""
        photo = self.kept.get(key)
        if photo is None:
            photo = make()
            if photo.nbytes <= self.room:
                self.room -= photo.nbytes
                self.kept[key] = photo
        return photo

    def decode(self, place: Place) -> np.ndarray:
        """Read a photo from its file; see `sharp`.

        Raises:
            UnreadablePhotoError: it is no image, or too small.
        """
        row = cast("dict[str, Any]", self.pairs[place[0]])
        file = row["input"] if place[1] == 0 else row["references"][place[1] - 1]
        try:
            photo = np.asarray(decode_image(file))
        except UserError as error:
            raise unreadable(row, error) from error
        if min(photo.shape[:2]) < degrade.SCALE:
            raise unreadable(row, UserError(f"an image of {photo.shape[1]}x{photo.shape[0]} pixels is too small."))
        return np.ascontiguousarray(degrade.crop_to_multiple(photo))

    def by_area(self, side: int, skip_bad: bool = False) -> list[Place]:
        """List every photo as often as squares cover it (at least once), inputs and references alike.

        Args:
            side: of the squares, in pixels.
            skip_bad: leave out files that are no images, with a warning.

        Returns:
            Places of photos.

        Raises:
            UnreadablePhotoError: a file is no image.
        """
        places = []
        for number, row in enumerate(cast("Iterable[dict[str, Any]]", self.pairs)):
            for k, file in enumerate([row["input"], *row["references"]]):
                try:
                    width, height = image_size(file)
                except UserError as error:
                    if not skip_bad:
                        raise unreadable(row, error) from error
                    skipped(unreadable(row, error))
                else:
                    places += [(number, k)] * max(1, round(width * height / side**2))
        return places


def unreadable(row: dict, error: UserError) -> UnreadablePhotoError:
    """What to say of a pair with an image that cannot be read."""
    return UnreadablePhotoError(f"{row['name']}: {error} Mend it, take it out of the data, or give skip_bad=true.")


def skipped(error: UnreadablePhotoError) -> None:
    """Say which photo is left out; once for each."""
    warnings.warn(f"skipped: {error}", stacklevel=2)


def mirrored(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Cut a window of an image, which continues mirrored beyond its borders.

    Args:
        image: (H, W, 3).
        top: first row, may lie outside.
        left: first column, may lie outside.
        height: of the window, in pixels.
        width: of the window, in pixels.

    Returns:
        (height, width, 3).
    """

    def inside(start: int, count: int, side: int) -> np.ndarray:
        place = np.arange(start, start + count) % (2 * side)
        return np.minimum(place, 2 * side - 1 - place)

    return image[inside(top, height, image.shape[0])][:, inside(left, width, image.shape[1])]


def view(
    image: np.ndarray, side: int, centre: tuple[float, float], zoom: float = 1.0, degrees: float = 0.0
) -> np.ndarray:
    """Cut a square view of an image, zoomed and turned around a point of it; antialiased bicubic.

    Args:
        image: the photo (H, W, 3) uint8; beyond its borders it continues mirrored.
        side: of the view, in its own pixels.
        centre: the point (y, x) in pixels of the photo; moved as far as a view that is smaller than the photo needs to
            stay inside.
        zoom: size of the content in the view over that in the photo.
        degrees: the content is turned counter-clockwise.

    Returns:
        (side, side, 3) uint8.
    """
    half = side / zoom / 2
    y, x = (
        min(max(wanted, half), length - half) if length > 2 * half else length / 2
        for wanted, length in zip(centre, image.shape[:2], strict=True)
    )
    reach = int(np.ceil((1.42 if degrees else 1) * half)) + 4  # of a turned view half a diagonal; and the kernel
    window = PILImage.fromarray(mirrored(image, round(y) - reach, round(x) - reach, 2 * reach, 2 * reach))
    zoomed = round(2 * reach * zoom)
    window = window.resize((zoomed, zoomed), PILImage.Resampling.BICUBIC)
    if degrees:
        window = window.rotate(degrees, PILImage.Resampling.BICUBIC)
    corner = (zoomed - side) // 2
    return np.asarray(window)[corner : corner + side, corner : corner + side]
