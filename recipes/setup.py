"""From a configuration to data, a network and its initial weights."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets
from torch import nn
from torch.utils.checkpoint import checkpoint

from frfsr.architectures import find_architecture
from frfsr.data.pairs import load_pairs, stored
from frfsr.errors import UserError
from frfsr.features import TextureEncoder
from frfsr.network import Network
from frfsr.recipes.config import MatchingConfig, TrainingConfig
from frfsr.recipes.pretrained import load_part, submodule
from frfsr.reuse import FeatureReuse
from frfsr.settings import from_mapping


def ready_to_start(accelerator: Accelerator) -> None:
    """Wait until all processes are connected: one that finds a mistake and ends must not be missed by a slower one.

    Raises:
        UserError: fp16 on a CPU: accelerate has no loss scaling there and quietly trains in 32 bits.
    """
    accelerator.wait_for_everyone()
    if accelerator.mixed_precision == "fp16" and accelerator.scaler is None:
        raise UserError("mixed_precision=fp16 needs a GPU: on a CPU give bf16 or no.")


def load_training_pairs(config: TrainingConfig | MatchingConfig) -> tuple[Dataset, Dataset]:
    """(pairs to train on, pairs held back for validation); stages that need no references also train on `photos`.

    Raises:
        UserError: there are no pairs, or too few, or the stage needs references that are not there.
    """
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
    files = stored(pairs.select_columns(["name", "input", "references"]))
    digest = hashlib.sha256(json.dumps(files["name"][:]).encode())
    for i in range(0, len(files), -(-len(files) // 256)):
        image = files[i]["input"]
        digest.update(Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"])
    return digest.hexdigest()


def build_network(values: Mapping[str, Any]) -> Network:
    """Build the network that a configuration describes, with random weights.

    Args:
        values: {"architecture": "frfsr", "preset": "tiny", changes to it...}. Without an architecture it is frfsr; a
            preset is a named constructor of the architecture's configuration, without one its defaults hold.

    Returns:
        The network.

    Raises:
        UserError: there is no such architecture, preset or setting.
    """
    changes = dict(values)
    name, preset = changes.pop("architecture", "frfsr"), changes.pop("preset", None)
    module = find_architecture(name).module
    if not issubclass(module, Network):
        raise UserError(f"{name} is only a part of a network: there is nothing to train by a recipe.")
    constructors = inspect.getmembers(module.config_class, inspect.ismethod)  # class methods, inherited ones too
    presets = {key: method for key, method in constructors if not key.startswith("_")}
    if preset is not None and preset not in list(presets):
        raise UserError(f"unknown preset {preset!r} of {name}: use {', '.join(presets) or 'none'}.")
    return module.of(presets[preset](**changes) if preset else from_mapping(module.config_class, changes))


def initialise(model: Network, config: TrainingConfig) -> dict[str, str]:
    """Copy the parts named in `config.init`, and freeze what the stage does not train and `config.frozen`.

    Stage sife trains SIFE alone, or the base network where the model has one beside it; rec all but texture encoders,
    as an argmax has no gradient; all the last box alone, so that the first network of feature reuse gives the F_rec
    that it was trained for. What a network itself has frozen stays so.

    Args:
        model: gets the weights.
        config: of the run.

    Returns:
        The SHA-256 of the weights by part.

    Raises:
        UserError: the weights do not fit, or the stage needs others.
    """
    parts = dict(model.named_children())
    for part in parts.values():
        if isinstance(part, FeatureReuse):
            part.fresh = config.fresh
    sources = {part: load_part(model, part, weights) for part, weights in config.init.items()}
    if config.stage == "sife" and getattr(model.config, "base", None) not in ("sife", "own"):
        raise UserError("stage sife needs model.base=sife or own: without it SIFE makes no image to train on.")
    if config.stage == "all" and not config.init:
        raise UserError("stage all continues the rec stage: give init={all: WEIGHTS}, for example its RUN/weights.")
    single = parts.get("base", parts.get("sife"))
    trained = {"sife": single, "rec": model, "all": parts.get("aggregation", model)}[config.stage]
    kept = {id(parameter) for parameter in trained.parameters()}
    encoders = [part for part in parts.values() if isinstance(part, TextureEncoder)]
    frozen = [*encoders, *(submodule(model, name) for name in config.frozen)]
    kept -= {id(parameter) for part in frozen for parameter in part.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)
    for name in config.rates:
        submodule(model, name)
    for part in parts.values():
        part.train(any(parameter.requires_grad for parameter in part.parameters()))
    return sources


def checkpoint_stages(network: Network) -> None:
    """Keep of the last box's stages only what goes into them: the backward pass computes them again, stage by stage."""
    parts = dict(network.named_children())
    box = parts.get("aggregation", network)
    for stage in stages(box.second if isinstance(box, FeatureReuse) else box):
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)


def stages(box: nn.Module) -> Iterator[nn.Module]:
    """The modules that a box consists of, those in its lists and dictionaries among them."""
    for child in box.children():
        if type(child) in (nn.ModuleList, nn.ModuleDict):
            yield from stages(child)
        else:
            yield child
