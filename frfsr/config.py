"""What can be configured: the network (`FRFSRConfig`) and a training run (`TrainingConfig`), one field a choice."""

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from frfsr.errors import UserError

Scales = tuple[int, int, int]
"""One number for each scale of the U-Net: large (x4, full resolution), medium (x2), small (LR resolution)."""


def require_choices(config: Any) -> None:
    """Raise UserError for a field annotated Literal[...] that holds something else."""
    for f in fields(config):
        if getattr(config, f.name) is False and "no" in get_args(f.type):
            setattr(config, f.name, "no")  # YAML reads a bare no as false
        if get_origin(f.type) is Literal and getattr(config, f.name) not in get_args(f.type):
            allowed = ", ".join(get_args(f.type))
            raise UserError(f"{f.name} must be one of {allowed}, got {getattr(config, f.name)!r}.")


def require_numbers(config: Any) -> None:
    """Convert numbers like 1e-4, which YAML reads as text; raise UserError for what is no number or no truth value."""
    for f in fields(config):
        value = getattr(config, f.name)
        try:
            if f.type is float and not isinstance(value, bool):
                setattr(config, f.name, float(value))
            elif f.type in (bool, int) and type(value) is not f.type:
                raise TypeError
        except (TypeError, ValueError):
            kind = {bool: "true or false", int: "a whole number", float: "a number"}[f.type]
            raise UserError(f"{f.name} must be {kind}, got {value!r}.") from None


def require_paths(config: Any) -> None:
    """Raise UserError for a run without data or run folder, or with weights of no named part."""
    for name in ("data", "out"):
        if not getattr(config, name):
            raise UserError(f"{name} is not set: give it in the yaml or as {name}=PATH.")
    if not isinstance(config.init, dict):
        raise UserError(f"init must be {{PART: WEIGHTS}}, for example {{encoder: torchvision}}, got {config.init!r}.")


@dataclass
class FRFSRConfig:
    """The network. Defaults are the paper's; where it is silent, the published code's (docs/faithfulness.md)."""

    # CTW: texture encoder and matching (section III-B)
    encoder_channels: Scales = (64, 128, 256)  # widths of the encoder's three stages; these are VGG16's
    shared_encoder: bool = True  # one for LR and reference ("parameter-sharing"); published: two sets of weights
    match_padding: Literal["same", "valid"] = "same"  # valid: only patches wholly inside are matched (published)
    refine: int = 0  # search radius, reference pixels, of a block matching after the argmax; 0: none (the paper)

    # Reference features F_Ref^i (section III-C)
    texture_channels: Scales = (64, 128, 256)  # relu1_1, relu2_1, relu3_1 of VGG19

    # SIFE (eq. 14): ESRGAN's RRDB trunk
    sife: bool = True
    sife_features: int = 64
    sife_blocks: int = 23
    sife_growth: int = 32
    # Where F_sife, F_rec and the U-Net's skips join F_LR. joint: before FAM and TAAM. separate: F_sife and F_rec by a
    # convolution of their own, and all of them only where TAAM begins; FAM and residuals see plain F_LR (published).
    fusion: Literal["joint", "separate"] = "joint"

    # FAM (eq. 15-16)
    groups: int = 8  # deformable groups

    # TAAM and DRB (eq. 17-25)
    channels: Scales = (64, 64, 64)  # of F_LR
    dynamic_blocks: Scales = (2, 2, 2)  # residual blocks of two decoupled dynamic filters
    blocks: Scales = (16, 16, 16)  # residual blocks with ESA
    filter_norm: bool = True  # FN of figure 5; the published code leaves it out
    esa: bool = True  # attention in those blocks; without it and without dynamic blocks: the baseline of Table VII
    dynamic_skip: bool = False  # F_LR is added after the dynamic blocks too, not only after the DRB (published)
    score_input: bool = False  # TAAM also sees the score of eq. 6, so that it can distrust a match (not in the paper)

    # The image to which the network adds its residual
    base: Literal["bicubic", "bilinear", "sife"] = "bicubic"  # bilinear: published; sife: SIFE's own image (tiny)

    # Feature reuse (eq. 3-4, 18): a second aggregation network that is fed F_rec of the first
    reuse: bool = False

    def __post_init__(self):
        for name in ("encoder_channels", "texture_channels", "channels", "dynamic_blocks", "blocks"):
            value = tuple(getattr(self, name))  # JSON and YAML give lists
            if len(value) != 3:
                raise UserError(f"{name} needs three numbers (large, medium, small scale), got {list(value)}.")
            setattr(self, name, value)
        require_choices(self)
        if self.base == "sife" and not self.sife:
            raise UserError("base: sife needs sife: true.")
        if self.refine and self.match_padding != "same":
            raise UserError("refine needs match_padding: same.")
        for channels in self.texture_channels:
            if channels % self.groups:
                raise UserError(f"groups ({self.groups}) must divide every one of texture_channels, got {channels}.")

    @classmethod
    def paper(cls, **changes: Any) -> "FRFSRConfig":
        """The paper's network: 13.5 M parameters without SIFE, encoder and pyramid."""
        return cls(**changes)

    @classmethod
    def published(cls, **changes: Any) -> "FRFSRConfig":
        """Every switch as in the authors' published code, so that its weights load and its outputs are reproduced."""
        switches = dict(
            shared_encoder=False,
            match_padding="valid",
            fusion="separate",
            filter_norm=False,
            dynamic_skip=True,
            base="bilinear",
        )
        return cls(**(switches | changes))

    @classmethod
    def tiny(cls, **changes: Any) -> "FRFSRConfig":
        """For people without a GPU: under 2 M parameters, nothing pretrained is needed."""
        sizes = dict(
            encoder_channels=(16, 32, 64),
            texture_channels=(16, 32, 48),
            sife_features=64,
            sife_blocks=1,
            sife_growth=32,
            refine=4,
            groups=1,
            channels=(16, 32, 48),
            dynamic_blocks=(0, 1, 1),
            blocks=(1, 2, 3),
            score_input=True,
            base="sife",
        )
        return cls(**(sizes | changes))


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


def from_mapping(config_class: type, values: dict[str, Any]):
    """Build a config dataclass; a key that it lacks is an error which names the nearest one that it has."""
    require_known(config_class, values)
    return config_class(**values)


def require_known(config_class: type, values: dict[str, Any]) -> None:
    """Raise UserError for a key that is no field of the dataclass, with the nearest one that is."""
    known = [f.name for f in fields(config_class)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
            raise UserError(f"unknown key {key!r} in the configuration; {hint}")


def model_config(values: dict[str, Any]) -> FRFSRConfig:
    """{"preset": "tiny", changes...} -> FRFSRConfig."""
    changes = dict(values)
    preset = changes.pop("preset", "paper")
    if preset not in ("paper", "published", "tiny"):
        raise UserError(f"unknown preset {preset!r}: use paper, published or tiny.")
    require_known(FRFSRConfig, changes)
    return getattr(FRFSRConfig, preset)(**changes)
