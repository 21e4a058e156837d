"""Learning rates: the published parameter groups and the schedules."""

import math

from torch import nn

from frfsr.recipes.config import MatchingConfig, TrainingConfig


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict]:
    """Four groups as published: all but the offset convolutions, then those of the large, medium and small scale."""
    groups = [{"params": [], "lr": rate, "initial_lr": rate} for rate in (config.lr, *config.lr_offset)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = 0 if "offset" not in name else 3 if "small" in name else 2 if "medium" in name else 1
            groups[scale]["params"].append(parameter)
    return groups


def rate_factor(step: int, config: TrainingConfig | MatchingConfig) -> float:
    """What all rates are multiplied by at `step`: linear warm-up, then x0.1 at each milestone, or a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "steps":
        return 0.1 ** sum(step >= milestone for milestone in config.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(config.steps - config.warmup, 1)))
