"""Whether a photo shows what a benchmark shows: by SIFT points and a homography, and by thumbnails."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np
from PIL import Image as PILImage
from tqdm import tqdm

from frfsr.data.building.matches import mutual_matches, root_sift
from frfsr.data.building.photos import Features, describe
from frfsr.data.decoding import decode_image
from frfsr.data.layouts import IMAGE_SUFFIXES
from frfsr.data.pairs import open_pairs
from frfsr.errors import UserError

LONGEST = 512  # long side at which benchmark images are looked at
POINTS = 500
FEWEST = 8  # places that one homography explains
TOLERANCE = 5.0  # pixels of the benchmark image at that size
ALIKE = 0.98  # correlation of thumbnails
FLAT = 4  # points of an image without texture, whose thumbnail says nothing


class Leak(NamedTuple):
    """A photo that shows what a benchmark shows.

    Attributes:
        name: of the photo.
        benchmark: file of the benchmark's image.
        how: one line.
    """

    name: str
    benchmark: str
    how: str


class Benchmarks:
    """The images of benchmarks, with which photos are compared.

    Args:
        sources: folders, searched to their bottom for images and Parquet packs; packs, or datasets of the Hub.

    Raises:
        UserError: a source does not exist or holds no image.
    """

    def __init__(self, sources: Iterable[str | Path]):
        self.images: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
        identity = hashlib.sha256()
        for source in sources:
            count = len(self.images)
            for name, pixels in tqdm(images_of(source), desc=f"reading {source}", unit="image", disable=None):
                features = describe(pixels, LONGEST, points=POINTS)
                identity.update(features.descriptors.tobytes() + features.thumbnail.tobytes())
                known = (name, features.points, root_sift(features.descriptors), features.thumbnail)
                self.images.append(known)
            if len(self.images) == count:
                raise UserError(f"{source} holds no image with which photos could be compared.")
        self.identity = identity.hexdigest()

    def find_in(self, image: PILImage.Image) -> str | None:
        """As `find`, for an RGB image; in one line."""
        found = self.find(describe(np.asarray(image), LONGEST, points=4 * POINTS))
        return f"as {found[0]} ({found[1]})" if found else None

    def find(self, features: Features) -> tuple[str, str] | None:
        """The benchmark image that shows the same as a photo, and how that is known; None if there is none."""
        keys = root_sift(features.descriptors)
        for name, points, queries, thumbnail in self.images:
            if len(keys) >= FLAT and (likeness := alike(thumbnail, features.thumbnail)) > ALIKE:
                return name, f"thumbnails correlate at {likeness:.3f}"
            pairs = mutual_matches(queries, keys)
            if len(pairs) < FEWEST:
                continue
            benchmark, photo = points[pairs[:, 0]], features.points[pairs[:, 1]]
            found, mask = cv2.findHomography(photo, benchmark, cv2.RANSAC, TOLERANCE, maxIters=2000)
            count = 0 if found is None else spread(benchmark[mask.ravel() > 0])
            if count >= FEWEST:
                return name, f"{count} places match by one homography"
        return None


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """The larger correlation of two thumbnails, as they are and mirrored."""
    return float(max((first * second).sum(), (first * second[:, ::-1]).sum()))


def spread(places: np.ndarray) -> int:
    """How many places (K, 2) are left when those within 4 pixels count once: one corner gives many SIFT points."""
    return len({tuple(place) for place in np.floor(places / 4).astype(int).tolist()})


def images_of(source: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every image of a benchmark that can be read: its name, and (H, W, 3) uint8."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        yield from pack_images(str(source))
        return
    for file in sorted(folder.rglob("*")):
        if file.name.startswith("."):
            continue
        if file.suffix == ".parquet":
            yield from pack_images(str(file))
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            yield from readable(str(file), {"bytes": None, "path": str(file)})


def pack_images(source: str) -> Iterator[tuple[str, np.ndarray]]:
    """Inputs and references of a pack or a Hub dataset."""
    for row in cast(Iterable[dict], open_pairs(source, decode=False).rows):
        for place, file in enumerate([row["input"], *row["references"]]):
            yield from readable(f"{source}, {row['name']}{f', reference {place}' if place else ''}", file)


def readable(name: str, file: dict) -> Iterator[tuple[str, np.ndarray]]:
    """One image, or none if it is damaged: nobody can have trained on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = np.asarray(decode_image(file))
        except UserError:
            return
    if min(pixels.shape[:2]) >= 16:
        yield name, pixels
