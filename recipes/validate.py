"""Validation on held-back pairs: PSNR-Y with the true reference, another pair's, and none but the image itself."""

from collections import defaultdict

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from frfsr import degrade
from frfsr.data import load_pairs
from frfsr.evals.metrics import psnr_y
from frfsr.model import FRFSR
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.run import PICTURED
from frfsr.recipes.samples import degraded, to_tensor


class Validation:
    """Measures a model on the pairs that training never sees and, without a reference, on the photos `validate_on`."""

    def __init__(self, model: FRFSR, pairs: Dataset, config: TrainingConfig):
        self.model, self.pairs, self.stage = model, pairs, config.stage
        self.photos = load_pairs(config.validate_on) if config.validate_on else []

    @torch.no_grad()
    def __call__(self) -> tuple[dict[str, float], list[list[Tensor]]]:
        """Mean PSNR-Y in dB (border 4, 8 bits), and rows of pictures: bicubic, result, reference, truth.

        psnr: with the pair's reference (sife stage: none); psnr_unrelated: with the next one's; psnr_own: with the
        enlarged LR image as reference; psnr_bicubic: of the input; psnr_photos: of `validate_on`, without a reference.
        """
        model, pairs = self.model, self.pairs
        device = next(model.parameters()).device
        model.eval()
        scores, rows = defaultdict(list), []

        for i, pair in enumerate(pairs):
            hr = degrade.crop_to_multiple(np.asarray(pair["input"]))
            sample = {name: value[None].to(device) for name, value in degraded(hr).items()}
            scores["psnr_bicubic"].append(psnr_y(sample["upsampled"], hr))
            if self.stage == "sife":
                image, reference = model(sample["lr"], None, sample["upsampled"]).image[0], sample["upsampled"][0]
            else:
                reference = to_tensor(np.asarray(pair["references"][0])).to(device)
                unrelated = to_tensor(np.asarray(pairs[(i + 1) % len(pairs)]["references"][0])).to(device)
                image = model(sample["lr"], reference[None], sample["upsampled"]).image[0]
                distrusted = model(sample["lr"], unrelated[None], sample["upsampled"]).image
                scores["psnr_unrelated"].append(psnr_y(distrusted, hr))
                own = model(sample["lr"], sample["upsampled"], sample["upsampled"]).image
                scores["psnr_own"].append(psnr_y(own, hr))
            scores["psnr"].append(psnr_y(image, hr))
            if i < PICTURED:
                rows.append([sample["upsampled"][0], image, reference, sample["hr"][0]])
        for photo in self.photos:
            hr = degrade.crop_to_multiple(np.asarray(photo["input"]))
            sample = {name: value[None].to(device) for name, value in degraded(hr).items()}
            scores["psnr_photos"].append(psnr_y(model(sample["lr"], None, sample["upsampled"]).image, hr))
        return {name: float(np.mean(values)) for name, values in scores.items()}, rows
