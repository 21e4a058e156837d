"""From a yaml and a command line to a configuration, data and initial weights."""

import argparse
from pathlib import Path

import yaml
from datasets import Dataset, concatenate_datasets
from torch import nn

from frfsr.config import MatchingConfig, TrainingConfig, from_mapping
from frfsr.data import load_pairs
from frfsr.errors import UserError
from frfsr.model import FRFSR


def command_line(config_class: type, description: str, arguments: list[str] | None = None):
    """Parse `--config FILE KEY=VALUE ...` into a configuration; `arguments` default to the process's."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="yaml file, for example recipes/tiny_rec.yaml")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="changes to it, for example data=pairs.parquet"
    )
    options = parser.parse_args(arguments)
    return load_config(config_class, options.config, options.settings)


def load_config(config_class: type, path: str, settings: list[str]):
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
    return from_mapping(config_class, values)


def load_training_pairs(config: TrainingConfig | MatchingConfig) -> tuple[Dataset, Dataset]:
    """(pairs to train on, pairs held back for validation); stages that need no references also train on `photos`."""
    pairs = load_pairs(config.data).select_columns(["name", "input", "references"])
    if config.stage == "rec" and not pairs[0]["references"]:
        raise UserError(f"{config.data} has no reference images: stage rec needs pairs.")
    if len(pairs) <= config.held_back:
        raise UserError(
            f"{config.data} has {len(pairs)} pairs, of which held_back={config.held_back} leave none to train on."
        )
    first_held_back = len(pairs) - config.held_back
    training, held_back = pairs.select(range(first_held_back)), pairs.select(range(first_held_back, len(pairs)))
    if config.photos:
        photos = load_pairs(config.photos).select_columns(["name", "input", "references"])
        training = concatenate_datasets([training, photos])
    return training, held_back


def initialise(model: FRFSR, config: TrainingConfig) -> None:
    """Copy the parts named in `config.init` from other weights, and freeze `config.frozen`.

    In the sife stage only SIFE is trained, in the others never the encoder: an argmax has no gradient.
    """
    for part, weights in config.init.items():
        source = FRFSR.from_pretrained(weights)
        target = model
        if part != "all":
            source, target = (submodule(whole, part) for whole in (source, model))
        try:
            target.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise UserError(f"init: {part} of {weights} has other sizes than this model's {part}.") from error
    model.requires_grad_(config.stage != "sife")
    if config.stage == "sife":
        if model.config.base != "sife":
            raise UserError("stage sife needs model.base=sife: without it SIFE makes no image to train on.")
        model.sife.requires_grad_(True)
    for part in config.frozen:
        submodule(model, part).requires_grad_(False)
    for encoder in (model.encoder, model.reference_encoder):
        if encoder is not None:
            encoder.requires_grad_(False)


def submodule(model: FRFSR, part: str) -> nn.Module:
    """A named part of the model; UserError names those that it has."""
    parts = dict(model.named_children())
    if part not in parts:
        raise UserError(f"the model has no part {part!r}; it has {', '.join(parts)}.")
    return parts[part]
