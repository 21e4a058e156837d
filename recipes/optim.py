"""Learning rates: the published parameter groups and the schedules."""

import math

from frfsr.network import Network, Rates
from frfsr.recipes.config import RunConfig, TrainingConfig


def parameter_groups(model: Network, config: TrainingConfig) -> list[dict]:
    """The network's own groups, at the rates of the configuration."""
    return model.parameter_groups(Rates(config.lr, config.lr_offset, config.rates))


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
