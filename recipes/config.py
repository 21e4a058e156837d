"""What can be configured in a training run: `TrainingConfig` and `MatchingConfig`, one field a choice."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import yaml
from pydantic import BeforeValidator, Field

from frfsr.degradations import Degradation
from frfsr.errors import UserError, one_line
from frfsr.recipes.effects import require_effect
from frfsr.settings import Count, Positive, Rate, Share, from_mapping, require_divisible, settings

NO_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What text that is none, or nests too deep, or has an impossible date, raises."""
RECIPES = Path(__file__).parent
Precision = Annotated[Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)]
"""YAML reads a bare no as false."""
Place = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
"""A path; empty where the yaml leaves it out."""
Shuffle = Literal["none", "easy", "medium", "hard"]
Reconstructs = Literal["l1", "l2", "psnr"]
Zoom = Annotated[float, Field(ge=0.1, le=10)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Side = Annotated[int, Field(ge=16, le=4096)]
Decay = Annotated[float, Field(ge=0, lt=1)]
# What may change when a run goes on: it does not touch the samples, or (the second line) sets the run's end anew.
CHANGEABLE = frozenset(
    "workers cache log_every keep validate_every validate_on checkpoint_every carry tracker "  # noqa: SIM905
    "minutes steps schedule decay skip_bad checkpointing compile".split()
)
PATHS = frozenset(("data", "photos"))  # these may move if their content stays


@settings
class RunConfig:
    """What every run has. Sizes are in HR pixels, rates are Adam's."""

    model: dict[str, Any] = Field(default_factory=lambda: {"preset": "paper"})  # preset and changes to it
    # part of the model (or "all") -> weights, or several whose mean is taken; see docs/training.md
    init: dict[str, str | list[str]] = Field(default_factory=dict)

    data: Place = ""  # training pairs, as for frfsr.data.load_pairs
    photos: str | list[str] | None = None  # further HR photos, in one or several places, for stages without references
    skip_bad: bool = False  # photos that cannot be read are skipped and counted, instead of ending the run
    # LR images like people's photos: parameters of frfsr.degradations.Degradation; none: Pillow's bicubic
    degradation: dict[str, Any] | None = None
    held_back: Positive = 48  # pairs at the end of the data that are kept for validation
    out: Place = ""  # run folder

    seed: Count = 0
    steps: Positive = 255_000
    batch: Positive = 9  # over all processes
    accumulate: Positive = 1
    lr: Rate = 1e-4
    schedule: Literal["steps", "cosine", "constant+decay"] = "steps"
    milestones: list[Count] = Field(default_factory=list)  # schedule steps: x0.1 at each
    decay: Count = 0  # schedule constant+decay: the last steps, in which the rates fall to zero
    warmup: Count = 0
    mixed_precision: Precision = "no"

    minutes: Annotated[float, Field(ge=0)] = (
        0.0  # then the run saves, validates, exports and ends; the same command goes on. 0: no limit
    )
    checkpoint_every: Positive = 1000
    keep: Positive = 2  # checkpoints
    carry: bool = False  # with each checkpoint also carry.safetensors, from which a run goes on in another folder
    validate_every: Positive = 1000
    log_every: Positive = 50
    workers: Annotated[int, Field(ge=0, le=256)] = 1
    cache: Count = 1024  # MiB of decoded photos, over all workers
    tracker: Literal["none", "tensorboard", "wandb", "trackio"] = "none"  # gets what metrics.jsonl gets

    def __post_init__(self):
        for name in ("data", "out"):
            if not getattr(self, name):
                raise UserError(f"{name} is not set: give it in the yaml or as {name}=PATH.")
        require_divisible("batch", self.batch, "accumulate", self.accumulate)
        self.degraded_by()

    def degraded_by(self) -> Degradation | None:
        """Build what makes the LR images, if it is more than bicubic interpolation.

        Returns:
            None for bicubic interpolation alone.

        Raises:
            UserError: the setting asks for what cannot be.
        """
        return None if self.degradation is None else from_mapping(Degradation, self.degradation)


@settings
class TrainingConfig(RunConfig):
    """A training run of recipes/train.py."""

    # sife: the single-image part alone (needs base: sife); rec: the whole network with eq. 26; all: with eq. 30, the
    # second network if model.reuse, else the only one
    stage: Literal["sife", "rec", "all"] = "rec"
    frozen: list[str] = Field(default_factory=list)  # name prefixes that are not trained, e.g. encoder, pyramid, sife
    validate_on: str | None = None  # HR photos on which the network is also measured without a reference

    crop: Side = 160  # side of the HR input crop
    reference_side: Side = 160  # larger references are cut where the crop is, smaller ones mirrored
    flip_rotate: bool = True
    shuffle: Shuffle = "medium"  # 2x2, 4x4 or 8x8 patches of the reference, shuffled
    shuffle_share: Share = 0.5  # share of the samples whose reference is shuffled
    # Shares of the samples whose reference is another pair's, or the enlarged LR image: the network learns to distrust
    unrelated_share: Share = 0.0
    own_share: Share = 0.0
    # Share of the samples whose reference is taken from elsewhere, at another hour: zoomed by a factor drawn from this
    # range (uniform in its logarithm), turned by at most these degrees, exposure, gains and gamma within 1 +- colour
    reference_share: Share = 0.0
    reference_zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    reference_turn: Degrees = 0.0
    reference_colour: Decay = 0.0
    # Shares of the samples whose base image is the network's own, bicubic, or its own moved towards the truth by up to
    # a half, as a stronger single-image network would give it
    base_mix: tuple[Share, Share, Share] = (1.0, 0.0, 0.0)

    lr_offset: tuple[Rate, Rate, Rate] = (1e-4, 1e-5, 1e-6)  # offset convolutions: large, medium, small scale
    rates: dict[str, Rate] = Field(default_factory=dict)  # part of the model -> its own rate instead of lr
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # the paper prints (0.99, 0.999)
    milestones: list[Count] = Field(default_factory=lambda: [72_545, 211_040])
    clip_norm: Annotated[float, Field(gt=0)] = 1.0  # of the gradient: offsets are known to explode
    ema: Decay = 0.999  # decay of the averaged weights, which are the ones validated and exported
    offset_limit: Annotated[float, Field(gt=0)] = (
        100.0  # pixels; a step in which the learned offsets are larger on average is skipped
    )

    checkpointing: bool = False  # of gradients: less memory, a third more time, see docs/training.md
    compile: bool = False  # the network, by torch.compile

    # Reconstruction: l1 (eq. 26), or what PSNR counts: l2, the mean square; psnr, its logarithm in each sample
    reconstruction: Reconstructs = "l1"

    # Stage all: lambda 1 to 3 of eq. 30, and what they weigh
    loss_weights: tuple[Rate, Rate, Rate] = (1.0, 1e-4, 1e-6)  # reconstruction, perceptual, adversarial
    perceptual: Literal["vgg19", "vgg16"] = "vgg19"  # its relu5_1
    perceptual_weights: str = "torchvision"  # or a file, a folder or a Hub id
    critic: Literal["wgan", "published"] = "wgan"  # published: with BatchNorm and sigmoid
    critic_lr: Rate = 1e-4
    gradient_penalty: Rate = 10.0  # lambda of eq. 29
    fresh: bool = False  # the second network starts from random weights instead of the first one's

    def __post_init__(self):
        super().__post_init__()
        for name in ("crop", "reference_side"):
            if getattr(self, name) % 4:
                raise UserError(f"{name} must be a multiple of 4, got {getattr(self, name)}.")
        if abs(sum(self.base_mix) - 1) > 1e-6:
            raise UserError(f"base_mix must be three shares that add up to 1, got {list(self.base_mix)}.")
        if self.unrelated_share + self.own_share > 1:
            raise UserError("unrelated_share and own_share must not add up to more than 1.")
        require_range("reference_zoom", self.reference_zoom)


@settings
class MatchingConfig(RunConfig):
    """A run of recipes/train_matching.py: the texture encoder alone, on photos and their random homographies."""

    stage: Literal["teacher", "student"] = "student"  # image 1 sharp, or the LR image enlarged
    teacher: str | None = None  # weights of the teacher stage; none: no distillation

    size: Side = 160  # of the crops
    jitter: Positive = 10  # corners of the square that defines the homography move by less than this many pixels
    # The second image also: zoomed by a factor drawn from this range, turned by at most these degrees
    zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    turn: Degrees = 0.0
    colour: Decay = 0.0  # largest relative change of exposure, of each channel's gain and of gamma, second image

    objective: Literal["triplet", "softmax"] = "triplet"  # softmax: for an encoder without pretrained weights
    margin: Rate = 1.0
    safe_radius: Count = 4  # feature positions around the true one that are no negatives
    distill_weight: Rate = 15.0
    temperature: Annotated[float, Field(gt=0)] = 0.15

    steps: Positive = 75_000
    batch: Positive = 8
    lr: Rate = 1e-3
    milestones: list[Count] = Field(default_factory=lambda: [72_545])

    def __post_init__(self):
        super().__post_init__()
        require_range("zoom", self.zoom)


def require_range(name: str, bounds: tuple[float, float]) -> None:
    """Refuse bounds that are not in order.

    Args:
        name: of the setting.
        bounds: the lower and the upper one.

    Raises:
        UserError: the first bound is above the second.
    """
    if bounds[0] > bounds[1]:
        raise UserError(f"{name} must be a range [smallest, largest], got {list(bounds)}.")


Config = TypeVar("Config", bound=RunConfig)


def command_line(config_class: type[Config], description: str, arguments: Sequence[str] | None = None) -> Config:
    """Parse `--config NAME KEY=VALUE ...` into a configuration; `arguments` default to the process's."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="yaml file, or a recipe's name, for example tiny_rec")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="changes to it, for example data=pairs.parquet"
    )
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.settings, config_class)
    require_effect(config, options.settings)
    return config


@overload
def load_config(name: str | Path, changes: Sequence[str] = ()) -> TrainingConfig | MatchingConfig: ...


@overload
def load_config(name: str | Path, changes: Sequence[str], config_class: type[Config]) -> Config: ...


def load_config(
    name: str | Path, changes: Sequence[str] = (), config_class: type[RunConfig] | None = None
) -> RunConfig:
    """Read a configuration and apply changes to it.

    Args:
        name: a yaml file, or the name of a recipe that comes with the package.
        changes: KEY=VALUE; values are read as yaml, model.KEY reaches into the model.
        config_class: which one; by default the one that has the configuration's stage.

    Returns:
        The configuration, with every value checked.

    Raises:
        UserError: no such file, no yaml, an unknown key, or a value that is not allowed.
    """
    file = find_recipe(name)
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except (OSError, *NO_YAML) as error:
        raise UserError(f"cannot read the configuration {name}: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"cannot read the configuration {name}: it must be lines of KEY: VALUE.")
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"{change!r} is not of the form KEY=VALUE.")
        target = values
        if key.startswith("model."):
            target, key = values.setdefault("model", {}), key.removeprefix("model.")
        if not isinstance(target, dict):
            raise UserError(f"{change!r}: the model is no list of KEY: VALUE.")
        try:
            target[key] = yaml.safe_load(value)
        except NO_YAML as error:
            raise UserError(f"{change!r}: the value is no YAML; quote the whole setting if it has blanks.") from error
    matching = values.get("stage") in ("teacher", "student")
    return from_mapping(config_class or (MatchingConfig if matching else TrainingConfig), values)


def find_recipe(name: str | Path) -> Path:
    """Find the yaml file of a configuration.

    Args:
        name: a path, or a recipe's name.

    Returns:
        Its path.

    Raises:
        UserError: there is none; it lists the recipes.
    """
    for file in (Path(name), RECIPES / f"{name}.yaml", RECIPES / name):
        if file.is_file():
            return file
    known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    raise UserError(f"no configuration {str(name)!r}: give a yaml file, or one of {known}.")
