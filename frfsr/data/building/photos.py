"""Photos of places: which there are, the size at which each is sharp, and its SIFT points."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from frfsr.data.layouts import METADATA_FILES, Fault, images, scan
from frfsr.errors import UserError
from frfsr.imageio import read_photo

POINTS = 4000
SCALES = (1.0, 0.8, 0.63, 0.5, 0.4, 0.32, 0.25)
SHARP = 0.45  # of the variance of the Laplacian at half the size: BSDS500 has 0.71, blurred by 1 pixel 0.14
THUMBNAIL = 16
FILTER = Image.Resampling.LANCZOS


class Photo(NamedTuple):
    """A photo of the source: its name relative to the source's folder, its file, and the SHA-256 of its content."""

    name: str
    file: Path
    identity: str


class Features(NamedTuple):
    """What is known of a photo without its pixels. Places in it are (x, y); a pixel's centre has whole numbers.

    Attributes:
        size: (height, width) of the photo, upright.
        scale: pixels at the working size per pixel of the photo.
        sharp: the largest scale at which the photo is sharp, at least `scale`.
        points: (N, 2) float32 SIFT points at the working size, strongest first.
        descriptors: (N, 128) uint8.
        thumbnail: (16, 16) float32 grey of mean 0 and norm 1.
    """

    size: np.ndarray
    scale: np.ndarray
    sharp: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray
    thumbnail: np.ndarray

    @property
    def working_size(self) -> tuple[float, float]:
        """(height, width) at the working size."""
        height, width = self.size * self.scale
        return float(height), float(width)


class Source(NamedTuple):
    """The photos of a folder, which may match which, and what is wrong with it.

    Attributes:
        places: lists of photos that may show the same.
        partners: for a photo's name the names of its references, where the folder says it; else None.
        faults: photos that cannot be read, or lack their partner.
    """

    places: list[list[Photo]]
    partners: dict[str, list[str]] | None
    faults: list[Fault]


def find_photos(folder: Path) -> Source:
    """Find the photos of a folder: each of its folders is a place, or pairs are named as in CUFED or an ImageFolder.

    Raises:
        UserError: there is no such folder, or it holds no two photos.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give a folder of photos, best one with a folder for each place.")
    faults: list[Fault] = []
    if names_pairs(folder):
        layout = scan(folder, "train")
        faults += layout.faults
        files = [[file for pair in layout.pairs for file in (pair.input, *pair.references)]]
        partners = {
            relative(pair.input, folder): [relative(file, folder) for file in pair.references] for pair in layout.pairs
        }
    else:
        folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir() and path.name[0] != ".")]
        files, partners = [images(place) for place in folders], None
    places = [list(identified(dict.fromkeys(place), folder, faults)) for place in files]
    places = [place for place in places if len(place) > 1]
    if not places:
        raise UserError(f"{folder} holds no two photos of one place: photos in one folder may show the same.")
    return Source(places, partners, faults)


def names_pairs(folder: Path) -> bool:
    """Whether the folder says which photo is the reference of which."""
    if (folder / "input").is_dir() and (folder / "ref").is_dir():
        return True
    if any((folder / name).is_file() for name in METADATA_FILES):
        return True
    stems = [re.fullmatch(r"\d+_(\d+)", file.stem) for file in images(folder)]
    return any(stem and stem[1] == "0" for stem in stems) and all(stems)


def relative(file: Path, folder: Path) -> str:
    """Name of a file within a folder, with slashes."""
    return file.relative_to(folder).as_posix()


def identified(files: dict[Path, None], folder: Path, faults: list[Fault]) -> Iterator[Photo]:
    """The files as photos; those that cannot be opened become faults."""
    for file in files:
        try:
            with open(file, "rb") as content:
                identity = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            faults.append(Fault(relative(file, folder), error.strerror or str(error)))
        else:
            yield Photo(relative(file, folder), file, identity)


@lru_cache(maxsize=3)
def pixels_of(photo: Photo) -> np.ndarray:
    """Upright RGB pixels, (H, W, 3) uint8, by the project's reader; the last three are kept.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes on metadata and further pictures in the file
        return read_photo(photo.file, strict=True).rgb8()


def describe(pixels: np.ndarray, longest: int, smallest: int = 0, points: int = POINTS) -> Features:
    """Find the size at which a photo is sharp, and its SIFT points at that size.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        longest: largest long side of the working size, in pixels.
        smallest: smallest short side of it; 0 takes any photo, sharp or not, whole.
        points: how many are kept at most.

    Returns:
        Size and points.

    Raises:
        UserError: the photo is too small, or sharp at no size that is large enough.
    """
    height, width = pixels.shape[:2]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if min(height, width) < smallest:
        raise UserError(f"{width}x{height} is smaller than a cell of {smallest}x{smallest}")
    sharp = sharp_scale(grey) if smallest else 1.0
    if sharp * min(height, width) < smallest:
        raise UserError(f"blurred: not sharp at any size from {smallest} pixels on")
    scale = min(sharp, longest / max(height, width))
    if scale * min(height, width) < smallest:
        raise UserError(f"{width}x{height}, reduced to a long side of {longest}, is smaller than a cell of {smallest}")
    reduced = reduce(grey, scale)
    keypoints, found = cv2.SIFT.create(points).detectAndCompute(reduced, None)
    descriptors = np.zeros((0, 128), np.float32) if found is None else found
    order = np.argsort([-point.response for point in keypoints], kind="stable")[:points].astype(int)
    places = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)[order]
    return Features(
        np.array([height, width]),
        np.array(scale),
        np.array(sharp),
        places,
        descriptors[order].clip(0, 255).astype(np.uint8),
        thumbnail(grey),
    )


def sharp_scale(grey: np.ndarray) -> float:
    """The largest scale at which neighbouring pixels differ nearly as much as at half of it; 0 if there is none."""
    for scale in SCALES:
        if min(grey.shape) * scale < 32:
            break
        if sharpness(reduce(grey, scale)) >= SHARP * sharpness(reduce(grey, scale / 2)):
            return scale
    return 0.0


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of (H, W) uint8."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def reduce(image: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) uint8 at a scale of at most 1, by the filter that cuts cells."""
    height, width = (max(round(side * scale), 1) for side in image.shape)
    return image if scale >= 1 else np.asarray(Image.fromarray(image).resize((width, height), FILTER))


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """(16, 16) float32 of mean 0 and norm 1, by which whole photos are compared."""
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)
