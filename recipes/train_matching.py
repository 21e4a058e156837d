"""Train the texture encoder: `frfsr train tiny_student data=PHOTOS out=RUN`.

Teacher: two sharp views of a photo. Student: the LR image enlarged against the sharp view, also distilled from the
teacher (C2-Matching's scheme, which the paper's texture encoder follows). Each field of MatchingConfig
(recipes/config.py) can be set in the yaml or as KEY=VALUE. The same command again resumes. RUN/weights holds a whole
model whose encoder is the trained one.
"""

import sys
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from einops import repeat
from torch import Tensor, nn

from frfsr.errors import UserError
from frfsr.features import TextureEncoder
from frfsr.kernels import flow_warp
from frfsr.matching import correspond, enlarge_flow
from frfsr.network import Network
from frfsr.recipes.carry import Carried
from frfsr.recipes.config import MatchingConfig
from frfsr.recipes.ending import run_recipe
from frfsr.recipes.guard import Guard
from frfsr.recipes.loop import Loop
from frfsr.recipes.losses import contrastive_loss, distillation_loss, known_matches, matching_cross_entropy
from frfsr.recipes.pretrained import load_part
from frfsr.recipes.run import PICTURED, Run, tracker_options
from frfsr.recipes.setup import build_network, fingerprint, load_training_pairs, ready_to_start
from frfsr.recipes.views import Views

VALIDATION_VIEWS = 48
WHITE = 8  # matching error in the pictures, in feature positions


def matching_network(config: MatchingConfig) -> Network:
    """Build the configuration's network.

    Args:
        config: of the run.

    Returns:
        The network, with a texture encoder of its own.

    Raises:
        UserError: it has no texture encoder to train.
    """
    network = build_network(config.model)
    if not isinstance(getattr(network, "encoder", None), TextureEncoder):
        raise UserError(f"{network.architecture} has no texture encoder that is trained apart: train it in stage rec.")
    return network


class Encoders(nn.Module):
    """The texture encoder of a model, or both if it has one for each image: two images -> two feature maps."""

    def __init__(self, model: Network):
        super().__init__()
        parts = dict(model.named_children())
        self.encoder, self.reference_encoder = parts["encoder"], parts.get("reference_encoder")

    def forward(self, image1: Tensor, image2: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarged LR or sharp image 1 and sharp image 2, (B, 3, 4h, 4w) -> features (B, C, h, w) of both."""
        if self.reference_encoder is None:
            return self.encoder(torch.cat([image1, image2])).chunk(2)
        return self.encoder(image1), self.reference_encoder(image2)


@torch.no_grad()
def validate(encoders: Encoders, views: Views) -> tuple[dict[str, float], list[list[Tensor]]]:
    """Matching error on the held-back views, at feature scale (1 = 4 pixels): mean distance, and share within 2.

    The rows of pictures show image 1, image 2, image 2 warped to where image 1 was matched, which would be image 1 in
    full sharpness if every match were true, and the matching error of every position (white: 8 or more).
    """
    distances, rows = [], []
    device = next(encoders.parameters()).device
    for i in range(len(views)):
        view = {name: value[None] for name, value in views[i].items()}
        features = encoders(view["image1"].to(device), view["image2"].to(device))
        flow = correspond(*features, match_padding="same").flow.cpu()
        truth = view["coordinates"][:, ::4, ::4] / 4
        y, x = torch.meshgrid(*(torch.arange(side) for side in flow.shape[1:3]), indexing="ij")
        distance = (flow + torch.stack([x, y], -1) - truth).norm(dim=-1)
        distances.append(distance.flatten()[known_matches(view["coordinates"][0]).kept])
        if i < PICTURED:
            warped = flow_warp(view["image2"], enlarge_flow(flow, 4))
            error = repeat((distance / WHITE).clamp(max=1), "1 h w -> c (h i) (w j)", c=3, i=4, j=4)
            rows.append([view["image1"][0], view["image2"][0], warped[0], error])
    distance = torch.cat(distances)
    return {"match_error": distance.mean().item(), "match_within_2": (distance <= 2).float().mean().item()}, rows


class MatchingLoss:
    """What the stage minimises: matching by known correspondence and, with a teacher, distillation from it."""

    def __init__(self, config: MatchingConfig, device: torch.device):
        self.config, self.teacher = config, None
        self.sources: dict[str, str] = {}
        if config.stage == "student" and config.teacher:
            teacher = matching_network(config)
            self.sources["teacher"] = load_part(teacher, "encoder", config.teacher)
            if teacher.reference_encoder is not None:
                load_part(teacher, "reference_encoder", config.teacher)
            self.teacher = Encoders(teacher).requires_grad_(False).eval().to(device)

    def __call__(self, features: tuple[Tensor, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features of both images, and a batch of `Views` -> the loss, and its terms for the log."""
        config, coordinates = self.config, batch["coordinates"]
        if config.objective == "triplet":
            loss = contrastive_loss(*features, coordinates, config.margin, config.safe_radius)
        else:
            loss = matching_cross_entropy(*features, coordinates, config.temperature)
        terms = {"matching": loss}
        if self.teacher is not None:
            taught1, taught2 = self.teacher(batch["sharp1"], batch["image2"])
            terms["distillation"] = distillation_loss(*features, taught1, taught2, coordinates, config.temperature)
            loss = loss + config.distill_weight * terms["distillation"]
        return loss, terms | {"loss": loss}


def train(config: MatchingConfig) -> int:
    """Train the texture encoder of a configuration's network.

    Args:
        config: of the run.

    Returns:
        The exit code: 0, or 128 + the number of the signal that stopped it.
    """
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        **tracker_options(config),
    )
    ready_to_start(accelerator)
    set_seed(config.seed)
    photos, held_back = load_training_pairs(config)
    run = Run(config, accelerator, fingerprint(photos))
    model = matching_network(config)
    run.sources = {part: load_part(model, part, weights) for part, weights in config.init.items()}
    objective = MatchingLoss(config, accelerator.device)
    run.sources |= objective.sources
    network = encoders = Encoders(model)
    guard = Guard(accelerator)
    rates = {"lr": config.lr, "initial_lr": config.lr}
    optimizer = torch.optim.Adam([{"params": encoders.parameters(), **rates}])
    encoders, optimizer = accelerator.prepare(encoders, optimizer)
    run.carried = Carried([network], [optimizer])

    views = Views(photos, config, config.steps * config.batch, config.seed)
    validation_views = Views(held_back, config, VALIDATION_VIEWS, seed=config.seed + 1)
    loop = Loop(run, optimizer, [guard], lambda: validate(network, validation_views), model)
    for batch in loop.over(views):
        with accelerator.accumulate(encoders):
            loss, terms = objective(encoders(batch["image1"], batch["image2"]), batch)
            loop.meter.add(terms)
            accelerator.backward(guard.watch(loss))
            if accelerator.sync_gradients:
                guard.step(optimizer, guard.clip(encoders.parameters()))
    return loop.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: `--config FILE KEY=VALUE ...`; by default those of the process.

    Returns:
        The exit code.
    """
    return run_recipe(train, MatchingConfig, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
