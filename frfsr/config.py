"""The network's configuration, `FRFSRConfig`, one field a choice."""

from typing import Annotated, Any, Literal

from pydantic import Field

from frfsr.errors import UserError
from frfsr.settings import Depth, Width, require_divisible, settings

Widths = tuple[Width, Width, Width]
"""Channels at each scale of the U-Net: large (x4, full resolution), medium (x2), small (LR resolution)."""
Depths = tuple[Depth, Depth, Depth]
"""Blocks at each scale, likewise."""


@settings
class FRFSRConfig:
    """The network. Defaults are the paper's; where it is silent, the published code's (docs/faithfulness.md).

    Examples:
        >>> import frfsr
        >>> frfsr.FRFSRConfig().blocks, frfsr.FRFSRConfig.tiny(reuse=True).reuse
        ((16, 16, 16), True)
        >>> frfsr.FRFSRConfig(groups=7)
        Traceback (most recent call last):
        frfsr.errors.UserError: groups (7) must divide every one of texture_channels (64).
    """

    # CTW: texture encoder and matching (section III-B)
    encoder_channels: Widths = (64, 128, 256)  # widths of the encoder's three stages; these are VGG16's
    shared_encoder: bool = True  # one for LR and reference ("parameter-sharing"); published: two sets of weights
    match_padding: Literal["same", "valid"] = "same"  # valid: only patches wholly inside are matched (published)
    # Search radius, reference pixels, of a block matching after the argmax; 0: none (the paper)
    refine: Annotated[int, Field(ge=0, le=16)] = 0

    # Reference features F_Ref^i (section III-C)
    texture_channels: Widths = (64, 128, 256)  # relu1_1, relu2_1, relu3_1 of VGG19

    # SIFE (eq. 14): ESRGAN's RRDB trunk
    sife: bool = True
    sife_features: Width = 64
    sife_blocks: Depth = 23
    sife_growth: Width = 32
    # Where F_sife, F_rec and the U-Net's skips join F_LR. joint: before FAM and TAAM. separate: F_sife and F_rec by a
    # convolution of their own, and all of them only where TAAM begins; FAM and residuals see plain F_LR (published).
    fusion: Literal["joint", "separate"] = "joint"

    # FAM (eq. 15-16)
    groups: Width = 8  # deformable groups
    # The flow at finer scales. nearest: repeated. smooth: continuous where matches agree (not in the paper)
    flow: Literal["nearest", "smooth"] = "nearest"

    # TAAM and DRB (eq. 17-25)
    channels: Widths = (64, 64, 64)  # of F_LR
    dynamic_blocks: Depths = (2, 2, 2)  # residual blocks of two decoupled dynamic filters
    blocks: Depths = (16, 16, 16)  # residual blocks with ESA
    filter_norm: bool = True  # FN of figure 5; the published code leaves it out
    esa: bool = True  # attention in those blocks; without it and without dynamic blocks: the baseline of Table VII
    dynamic_skip: bool = False  # F_LR is added after the dynamic blocks too, not only after the DRB (published)
    score_input: bool = False  # TAAM also sees the score of eq. 6, so that it can distrust a match (not in the paper)

    # The image to which the network adds its residual
    # bilinear: published; sife: SIFE's own (tiny); own: that of a single-image network of SIFE's kind and widths beside
    # it, so that it can be trained on while the others keep the features that they know
    base: Literal["bicubic", "bilinear", "sife", "own"] = "bicubic"
    base_fed: bool = False  # that network also sees F_sife, and so is twice as deep for one convolution more

    # Feature reuse (eq. 3-4, 18): a second aggregation network that is fed F_rec of the first
    reuse: bool = False

    def __post_init__(self):
        if self.base == "sife" and not self.sife:
            raise UserError("base: sife needs sife: true.")
        if self.base_fed and (self.base != "own" or not self.sife):
            raise UserError("base_fed: true needs base: own and sife: true.")
        for name, chosen in (("refine", self.refine), ("flow: smooth", self.flow == "smooth")):
            if chosen and self.match_padding != "same":
                raise UserError(f"{name} needs match_padding: same.")
        for channels in self.texture_channels:
            require_divisible("every one of texture_channels", channels, "groups", self.groups)

    @classmethod
    def paper(cls, **changes: Any) -> "FRFSRConfig":
        """The paper's network: 13.5 M parameters without SIFE, encoder and pyramid."""
        return cls(**changes)

    @classmethod
    def published(cls, **changes: Any) -> "FRFSRConfig":
        """Every switch as in the authors' published code, so that its weights load and its outputs are reproduced."""
        switches: dict[str, Any] = dict(
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
        """For people without a GPU: few parameters, nothing pretrained is needed."""
        sizes: dict[str, Any] = dict(
            encoder_channels=(16, 32, 64),
            texture_channels=(16, 32, 48),
            sife_features=64,
            sife_blocks=1,
            sife_growth=32,
            refine=4,
            groups=1,
            flow="smooth",
            channels=(16, 32, 48),
            dynamic_blocks=(0, 1, 1),
            blocks=(1, 2, 3),
            score_input=True,
            base="sife",
        )
        return cls(**(sizes | changes))
