"""Samples for the matching network: a photo, its view under a random homography, and what lies where."""

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from frfsr import degrade
from frfsr.recipes.config import MatchingConfig
from frfsr.recipes.homography import random_homography, transform, warp
from frfsr.recipes.samples import degraded, to_tensor


class Views(torch.utils.data.Dataset):
    """Sample i is a pure function of (seed, i).

    image1: (3, size, size), sharp or, in the student stage, the LR image enlarged; sharp1: image 1 in full resolution;
    image2: the second view; coordinates: (size, size, 2), where image 1's pixels lie in image 2.
    """

    def __init__(self, photos: Dataset, config: MatchingConfig, length: int, seed: int):
        self.photos, self.config, self.length, self.seed = photos, config, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, i])
        pair = self.photos[int(rng.integers(len(self.photos)))]
        choices = [pair["input"], *pair["references"]]
        photo = np.asarray(choices[int(rng.integers(len(choices)))])
        crop = degrade.flip_rotate(degrade.random_crop(photo, self.config.size, rng), int(rng.integers(8)))
        homography = random_homography(np.random.RandomState(rng.integers(2**31)), self.config.size, self.config.jitter)
        sharp = to_tensor(crop)
        image1 = degraded(crop)["upsampled"] if self.config.stage == "student" else sharp
        return {
            "image1": image1,
            "sharp1": sharp,
            "image2": recolour(warp(sharp, homography), self.config.colour, rng),
            "coordinates": torch.from_numpy(transform(np.linalg.inv(homography), *crop.shape[:2])).float(),
        }


def recolour(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Another camera, another hour: a gain for each channel and a gamma, within 1 +- strength. (3, H, W) in [0, 1]."""
    gain = torch.from_numpy(1 + strength * rng.uniform(-1, 1, (3, 1, 1))).float()
    gamma = float(1 + strength * rng.uniform(-1, 1))
    return (gain * image).clamp(0, 1) ** gamma
