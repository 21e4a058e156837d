"""Samples for the matching network: a photo, its view under a random homography, and what lies where."""

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from frfsr import degrade
from frfsr.pixels import to_tensor
from frfsr.recipes.config import MatchingConfig
from frfsr.recipes.homography import random_homography, shift, similarity, transform, warp
from frfsr.recipes.photos import Photos, mirrored
from frfsr.recipes.samples import degraded, first_readable, log_uniform, recolour


class Views(torch.utils.data.Dataset):
    """Sample i is a pure function of (seed, i); photos are drawn by their area.

    image1: (3, size, size), sharp or, in the student stage, the LR image enlarged; sharp1: image 1 in full resolution;
    image2: the second view; coordinates: (size, size, 2), where image 1's pixels lie in image 2.
    """

    def __init__(self, pairs: Dataset, config: MatchingConfig, length: int, seed: int):
        self.config, self.length, self.seed, self.degradation = config, length, seed, config.degraded_by()
        self.photos = Photos(pairs, config.cache / max(config.workers, 1))
        self.places = self.photos.by_area(config.size, config.skip_bad)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if not self.config.skip_bad:
            return self.sample(i, 0)
        return first_readable(lambda attempt: self.sample(i, attempt))

    def sample(self, i: int, attempt: int) -> dict[str, Tensor]:
        """Sample i, of the photo so many places behind the one that is drawn."""
        config, size = self.config, self.config.size
        rng = np.random.default_rng([self.seed, i])
        number = int(rng.integers(len(self.places)))
        photo = self.photos.sharp(self.places[(number + attempt) % len(self.places)])
        top, left = (int(rng.integers(0, max(side - size, 0) + 1)) for side in photo.shape[:2])
        symmetry = int(rng.integers(8))
        crop = degrade.flip_rotate(mirrored(photo, top, left, size, size), symmetry)
        sharp = to_tensor(crop)
        student = config.stage == "student"
        image1 = degraded(crop, self.degradation, self.seed, 1, i)["upsampled"] if student else sharp

        zoom, degrees = log_uniform(*config.zoom, rng), config.turn * rng.uniform(-1, 1)
        margin = (
            int(np.ceil(0.5 * size * max(1.42 / zoom - 1, 0))) + 3 * config.jitter + 4
        )  # what image 2 may also show
        whole = size + 2 * margin
        surroundings = degrade.flip_rotate(mirrored(photo, top - margin, left - margin, whole, whole), symmetry)
        zoomed = round(whole * zoom)
        surroundings = to_tensor(degrade.resize(surroundings, zoomed, zoomed))
        zoom = zoomed / whole
        from_crop = shift((zoomed - 1) / 2) @ np.diag([zoom, zoom, 1]) @ shift(-(size - 1) / 2)
        homography = random_homography(np.random.RandomState(rng.integers(2**31)), size, config.jitter)
        homography = homography @ similarity(size, zoom, degrees)
        return {
            "image1": image1,
            "sharp1": sharp,
            "image2": recolour(warp(surroundings, from_crop @ homography, size), config.colour, rng),
            "coordinates": torch.from_numpy(transform(np.linalg.inv(homography), size, size)).float(),
        }
