"""From a yaml and a command line to a configuration, data and initial weights."""

import argparse
import hashlib
import json
from pathlib import Path

import yaml
from accelerate import Accelerator
from datasets import Dataset, Image, concatenate_datasets

from frfsr.data import load_pairs
from frfsr.errors import UserError
from frfsr.model import FRFSR
from frfsr.recipes.config import RunConfig, TrainingConfig
from frfsr.recipes.pretrained import load_part, submodule
from frfsr.reuse import FeatureReuse
from frfsr.settings import from_mapping


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
        try:
            target[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{setting!r}: the value is no YAML; quote the whole setting if it has blanks.") from error
    return from_mapping(config_class, values)


def require_precision(accelerator: Accelerator) -> None:
    """Raise UserError for fp16 on a CPU: accelerate has no loss scaling there and quietly trains in 32 bits."""
    if accelerator.mixed_precision == "fp16" and accelerator.scaler is None:
        raise UserError("mixed_precision=fp16 needs a GPU: on a CPU give bf16 or no.")


def load_training_pairs(config: RunConfig) -> tuple[Dataset, Dataset]:
    """(pairs to train on, pairs held back for validation); stages that need no references also train on `photos`."""
    pairs = load_pairs(config.data).select_columns(["name", "input", "references"])
    if config.stage in ("rec", "all") and not pairs[0]["references"]:
        raise UserError(f"{config.data} has no reference images: stage {config.stage} needs pairs.")
    if len(pairs) <= config.held_back:
        raise UserError(
            f"{config.data} has {len(pairs)} pairs, of which held_back={config.held_back} leave none to train on."
        )
    first_held_back = len(pairs) - config.held_back
    training, held_back = pairs.select(range(first_held_back)), pairs.select(range(first_held_back, len(pairs)))
    places = [config.photos] if isinstance(config.photos, str) else config.photos or []
    if places and config.stage in ("rec", "all"):
        raise UserError(
            f"stage {config.stage} needs references, photos have none: give photos to stage sife or student."
        )
    photos = [load_pairs(place).select_columns(["name", "input", "references"]) for place in places]
    return concatenate_datasets([training, *photos]), held_back


def fingerprint(pairs: Dataset) -> str:
    """SHA-256 of the pairs' names and of at most 256 of their images: the same wherever they lie."""
    stored = pairs.cast_column("input", Image(decode=False)).select_columns(["name", "input"])
    digest = hashlib.sha256(json.dumps(stored["name"][:]).encode())
    for i in range(0, len(stored), -(-len(stored) // 256)):
        image = stored[i]["input"]
        digest.update(Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"])
    return digest.hexdigest()


def initialise(model: FRFSR, config: TrainingConfig) -> dict[str, str]:
    """Copy the parts named in `config.init`, and freeze what the stage does not train and `config.frozen`.

    Stage sife trains SIFE alone; rec all but the encoder, as an argmax has no gradient; all the last network alone, so
    that the first one gives it the F_rec that it was trained for. Returns the SHA-256 of the weights by part.
    """
    if isinstance(model.aggregation, FeatureReuse):
        model.aggregation.fresh = config.fresh
    sources = {part: load_part(model, part, weights) for part, weights in config.init.items()}
    if config.stage == "sife" and model.config.base != "sife":
        raise UserError("stage sife needs model.base=sife: without it SIFE makes no image to train on.")
    if config.stage == "all" and not config.init:
        raise UserError("stage all continues the rec stage: give init={all: WEIGHTS}, for example its RUN/weights.")
    model.requires_grad_(config.stage == "rec")
    if config.stage != "rec":
        (model.sife if config.stage == "sife" else model.aggregation).requires_grad_(True)
    encoders = [encoder for encoder in (model.encoder, model.reference_encoder) if encoder is not None]
    for part in [*encoders, *(submodule(model, name) for name in config.frozen)]:
        part.requires_grad_(False)
    for part in model.children():
        part.train(any(parameter.requires_grad for parameter in part.parameters()))
    return sources
