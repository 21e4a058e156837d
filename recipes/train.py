"""Train a network: `accelerate launch --quiet recipes/train.py --config tiny_rec data=PAIRS out=RUN`, or `frfsr train`.

Each field of TrainingConfig (recipes/config.py) can be set in the yaml or as KEY=VALUE behind it, those of the model as
model.KEY=VALUE. The same command again resumes where the run stopped.
"""

import sys
from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, set_seed

from frfsr.network import Network
from frfsr.recipes.average import Average
from frfsr.recipes.carry import Carried
from frfsr.recipes.config import TrainingConfig
from frfsr.recipes.ending import run_recipe
from frfsr.recipes.guard import Guard
from frfsr.recipes.loop import Loop
from frfsr.recipes.objectives import AllLosses, Reconstruction, base_image
from frfsr.recipes.optim import parameter_groups
from frfsr.recipes.run import Run, tracker_options
from frfsr.recipes.samples import TrainingSamples
from frfsr.recipes.setup import (
    build_network,
    checkpoint_stages,
    fingerprint,
    initialise,
    load_training_pairs,
    ready_to_start,
)
from frfsr.recipes.validate import Validation


def train(config: TrainingConfig) -> int:
    """Train the network of a configuration.

    Args:
        config: of the run.

    Returns:
        The exit code: 0, or 128 + the number of the signal that stopped it.
    """
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),  # `batch` counts over all processes
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # the critic runs thrice a step
        **tracker_options(config),
    )
    ready_to_start(accelerator)
    set_seed(config.seed)
    pairs, held_back = load_training_pairs(config)
    run = Run(config, accelerator, fingerprint(pairs))

    model = build_network(config.model)
    run.sources = initialise(model, config)
    ema = Average(model.to(accelerator.device), config.ema)
    if config.checkpointing:
        checkpoint_stages(model)
    if config.compile:
        model.compile()
    guard = Guard(accelerator, model.watched(), config.offset_limit)
    optimizer = torch.optim.Adam(parameter_groups(model, config), betas=config.betas)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    network, (model, optimizer) = model, accelerator.prepare(model, optimizer)
    objective = AllLosses(config, accelerator) if config.stage == "all" else Reconstruction(config.reconstruction)
    run.sources |= objective.sources
    run.carried = Carried([network, ema, *objective.networks], [optimizer, *objective.optimizers])
    accelerator.register_for_checkpointing(ema)
    averaged = cast(Network, ema.module)
    loop = Loop(run, optimizer, [guard, *objective.guards], Validation(averaged, held_back, config), averaged)

    for batch in loop.over(TrainingSamples(pairs, config)):
        with accelerator.accumulate(model, *objective.networks):
            base = base_image(network, batch)
            image = model(batch["lr"], batch.get("reference"), batch["upsampled"], **base).image
            loop.meter.add(objective.judge(image, batch))
            loss, terms = objective(image, batch["hr"])
            loop.meter.add(terms)
            accelerator.backward(guard.watch(loss))
            if accelerator.sync_gradients and guard.step(optimizer, guard.clip(trained, config.clip_norm)):
                ema.update_parameters(network)
    return loop.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: `--config FILE KEY=VALUE ...`; by default those of the process.

    Returns:
        The exit code.
    """
    return run_recipe(train, TrainingConfig, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
