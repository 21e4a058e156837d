"""Train FRFSR: `accelerate launch recipes/train.py --config recipes/tiny_rec.yaml data=PAIRS out=RUN_FOLDER`.

Every field of frfsr.config.TrainingConfig can be set in the yaml or as KEY=VALUE behind it, those of the model as
model.KEY=VALUE. The same command again resumes where the run stopped.
"""

import sys
import time

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from frfsr.config import TrainingConfig, model_config
from frfsr.errors import UserError
from frfsr.model import FRFSR
from frfsr.recipes.optim import parameter_groups, rate_factor
from frfsr.recipes.run import Run
from frfsr.recipes.samples import TrainingSamples
from frfsr.recipes.setup import command_line, initialise, load_training_pairs
from frfsr.recipes.validate import validate

SKIPPED_LIMIT = 100


def train(config: TrainingConfig) -> None:
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),  # `batch` counts over all processes
    )
    set_seed(config.seed)
    run = Run(config, accelerator)
    pairs, held_back = load_training_pairs(config)

    model = FRFSR(model_config(config.model))
    initialise(model, config)
    ema = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)).requires_grad_(False).to(accelerator.device)
    )
    optimizer = torch.optim.Adam(parameter_groups(model, config), betas=config.betas)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(ema)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step, skipped = run.resume(), 0

    samples = TrainingSamples(pairs, config)
    loader = DataLoader(
        Subset(samples, range(step * config.batch, len(samples))),
        batch_size=config.batch // config.accumulate,
        num_workers=config.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    loader = accelerator.prepare(loader)
    progress = tqdm(initial=step, total=config.steps, unit="step", disable=not accelerator.is_main_process)
    losses, waited, mark = [], 0.0, time.perf_counter()
    ready = mark

    for batch in loader:
        waited += time.perf_counter() - ready
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(step, config)
        with accelerator.accumulate(model):
            image = model(batch["lr"], batch.get("reference"), batch["upsampled"]).image
            loss = F.l1_loss(image, batch["hr"])  # eq. 26
            accelerator.backward(loss)
            finite = True
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(trained, config.clip_norm)
                finite = bool(torch.isfinite(norm)) or accelerator.scaler is not None  # fp16's scaler skips by itself
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
        ready = time.perf_counter()
        if not accelerator.sync_gradients:
            continue

        step += 1
        if finite:
            ema.update_parameters(accelerator.unwrap_model(model))
        else:
            skipped += 1
            if skipped > SKIPPED_LIMIT:
                raise UserError(f"{skipped} steps had NaN or infinite gradients: lower lr or lr_offset, or clip_norm.")
        progress.update()
        if step % config.log_every == 0:
            mean = torch.stack(losses).mean().item()
            speed = config.log_every * config.batch / (time.perf_counter() - mark)
            share = waited / (time.perf_counter() - mark)
            progress.set_postfix(l1=f"{mean:.4f}", samples_per_s=f"{speed:.1f}")
            run.log(
                step, l1=mean, lr=optimizer.param_groups[0]["lr"], samples_per_s=speed, data_wait=share, skipped=skipped
            )
            losses, waited, mark = [], 0.0, time.perf_counter()
        if (step % config.validate_every == 0 or step == config.steps) and accelerator.is_main_process:
            scores, picture = validate(ema.module, held_back, config.stage)
            progress.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
            run.log(step, **scores)
            run.picture(step, picture)
            run.export(ema.module)
            mark = time.perf_counter()
        if step % config.checkpoint_every == 0 or step == config.steps:
            run.save(step)
        ready = time.perf_counter()
    accelerator.end_training()


def main(arguments: list[str] | None = None) -> int:
    try:
        train(command_line(TrainingConfig, __doc__, arguments))
    except UserError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
