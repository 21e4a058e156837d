"""Training samples: a pair of photos -> LR, enlarged LR, reference and HR tensors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from frfsr import degrade
from frfsr.degradations import Degradation, degraded_lr
from frfsr.errors import UserError
from frfsr.pixels import to_tensor
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.photos import Photos, Place, UnreadablePhotoError, mirrored, skipped, view

BAD_IN_A_ROW = 100
MARGIN = 16  # LR pixels around a crop that are degraded with it: blur and JPEG's blocks have neighbours
SHUFFLES = {"easy": 2, "medium": 4, "hard": 8}


class Around(NamedTuple):
    """An LR image (h, w, 3) that shows a crop, and the crop's corner in it."""

    image: np.ndarray
    top: int
    left: int


def degraded(hr: np.ndarray, by: Degradation | None, *seed: int) -> dict[str, Tensor]:
    """Make the tensors of a photo.

    Args:
        hr: (4h, 4w, 3) uint8.
        by: None for Pillow's bicubic interpolation alone.
        *seed: of what else happens.

    Returns:
        lr (3, h, w), upsampled (3, 4h, 4w) and hr (3, 4h, 4w).
    """
    lr = degrade.downscale(hr) if by is None else degraded_lr(hr, by, np.random.default_rng(seed))
    return {"lr": to_tensor(lr), "upsampled": to_tensor(degrade.upscale_bicubic(lr)), "hr": to_tensor(hr)}


