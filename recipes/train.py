"""Train FRFSR: `accelerate launch recipes/train.py --config recipes/tiny_rec.yaml data=PAIRS out=RUN_FOLDER`.

Each field of TrainingConfig (recipes/config.py) can be set in the yaml or as KEY=VALUE behind it, those of the model as
model.KEY=VALUE. The same command again resumes where the run stopped.
"""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, set_seed
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from frfsr.config import model_config
from frfsr.errors import UserError
from frfsr.model import FRFSR
from frfsr.recipes.average import Average
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.guard import Guard
from frfsr.recipes.meter import Meter
from frfsr.recipes.objectives import AllLosses, Reconstruction
from frfsr.recipes.optim import parameter_groups, rate_factor
from frfsr.recipes.run import Run
from frfsr.recipes.samples import TrainingSamples
from frfsr.recipes.setup import command_line, initialise, load_training_pairs, require_precision
from frfsr.recipes.validate import validate


def train(config: TrainingConfig) -> None:
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),  # `batch` counts over all processes
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # the critic runs thrice a step
    )
    require_precision(accelerator)
    set_seed(config.seed)
    run = Run(config, accelerator)
    pairs, held_back = load_training_pairs(config)

    model = FRFSR(model_config(config.model))
    run.sources = initialise(model, config)
    ema = Average(model.to(accelerator.device), config.ema)
    guard = Guard(accelerator, model, config.offset_limit)
    optimizer = torch.optim.Adam(parameter_groups(model, config), betas=config.betas)
    model, optimizer = accelerator.prepare(model, optimizer)
    objective = AllLosses(config, accelerator) if config.stage == "all" else Reconstruction()
    run.sources |= objective.sources
    accelerator.register_for_checkpointing(ema)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = run.resume()

    samples = TrainingSamples(pairs, config)
    loader = DataLoader(
        Subset(samples, range(step * config.batch, len(samples))),
        batch_size=config.batch // config.accumulate,
        num_workers=config.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    loader = accelerator.prepare(loader)
    progress = tqdm(initial=step, total=config.steps, unit="step", disable=not accelerator.is_main_process)
    meter = Meter(config.batch)

    for batch in meter.batches(loader):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(step, config)
        with accelerator.accumulate(model, *objective.networks):
            image = model(batch["lr"], batch.get("reference"), batch["upsampled"]).image
            meter.add(objective.judge(image, batch))
            loss, terms = objective(image, batch["hr"])
            meter.add(terms)
            accelerator.backward(guard.watch(loss))
            if not accelerator.sync_gradients:
                continue
            taken = guard.step(optimizer, accelerator.clip_grad_norm_(trained, config.clip_norm))

        step += 1
        meter.steps += 1
        if taken:
            ema.update_parameters(accelerator.unwrap_model(model))
        progress.update()
        if step % config.log_every == 0:
            values = meter.read()
            progress.set_postfix({name: f"{values[name]:.4g}" for name in ("l1", "samples_per_s")})
            skipped = guard.skipped + objective.skipped
            run.log(step, lr=optimizer.param_groups[0]["lr"], skipped=skipped, **values)
        with meter.paused():
            if (step % config.validate_every == 0 or step == config.steps) and accelerator.is_main_process:
                progress.write(run.validated(step, *validate(ema.module, held_back, config.stage)))
                run.export(ema.module)
            if step % config.checkpoint_every == 0 or step == config.steps:
                run.save(step)
    if accelerator.is_main_process:
        progress.write(meter.summary())
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
