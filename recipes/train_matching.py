"""Train the texture encoder: `accelerate launch recipes/train_matching.py --config recipes/tiny_student.yaml`.

Teacher: two sharp views of a photo. Student: the LR image enlarged against the sharp view, also distilled from the
teacher (C2-Matching's scheme, which the paper's texture encoder follows). Every field of frfsr.config.MatchingConfig
can be set in the yaml or as KEY=VALUE. The same command again resumes. RUN/weights holds a whole model whose encoder
is the trained one.
"""

import sys
import time

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from frfsr.config import MatchingConfig, model_config
from frfsr.errors import UserError
from frfsr.features import TextureEncoder
from frfsr.losses import contrastive_loss, distillation_loss, known_matches, matching_cross_entropy
from frfsr.matching import correspond
from frfsr.model import FRFSR
from frfsr.recipes.optim import rate_factor
from frfsr.recipes.run import Run
from frfsr.recipes.setup import command_line, load_training_pairs
from frfsr.recipes.views import Views

VALIDATION_VIEWS = 48


def encode(encoder: torch.nn.Module, image1: Tensor, image2: Tensor) -> tuple[Tensor, Tensor]:
    """Both images of a batch in one pass, as the encoder is shared: two feature maps (B, C, h, w)."""
    return encoder(torch.cat([image1, image2])).chunk(2)


@torch.no_grad()
def validate(encoder: TextureEncoder, views: Views) -> dict[str, float]:
    """Matching error on the held-back views, at feature scale (1 = 4 pixels): mean distance, and share within 2."""
    distances = []
    for i in range(len(views)):
        view = {name: value[None] for name, value in views[i].items()}
        device = next(encoder.parameters()).device
        features = encode(encoder, view["image1"].to(device), view["image2"].to(device))
        flow = correspond(*features, padding="same").flow[0].cpu()
        matches = known_matches(view["coordinates"][0])
        found = matches.first + rearrange(flow, "h w xy -> (h w) xy")[matches.kept]
        truth = rearrange(view["coordinates"][0, ::4, ::4] / 4, "h w xy -> (h w) xy")[matches.kept]
        distances.append((found - truth).norm(dim=1))
    distance = torch.cat(distances)
    return {"match_error": distance.mean().item(), "match_within_2": (distance <= 2).float().mean().item()}


def train(config: MatchingConfig) -> None:
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    set_seed(config.seed)
    run = Run(config, accelerator)
    photos, held_back = load_training_pairs(config)
    model = FRFSR.from_pretrained(config.init) if config.init else FRFSR(model_config(config.model))
    teacher = None
    if config.stage == "student" and config.teacher:
        teacher = FRFSR.from_pretrained(config.teacher).encoder.requires_grad_(False).to(accelerator.device)
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=config.lr)
    encoder, optimizer = accelerator.prepare(model.encoder, optimizer)
    step = run.resume()
    views = Views(photos, config, config.steps * config.batch, config.seed)
    validation_views = Views(held_back, config, VALIDATION_VIEWS, seed=config.seed + 1)
    loader = accelerator.prepare(
        DataLoader(
            Subset(views, range(step * config.batch, len(views))), batch_size=config.batch, num_workers=config.workers
        )
    )
    if step == 0 and accelerator.is_main_process:
        run.log(0, **validate(model.encoder, validation_views))
    progress = tqdm(initial=step, total=config.steps, unit="step", disable=not accelerator.is_main_process)
    losses, mark = [], time.perf_counter()

    for batch in loader:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate_factor(step, config)
        features = encode(encoder, batch["image1"], batch["image2"])
        if config.objective == "triplet":
            loss = contrastive_loss(*features, batch["coordinates"], config.margin, config.safe_radius)
        else:
            loss = matching_cross_entropy(*features, batch["coordinates"], config.temperature)
        if teacher is not None:
            with torch.no_grad():
                taught = encode(teacher, batch["sharp1"], batch["image2"])
            loss = loss + config.distill_weight * distillation_loss(
                *features, *taught, batch["coordinates"], config.temperature
            )
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())

        step += 1
        progress.update()
        if step % config.log_every == 0:
            mean, speed = (
                torch.stack(losses).mean().item(),
                config.log_every * config.batch / (time.perf_counter() - mark),
            )
            progress.set_postfix(loss=f"{mean:.4f}", samples_per_s=f"{speed:.1f}")
            run.log(step, loss=mean, lr=optimizer.param_groups[0]["lr"], samples_per_s=speed)
            losses, mark = [], time.perf_counter()
        if (step % config.validate_every == 0 or step == config.steps) and accelerator.is_main_process:
            scores = validate(accelerator.unwrap_model(encoder), validation_views)
            progress.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
            run.log(step, **scores)
            run.export(model)
        if step % config.checkpoint_every == 0 or step == config.steps:
            run.save(step)
    accelerator.end_training()


def main(arguments: list[str] | None = None) -> int:
    try:
        train(command_line(MatchingConfig, __doc__, arguments))
    except UserError as error:
        print(f"train_matching: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
