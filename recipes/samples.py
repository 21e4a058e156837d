"""Training samples: a pair of photos -> LR, enlarged LR, reference and HR tensors."""

import numpy as np
import torch
from datasets import Dataset
from einops import rearrange
from torch import Tensor

from frfsr import degrade
from frfsr.recipes.config import TrainingConfig

SHUFFLES = {"easy": 2, "medium": 4, "hard": 8}


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rearrange(image, "h w c -> c h w"))).float() / 255


def degraded(hr: np.ndarray) -> dict[str, Tensor]:
    """HR photo (4h, 4w, 3) uint8 -> the tensors lr (3, h, w), upsampled (3, 4h, 4w) and hr (3, 4h, 4w)."""
    lr = degrade.downscale(hr)
    return {"lr": to_tensor(lr), "upsampled": to_tensor(degrade.upscale_bicubic(lr)), "hr": to_tensor(hr)}


def own_reference(photo: np.ndarray) -> np.ndarray:
    """The enlarged LR image of a photo (H, W, 3) uint8, of the photo's size: the reference where there is none."""
    return degrade.resize(degrade.downscale(photo), *photo.shape[:2])


class TrainingSamples(torch.utils.data.Dataset):
    """Sample i of a run is a pure function of (seed, i): a resumed run sees what the uninterrupted one would have seen,
    whatever the number of workers and processes. Every pair comes once an epoch, in an order drawn for that epoch."""

    def __init__(self, pairs: Dataset, config: TrainingConfig):
        self.pairs, self.config = pairs, config
        self.epoch, self.order = -1, np.empty(0, dtype=int)

    def __len__(self) -> int:
        return self.config.steps * self.config.batch

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        epoch, place = divmod(i, len(self.pairs))
        if epoch != self.epoch:
            self.epoch, self.order = (
                epoch,
                np.random.default_rng([self.config.seed, epoch]).permutation(len(self.pairs)),
            )
        rng = np.random.default_rng([self.config.seed, 1, i])
        pair = self.pairs[int(self.order[place])]
        if self.config.stage == "sife":
            photos = [pair["input"], *pair["references"]]
            return degraded(self.crop_and_turn(photos[int(rng.integers(len(photos)))], rng)[0])
        kind = rng.random()
        if kind < self.config.unrelated_share:
            pair = pair | {"references": self.pairs[int(rng.integers(len(self.pairs)))]["references"]}
        elif kind < self.config.unrelated_share + self.config.own_share:
            pair = pair | {"references": [own_reference(np.asarray(pair["input"]))]}
        hr, reference = self.crop_and_turn(pair["input"], rng, pair["references"][0])
        if self.config.shuffle != "none" and rng.random() < self.config.shuffle_share:
            reference = degrade.shuffle_patches(reference, SHUFFLES[self.config.shuffle], rng)
        sample = degraded(hr) | {"reference": to_tensor(reference)}
        if self.config.stage == "all":
            sample["mix"] = torch.tensor(rng.random(), dtype=torch.float32)  # of I_HR and I_SR in eq. 29
        return sample

    def crop_and_turn(self, photo, rng: np.random.Generator, *whole) -> list[np.ndarray]:
        """A random crop of `photo` and the photos `whole`, all under the same flip and rotation."""
        symmetry = int(rng.integers(8)) if self.config.flip_rotate else 0
        crop = degrade.random_crop(np.asarray(photo), self.config.crop, rng)
        return [degrade.flip_rotate(image, symmetry) for image in (crop, *map(np.asarray, whole))]
