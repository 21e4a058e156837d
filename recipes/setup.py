"""From a yaml and a command line to a configuration, data and initial weights."""

from pathlib import Path

import yaml
from datasets import Dataset, concatenate_datasets
from torch import nn

from frfsr.config import TrainingConfig, from_mapping
from frfsr.data import load_pairs
from frfsr.errors import UserError
from frfsr.model import FRFSR


def load_config(path: str, settings: list[str]) -> TrainingConfig:
    """Read a yaml file and apply KEY=VALUE changes; values are read as yaml, model.KEY reaches into the model."""
    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the configuration {path}: {' '.join(str(error).split())}") from error
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"{setting!r} is not of the form KEY=VALUE.")
        target = values
        if key.startswith("model."):
            target, key = values.setdefault("model", {}), key.removeprefix("model.")
        target[key] = yaml.safe_load(value)
    return from_mapping(TrainingConfig, values)


def load_training_pairs(config: TrainingConfig) -> tuple[Dataset, Dataset]:
    """(pairs to train on, pairs held back for validation); the sife stage also trains on `photos`."""
    pairs = load_pairs(config.data).select_columns(["name", "input", "references"])
    if config.stage != "sife" and not all(len(references) for references in pairs[:1]["references"]):
        raise UserError(f"{config.data} has no reference images: stage rec needs pairs.")
    if len(pairs) <= config.held_back:
        raise UserError(
            f"{config.data} has {len(pairs)} pairs, of which held_back={config.held_back} leave none to train on."
        )
    first_held_back = len(pairs) - config.held_back
    training, held_back = pairs.select(range(first_held_back)), pairs.select(range(first_held_back, len(pairs)))
    if config.stage == "sife" and config.photos:
        photos = load_pairs(config.photos).select_columns(["name", "input", "references"])
        training = concatenate_datasets([training, photos])
    return training, held_back


def initialise(model: FRFSR, config: TrainingConfig) -> None:
    """Copy the weights of `config.init` into the model's parts of the same name, and freeze `config.frozen`.

    In the sife stage only SIFE is trained, in the others never the encoder: an argmax has no gradient.
    """
    if config.init:
        source = FRFSR.from_pretrained(config.init)
        missing, _ = model.load_state_dict(source.state_dict(), strict=False)
        parts = {name.split(".")[0] for name in missing}
        if parts - {"reuse_aggregation"}:
            raise UserError(f"the weights at {config.init} lack {', '.join(sorted(parts))}: they are of another model.")
    model.requires_grad_(config.stage != "sife")
    if config.stage == "sife":
        if model.config.base != "sife":
            raise UserError("stage sife needs model.base=sife: without it SIFE makes no image to train on.")
        model.sife.requires_grad_(True)
    frozen = [*config.frozen, "encoder", "reference_encoder"]
    for prefix in frozen:
        part = getattr(model, prefix, None)
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
        elif prefix in config.frozen:
            raise UserError(
                f"frozen: the model has no part {prefix!r}; it has {', '.join(dict(model.named_children()))}."
            )
