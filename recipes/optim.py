"""Learning rates: the published parameter groups and the schedules."""

import math

from torch import nn

from frfsr.recipes.config import RunConfig, TrainingConfig


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict]:
    """Four groups as published: all but the offset convolutions, then those of the large, medium and small scale.

    Then one for each part of the model that has a rate of its own (`config.rates`).
    """
    rates = (config.lr, *config.lr_offset, *config.rates.values())
    groups = [{"params": [], "lr": rate, "initial_lr": rate} for rate in rates]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = 0 if "offset" not in name else 3 if "small" in name else 2 if "medium" in name else 1
            for number, part in enumerate(config.rates, 4):
                group = number if name.startswith(f"{part}.") else group
            groups[group]["params"].append(parameter)
    return groups


def rate_factor(step: int, config: RunConfig) -> float:
    """What all rates are multiplied by at `step`: linear warm-up, then the schedule.

    steps: x0.1 at each milestone; cosine: to 0 at the last step; constant+decay: 1, and in the last `decay` steps
    linearly to 0.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "steps":
        return 0.1 ** sum(step >= milestone for milestone in config.milestones)
    if config.schedule == "constant+decay":
        return min(1.0, max(config.steps - step, 0) / max(config.decay, 1))
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(config.steps - config.warmup, 1)))
