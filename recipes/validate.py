"""Validation on held-back pairs: PSNR-Y with the true reference, another pair's, and none but the image itself."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from frfsr.data.pairs import load_pairs
from frfsr.errors import UserError
from frfsr.evals.metrics import psnr_y
from frfsr.network import Network
from frfsr.pixels import to_tensor
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.photos import Photos, UnreadablePhotoError, skipped
from frfsr.recipes.run import PICTURED
from frfsr.recipes.samples import degraded


class Validation:
    """Measures a model on the pairs that training never sees and, without a reference, on the photos `validate_on`."""

    def __init__(self, model: Network, pairs: Dataset, config: TrainingConfig):
        self.model, self.config, self.degradation = model, config, config.degraded_by()
        self.pairs = Photos(pairs, config.cache / 4)
        self.photos = Photos(
            load_pairs(config.validate_on) if config.validate_on else pairs.select([]), config.cache / 4
        )

    @torch.no_grad()
    def __call__(self) -> tuple[dict[str, float], list[list[Tensor]]]:
        """Mean PSNR-Y in dB (border 4, 8 bits), and rows of pictures: bicubic, result, reference, truth.

        psnr: with the pair's reference (sife stage: none); psnr_unrelated: with the next one's; psnr_own: with the
        enlarged LR image as reference; psnr_bicubic: of the input; psnr_photos: of `validate_on`, without a reference.
        """
        self.model.eval()
        scores, rows = defaultdict(list), []
        for i in range(len(self.pairs)):
            with self.skipping():
                row = self.measure_pair(i, scores)
                rows += [row] if len(rows) < PICTURED else []
        for i in range(len(self.photos)):
            with self.skipping():
                hr = self.photos.sharp((i, 0))
                sample = self.degraded(hr, i)
                image = self.model(sample["lr"], None, sample["upsampled"]).image
                scores["psnr_photos"].append(psnr_y(image, hr))
        if not rows:
            raise UserError("none of the held-back photos can be read.")
        return {name: float(np.mean(values)) for name, values in scores.items()}, rows

    def measure_pair(self, i: int, scores: dict[str, list[float]]) -> list[Tensor]:
        """Add a pair's scores, and give its row of pictures."""
        model, hr = self.model, self.pairs.sharp((i, 0))
        sample = self.degraded(hr, i)
        lr, upsampled = sample["lr"], sample["upsampled"]
        if self.config.stage == "sife":
            image, reference = model(lr, None, upsampled).image, upsampled
        else:
            reference, unrelated = (self.reference(k) for k in (i, (i + 1) % len(self.pairs)))
            image = model(lr, reference, upsampled).image
            scores["psnr_unrelated"].append(psnr_y(model(lr, unrelated, upsampled).image, hr))
            scores["psnr_own"].append(psnr_y(model(lr, upsampled, upsampled).image, hr))
        scores["psnr"].append(psnr_y(image, hr))
        scores["psnr_bicubic"].append(psnr_y(upsampled, hr))
        return [upsampled[0], image[0], reference[0], sample["hr"][0]]

    def degraded(self, hr: np.ndarray, i: int) -> dict[str, Tensor]:
        """The tensors of `samples.degraded` of photo i as a batch of one, on the model's device: always the same."""
        device = next(self.model.parameters()).device
        return {name: value[None].to(device) for name, value in degraded(hr, self.degradation, i).items()}

    def reference(self, i: int) -> Tensor:
        """A pair's first reference, (1, 3, H, W)."""
        return to_tensor(self.pairs.sharp((i, 1)))[None].to(next(self.model.parameters()).device)

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Leave out what needs a photo that cannot be read, if the run may."""
        try:
            yield
        except UnreadablePhotoError as error:
            if not self.config.skip_bad:
                raise
            skipped(error)