def recolour(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Show another camera, another hour: exposure, a gain for each channel and a gamma.

    Args:
        image: (3, H, W) in [0, 1].
        strength: each of these factors lies within 1 +- strength.
        rng: draws them.

    Returns:
        (3, H, W) in [0, 1].
    """
    exposure, gamma = (float(1 + strength * rng.uniform(-1, 1)) for _ in range(2))
    gain = torch.from_numpy(1 + strength * rng.uniform(-1, 1, (3, 1, 1))).float()
    return (exposure * gain * image).clamp(0, 1) ** gamma


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """A factor between low and high: as often below as above their geometric mean."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class Order:
    """Endless numbers 0 ... count - 1: each once an epoch, in an order drawn for that epoch."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed
        self.epoch, self.order = -1, np.empty(0, dtype=int)

    def __getitem__(self, i: int) -> int:
        epoch, place = divmod(i, self.count)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return int(self.order[place])


class TrainingSamples(torch.utils.data.Dataset):
    """The samples of a run: sample i is a pure function of (seed, i).

    So a resumed run sees what the uninterrupted one would have seen, whatever the number of workers and processes.
    Every pair comes once an epoch; in stage sife every photo as often as crops cover it. LR images are cut from those
    of the whole photos, as at use: a crop has neighbours.
    """

    def __init__(self, pairs: Dataset, config: TrainingConfig):
        self.config, self.degradation = config, config.degraded_by()
        self.photos = Photos(pairs, config.cache / max(config.workers, 1))
        self.places: list[Place] = [(i, 0) for i in range(len(pairs))]
        if config.stage == "sife":
            self.places = self.photos.by_area(config.crop, config.skip_bad)
        self.order = Order(len(self.places), config.seed)

    def __len__(self) -> int:
        return self.config.steps * self.config.batch

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if not self.config.skip_bad:
            return self.sample(i, self.order[i])
        return first_readable(lambda attempt: self.sample(i, (self.order[i] + attempt) % len(self.places)))

    def sample(self, i: int, number: int) -> dict[str, Tensor]:
        """Sample i of the photo of this number."""
        config, place = self.config, self.places[number]
        rng = np.random.default_rng([config.seed, 1, i])
        symmetry = int(rng.integers(8)) if config.flip_rotate else 0
        height, width = self.photos.low(place).shape[:2]
        side = config.crop // degrade.SCALE
        top, left = (int(rng.integers(0, max(length - side, 0) + 1)) for length in (height, width))
        around = self.around(place, top, left, i)
        crop = self.crop(place, top, left, around)
        sample = {name: to_tensor(degrade.flip_rotate(image, symmetry)) for name, image in crop.items()}
        if config.stage == "sife":
            return sample
        centre = (top + side / 2) / height, (left + side / 2) / width
        sample["reference"] = self.reference(place[0], centre, around, symmetry, rng)
        if config.base_mix[0] < 1:
            sample["base_mix"] = drawn_mix(config.base_mix, rng)
        if config.stage == "all":
            sample["mix"] = torch.tensor(rng.random(), dtype=torch.float32)  # of I_HR and I_SR in eq. 29
        return sample

    def around(self, place: Place, top: int, left: int, i: int) -> Around:
        """Give the LR image that shows a crop: the whole photo's, or a degraded one of what lies around it.

        Args:
            place: of the photo.
            top: of the crop, in LR pixels.
            left: of the crop, in LR pixels.
            i: number of the sample.

        Returns:
            The image, and where the crop lies in it.
        """
        if self.degradation is None:
            return Around(self.photos.low(place), top, left)
        side = self.config.crop + 2 * degrade.SCALE * MARGIN
        corner = degrade.SCALE * (top - MARGIN), degrade.SCALE * (left - MARGIN)
        photo = mirrored(self.photos.sharp(place), *corner, side, side)
        rng = np.random.default_rng([self.config.seed, 2, i])
        return Around(degraded_lr(photo, self.degradation, rng), MARGIN, MARGIN)

    def crop(self, place: Place, top: int, left: int, around: Around) -> dict[str, np.ndarray]:
        """Cut a crop; mirrored where the photo is smaller.

        Args:
            place: of the photo.
            top: of the crop, in LR pixels.
            left: of the crop, in LR pixels.
            around: the LR image that shows it.

        Returns:
            lr, upsampled and hr.
        """
        size, scale = self.config.crop, degrade.SCALE
        low, y, x = around
        side = size // scale
        if min(low.shape[:2]) < side:
            lr = mirrored(low, y, x, side, side)
            upsampled = degrade.upscale_bicubic(lr)
        else:
            lr, box = low[y : y + side, x : x + side], (x, y, x + side, y + side)
            upsampled = np.asarray(Image.fromarray(low).resize((size, size), Image.Resampling.BICUBIC, box))
        hr = mirrored(self.photos.sharp(place), scale * top, scale * left, size, size)
        return {"lr": lr, "upsampled": upsampled, "hr": hr}

    def reference(
        self, pair: int, centre: tuple[float, float], around: Around, symmetry: int, rng: np.random.Generator
    ) -> Tensor:
        """Make the reference of a pair's crop: the part that lies where the crop does, with all that may happen to it.

        Args:
            pair: its number.
            centre: of the crop, as shares (y, x) of the photo's sides.
            around: the LR image that shows the crop.
            symmetry: the crop's, 0 to 7.
            rng: draws what happens.

        Returns:
            (3, side, side) in [0, 1].
        """
        config, kind = self.config, rng.random()
        own = config.unrelated_share <= kind < config.unrelated_share + config.own_share
        if own:
            photo, half = degrade.upscale_bicubic(around.image), config.crop / degrade.SCALE / 2
            centre = (around.top + half) / around.image.shape[0], (around.left + half) / around.image.shape[1]
        else:
            unrelated = kind < config.unrelated_share
            photo = self.photos.sharp((int(rng.integers(len(self.photos))) if unrelated else pair, 1))
        elsewhere = not own and rng.random() < config.reference_share
        zoom, degrees = 1.0, 0.0
        if elsewhere:
            zoom, degrees = log_uniform(*config.reference_zoom, rng), config.reference_turn * rng.uniform(-1, 1)
        place = tuple(share * length for share, length in zip(centre, photo.shape[:2], strict=True))
        reference = view(photo, config.reference_side, place, zoom, degrees)
        if config.shuffle != "none" and rng.random() < config.shuffle_share:
            reference = degrade.shuffle_patches(reference, SHUFFLES[config.shuffle], rng)
        reference = to_tensor(degrade.flip_rotate(reference, symmetry))
        return recolour(reference, config.reference_colour, rng) if elsewhere else reference


def first_readable(sample: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
    """sample(0), or sample(1), ... if that needs a photo that cannot be read; "bad" counts them, a scalar.

    Raises:
        UserError: too many in a row cannot be read.
    """
    for attempt in range(BAD_IN_A_ROW):
        try:
            return sample(attempt) | {"bad": torch.tensor(float(attempt))}
        except UnreadablePhotoError as error:
            skipped(error)
            last = error
    raise UserError(f"{BAD_IN_A_ROW} photos in a row could not be read; the last one: {last}")


def drawn_mix(shares: tuple[float, float, float], rng: np.random.Generator) -> Tensor:
    """Draw how much of the network's own base image, of the bicubic one and of the truth make this sample's.

    Args:
        shares: of the samples with the own, with the bicubic, and with the own moved towards the truth by up to a half.
        rng: draws.

    Returns:
        (3,), which add up to 1.
    """
    own, bicubic, _ = shares
    kind, amount = rng.random(), rng.uniform(0, 0.5)
    if kind < own:
        return torch.tensor([1.0, 0.0, 0.0])
    return torch.tensor([0.0, 1.0, 0.0] if kind < own + bicubic else [1 - amount, 0.0, amount])
