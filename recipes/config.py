"""What can be configured in a training run: `TrainingConfig` and `MatchingConfig`, one field a choice."""

from dataclasses import dataclass, field
from typing import Any, Literal

from frfsr.config import require_choices, require_numbers
from frfsr.errors import UserError

# What may change when a run goes on: it does not touch the samples, or (the second line) sets the run's end anew.
CHANGEABLE = frozenset(
    "workers cache log_every keep validate_every validate_on checkpoint_every carry tensorboard "  # noqa: SIM905
    "minutes steps schedule decay".split()
)
PATHS = frozenset(("data", "photos"))  # these may move if their content stays


@dataclass
class RunConfig:
    """What every run has. Sizes are in HR pixels, rates are Adam's."""

    model: dict[str, Any] = field(default_factory=lambda: {"preset": "paper"})  # preset and changes to it
    init: dict[str, str] = field(default_factory=dict)  # part of the model (or "all") -> weights, see docs/training.md

    data: str = ""  # training pairs, as for frfsr.data.load_pairs
    photos: str | list[str] | None = None  # further HR photos, in one or several places, for stages without references
    held_back: int = 48  # pairs at the end of the data that are kept for validation
    out: str = ""  # run folder

    seed: int = 0
    steps: int = 255_000
    batch: int = 9  # over all processes
    accumulate: int = 1
    lr: float = 1e-4
    schedule: Literal["steps", "cosine", "constant+decay"] = "steps"
    milestones: list[int] = field(default_factory=list)  # schedule steps: x0.1 at each
    decay: int = 0  # schedule constant+decay: the last steps, in which the rates fall to zero
    warmup: int = 0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"

    minutes: float = 0.0  # then the run saves, validates, exports and ends; the same command goes on. 0: no limit
    checkpoint_every: int = 1000
    keep: int = 2  # checkpoints
    carry: bool = False  # with each checkpoint also carry.safetensors, from which a run goes on in another folder
    validate_every: int = 1000
    log_every: int = 50
    workers: int = 1
    cache: int = 1024  # MiB of decoded photos, over all workers
    tensorboard: bool = False

    def __post_init__(self):
        for name in ("data", "out"):
            if not getattr(self, name):
                raise UserError(f"{name} is not set: give it in the yaml or as {name}=PATH.")
        if not isinstance(self.init, dict):
            raise UserError(f"init must be {{PART: WEIGHTS}}, for example {{encoder: torchvision}}, got {self.init!r}.")
        require_choices(self)
        require_numbers(self)
        if self.batch % self.accumulate:
            raise UserError(f"accumulate ({self.accumulate}) must divide batch ({self.batch}).")


@dataclass
class TrainingConfig(RunConfig):
    """A training run of recipes/train.py."""

    # sife: the single-image part alone (needs base: sife); rec: the whole network with eq. 26; all: with eq. 30, the
    # second network if model.reuse, else the only one
    stage: Literal["sife", "rec", "all"] = "rec"
    frozen: list[str] = field(default_factory=list)  # name prefixes that are not trained, e.g. encoder, pyramid, sife
    validate_on: str | None = None  # HR photos on which the network is also measured without a reference

    crop: int = 160  # side of the HR input crop
    reference_side: int = 160  # larger references are cut where the crop is, smaller ones mirrored
    flip_rotate: bool = True
    shuffle: Literal["none", "easy", "medium", "hard"] = "medium"  # 2x2, 4x4 or 8x8 patches of the reference, shuffled
    shuffle_share: float = 0.5  # share of the samples whose reference is shuffled
    # Shares of the samples whose reference is another pair's, or the enlarged LR image: the network learns to distrust
    unrelated_share: float = 0.0
    own_share: float = 0.0
    # Share of the samples whose reference is taken from elsewhere, at another hour: zoomed by a factor drawn from this
    # range (uniform in its logarithm), turned by at most these degrees, exposure, gains and gamma within 1 +- colour
    reference_share: float = 0.0
    reference_zoom: tuple[float, float] = (1.0, 1.0)
    reference_turn: float = 0.0
    reference_colour: float = 0.0
    # Shares of the samples whose base image is the network's own, bicubic, or its own moved towards the truth by up to
    # a half, as a stronger single-image network would give it
    base_mix: tuple[float, float, float] = (1.0, 0.0, 0.0)

    lr_offset: tuple[float, float, float] = (1e-4, 1e-5, 1e-6)  # offset convolutions: large, medium, small scale
    rates: dict[str, float] = field(default_factory=dict)  # part of the model -> its own rate instead of lr
    betas: tuple[float, float] = (0.9, 0.999)  # the paper prints (0.99, 0.999)
    milestones: list[int] = field(default_factory=lambda: [72_545, 211_040])
    clip_norm: float = 1.0  # of the gradient: offsets are known to explode
    ema: float = 0.999  # decay of the averaged weights, which are the ones validated and exported
    offset_limit: float = 100.0  # pixels; a step in which the learned offsets are larger on average is skipped

    # Stage all: lambda 1 to 3 of eq. 30, and what they weigh
    loss_weights: tuple[float, float, float] = (1.0, 1e-4, 1e-6)  # reconstruction, perceptual, adversarial
    perceptual: Literal["vgg19", "vgg16"] = "vgg19"  # its relu5_1
    perceptual_weights: str = "torchvision"  # or a file, a folder or a Hub id
    critic: Literal["wgan", "published"] = "wgan"  # published: with BatchNorm and sigmoid
    critic_lr: float = 1e-4
    gradient_penalty: float = 10.0  # lambda of eq. 29
    fresh: bool = False  # the second network starts from random weights instead of the first one's

    def __post_init__(self):
        super().__post_init__()
        for name in ("lr_offset", "betas", "loss_weights", "reference_zoom", "base_mix"):
            setattr(self, name, tuple(float(value) for value in getattr(self, name)))
        self.rates = {part: float(rate) for part, rate in self.rates.items()}
        for name in ("crop", "reference_side"):
            if getattr(self, name) % 4:
                raise UserError(f"{name} must be a multiple of 4, got {getattr(self, name)}.")
        if abs(sum(self.base_mix) - 1) > 1e-6:
            raise UserError(f"base_mix must be three shares that add up to 1, got {list(self.base_mix)}.")


@dataclass
class MatchingConfig(RunConfig):
    """A run of recipes/train_matching.py: the texture encoder alone, on photos and their random homographies."""

    stage: Literal["teacher", "student"] = "student"  # image 1 sharp, or the LR image enlarged
    teacher: str | None = None  # weights of the teacher stage; none: no distillation

    size: int = 160  # of the crops
    jitter: int = 10  # corners of the square that defines the homography move by less than this many pixels
    # The second image also: zoomed by a factor drawn from this range, turned by at most these degrees
    zoom: tuple[float, float] = (1.0, 1.0)
    turn: float = 0.0
    colour: float = 0.0  # largest relative change of exposure, of each channel's gain and of gamma, second image

    objective: Literal["triplet", "softmax"] = "triplet"  # softmax: for an encoder without pretrained weights
    margin: float = 1.0
    safe_radius: int = 4  # feature positions around the true one that are no negatives
    distill_weight: float = 15.0
    temperature: float = 0.15

    steps: int = 75_000
    batch: int = 8
    lr: float = 1e-3
    milestones: list[int] = field(default_factory=lambda: [72_545])

    def __post_init__(self):
        super().__post_init__()
        self.zoom = tuple(float(value) for value in self.zoom)
