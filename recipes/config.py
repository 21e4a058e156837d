"""What can be configured in a training run: `TrainingConfig` and `MatchingConfig`, one field a choice."""

from dataclasses import dataclass, field
from typing import Any, Literal

from frfsr.config import require_choices, require_numbers
from frfsr.errors import UserError


def require_paths(config: Any) -> None:
    """Raise UserError for a run without data or run folder, or with weights of no named part."""
    for name in ("data", "out"):
        if not getattr(config, name):
            raise UserError(f"{name} is not set: give it in the yaml or as {name}=PATH.")
    if not isinstance(config.init, dict):
        raise UserError(f"init must be {{PART: WEIGHTS}}, for example {{encoder: torchvision}}, got {config.init!r}.")


@dataclass
class TrainingConfig:
    """A training run of recipes/train.py. Sizes are in HR pixels, rates are Adam's."""

    # sife: the single-image part alone (needs base: sife); rec: the whole network with eq. 26; all: with eq. 30, the
    # second network if model.reuse, else the only one
    stage: Literal["sife", "rec", "all"] = "rec"
    model: dict[str, Any] = field(default_factory=lambda: {"preset": "paper"})  # preset and changes to it
    init: dict[str, str] = field(default_factory=dict)  # part of the model (or "all") -> weights, see `frfsr.recipes`
    frozen: list[str] = field(default_factory=list)  # name prefixes that are not trained, e.g. encoder, pyramid, sife

    data: str = ""  # training pairs, as for frfsr.data.load_pairs
    photos: str | None = None  # further HR photos for the sife stage
    held_back: int = 48  # pairs at the end of the data that are kept for validation
    out: str = ""  # run folder
    crop: int = 160  # side of the HR input crop; the reference is kept whole
    flip_rotate: bool = True
    shuffle: Literal["none", "easy", "medium", "hard"] = "medium"  # 2x2, 4x4 or 8x8 patches of the reference, shuffled
    shuffle_share: float = 0.5  # share of the samples whose reference is shuffled
    # Shares of the samples whose reference is another pair's, or the enlarged LR image: the network learns to distrust
    unrelated_share: float = 0.0
    own_share: float = 0.0

    seed: int = 0
    steps: int = 255_000
    batch: int = 9  # over all processes
    lr: float = 1e-4
    lr_offset: tuple[float, float, float] = (1e-4, 1e-5, 1e-6)  # offset convolutions: large, medium, small scale
    betas: tuple[float, float] = (0.9, 0.999)  # the paper prints (0.99, 0.999)
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: list[int] = field(default_factory=lambda: [72_545, 211_040])  # schedule: steps, x0.1 at each
    warmup: int = 0
    clip_norm: float = 1.0  # of the gradient: offsets are known to explode
    ema: float = 0.999  # decay of the averaged weights, which are the ones validated and exported
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    accumulate: int = 1
    offset_limit: float = 100.0  # pixels; a step in which the learned offsets are larger on average is skipped

    # Stage all: lambda 1 to 3 of eq. 30, and what they weigh
    loss_weights: tuple[float, float, float] = (1.0, 1e-4, 1e-6)  # reconstruction, perceptual, adversarial
    perceptual: Literal["vgg19", "vgg16"] = "vgg19"  # its relu5_1
    perceptual_weights: str = "torchvision"  # or a file, a folder or a Hub id
    critic: Literal["wgan", "published"] = "wgan"  # published: with BatchNorm and sigmoid
    critic_lr: float = 1e-4
    gradient_penalty: float = 10.0  # lambda of eq. 29
    fresh: bool = False  # the second network starts from random weights instead of the first one's

    checkpoint_every: int = 1000
    keep: int = 2  # checkpoints
    validate_every: int = 1000
    log_every: int = 50
    workers: int = 1
    tensorboard: bool = False

    def __post_init__(self):
        require_paths(self)
        require_choices(self)
        require_numbers(self)
        for name in ("lr_offset", "betas", "loss_weights"):
            setattr(self, name, tuple(float(value) for value in getattr(self, name)))
        if self.batch % self.accumulate:
            raise UserError(f"accumulate ({self.accumulate}) must divide batch ({self.batch}).")
        if self.crop % 4:
            raise UserError(f"crop must be a multiple of 4, got {self.crop}.")


@dataclass
class MatchingConfig:
    """A run of recipes/train_matching.py: the texture encoder alone, on photos and their random homographies."""

    stage: Literal["teacher", "student"] = "student"  # image 1 sharp, or the LR image enlarged
    model: dict[str, Any] = field(default_factory=lambda: {"preset": "paper"})
    init: dict[str, str] = field(default_factory=dict)  # encoder, reference_encoder or all -> weights to start from
    teacher: str | None = None  # weights of the teacher stage; none: no distillation

    data: str = ""  # photos or pairs, as for frfsr.data.load_pairs; references are photos too
    photos: str | None = None  # further photos
    held_back: int = 48  # at the end of the data, for validation
    out: str = ""
    size: int = 160  # of the crops
    jitter: int = 10  # corners of the square that defines the homography move by less than this many pixels
    colour: float = 0.0  # largest relative change of each channel's gain, and of gamma, in the second image

    objective: Literal["triplet", "softmax"] = "triplet"  # softmax: for an encoder without pretrained weights
    margin: float = 1.0
    safe_radius: int = 4  # feature positions around the true one that are no negatives
    distill_weight: float = 15.0
    temperature: float = 0.15

    seed: int = 0
    steps: int = 75_000
    batch: int = 8
    lr: float = 1e-3
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: list[int] = field(default_factory=lambda: [72_545])
    warmup: int = 0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    checkpoint_every: int = 1000
    keep: int = 2
    validate_every: int = 1000
    log_every: int = 50
    workers: int = 1
    tensorboard: bool = False

    def __post_init__(self):
        require_paths(self)
        require_choices(self)
        require_numbers(self)
