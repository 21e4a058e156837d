"""The contract of every network, and what passes between its boxes.

The engine, the evaluation and the recipes see nothing of a network but what stands here.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr.publications import Needs
from frfsr.stored import StoredModule


class Correspondence(NamedTuple):
    """For every LR position the best matching place in the reference.

    Attributes:
        score: (B, h, w) float32, cosine of the two 3x3 patches, -1 ... 1 (eq. 6); 0 where nothing was matched.
        flow: (B, h, w, 2) float32, displacement (x, y) in LR pixels = reference pixels / 4 (eq. 9), whole numbers
            unless it is refined. With "same" padding it belongs to the patch centred on the pixel, with "valid" to the
            patch whose top-left corner is the pixel.
        index: (B, hq, wq) int64, row-major number of the matched patch in the reference's patch grid (eq. 7).
        source: (B, h, w) int64, which of several references it lies in; None for a single one.
        still: (B, h, w, 2) float32, displacement (x, y) in LR pixels to the place of the *unwarped* reference, where it
            is not simply the same position; see `frfsr.atlas`.
        smooth: (B, h, w, 2) float32, the flow that is to be continuous between LR pixels where matches agree, see
            `frfsr.smoothing`; None for one that is to be repeated.
    """

    score: Tensor
    flow: Tensor
    index: Tensor
    source: Tensor | None = None
    still: Tensor | None = None
    smooth: Tensor | None = None

    def cropped(self, height: int, width: int) -> Self:
        """Keep the first rows and columns, for an LR image whose borders were padded; `index` stays as it is."""
        kept = {name: getattr(self, name) for name in ("score", "flow", "source", "still", "smooth")}
        return self._replace(**{name: value[:, :height, :width] for name, value in kept.items() if value is not None})


class ReferenceFeatures(NamedTuple):
    """What networks that match texture features need of a reference, so that many LR images or tiles can share it.

    Attributes:
        matching: texture features (B, C, hr, wr) at stride 4.
        pyramid: F_Ref (B, C_i, ...) at strides 1, 2 and 4.
        luma: for the refinement of the flow, (B, 1, 4hr, 4wr), or None where the network has none.
    """

    matching: Tensor
    pyramid: tuple[Tensor, Tensor, Tensor]
    luma: Tensor | None = None


class SRResult(NamedTuple):
    """The result of a network.

    Attributes:
        image: (B, 3, 4h, 4w), RGB, about [0, 1], not clamped unless the network does so itself.
        features: the tap F_rec that feature reuse takes (eq. 1); None where the network has none or saw no reference.
        correspondence: what was matched with what; None where nothing was.
    """

    image: Tensor
    features: Tensor | None = None
    correspondence: Correspondence | None = None


@dataclass(frozen=True)
class Rates:
    """Learning rates of a network's parameter groups.

    Attributes:
        main: of all that has no rate of its own.
        offset: of the convolutions that predict offsets, at the large, medium and small scale.
        parts: of named parts, for example {"sife": 1e-5}; of one within another ("sife.body.1") its own.
    """

    main: float
    offset: tuple[float, float, float] = (1e-4, 1e-5, 1e-6)
    parts: dict[str, float] = field(default_factory=dict)


class Network(StoredModule):
    """x4 super-resolution of RGB images in [0, 1], with or without sharp references of similar content.

    Attributes:
        scale: of the result.
        min_side: smallest side of the LR image that it computes with; `forward` replicates borders and crops, so that
            callers need not care.
        side_multiple: LR sides are padded likewise to a multiple of this.
        halo: LR pixels around a tile that its result depends on.
        tile_step: tiles begin at multiples of this many LR pixels, where the network counts in steps of its own.
        max_references: how many references it can use: None for any number, 1 where it cannot search several, 0 for
            single-image networks.
        searches: whether it searches references by `frfsr.atlas.match`, exactly or fast.
        takes_views: whether resized and turned references help it; not if it searches nothing and needs what the photo
            shows at about the same place.
        memory_format: in which it computes fastest.
        refines: the keyword by which `forward` takes another network's x4 image to refine; None where it takes none.
    """

    scale: ClassVar[int] = 4
    min_side: int = 1
    side_multiple: int = 1
    halo: ClassVar[int] = 16
    tile_step: ClassVar[int] = 1
    max_references: ClassVar[int | None] = None
    searches: ClassVar[bool] = False
    takes_views: ClassVar[bool] = True
    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    refines: ClassVar[str | None] = None
    __call__: Callable[..., SRResult]  # what nn.Module leaves open to type checkers

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    @classmethod
    def needs(cls) -> Needs:
        """What it super-resolves with."""
        return {None: Needs.REFERENCES, 0: Needs.NO_REFERENCE}.get(cls.max_references, Needs.REFERENCE)

    @abstractmethod
    def encode_reference(self, reference: Tensor) -> Any:
        """Compute all that the network needs of one reference.

        Args:
            reference: (B, 3, H, W), RGB in [0, 1], of any size.

        Returns:
            A NamedTuple of tensors, for `forward`; movable, and reusable for every LR tile.
        """

    @abstractmethod
    def forward(
        self, lr: Tensor, references: Tensor | Any | Sequence[Any] | None = None, upsampled: Tensor | None = None
    ) -> SRResult:
        """Super-resolve.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], of any size.
            references: an image (B, 3, H, W), a result of `encode_reference`, a sequence of such results, or None for
                the single-image result.
            upsampled: `lr` enlarged x4, (B, 3, 4h, 4w): published data protocols round it to 8 bits first. Without it
                the network enlarges by bicubic interpolation. Networks whose protocol prepares further images take
                them as keywords: reference_reduced, reference_blurred, super_resolved, base.

        Returns:
            The image (B, 3, 4h, 4w) and what it was made of.
        """

    def parameter_groups(self, rates: Rates) -> list[dict[str, Any]]:
        """Group the trained parameters by learning rate, for an optimizer.

        Args:
            rates: the main one, and those of parts.

        Returns:
            A group for each different rate of `rates.parts`, and one for the rest.
        """
        groups = {None: rates.main, **rates.parts}
        members: dict[str | None, list[nn.Parameter]] = {part: [] for part in groups}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = max((part for part in rates.parts if f"{name}.".startswith(f"{part}.")), key=len, default=None)
                members[part].append(parameter)
        return [group(members[part], rate) for part, rate in groups.items()]

    def watched(self) -> Iterable[nn.Module]:
        """Modules whose outputs are learned offsets in pixels, (B, C, H, W); training stops when they explode.

        Of a module that also predicts masks, the first two thirds of the channels are offsets.
        """
        return ()


def group(parameters: list[nn.Parameter], rate: float) -> dict[str, Any]:
    """One parameter group of an optimizer, with the rate from which schedules start."""
    return {"params": parameters, "lr": rate, "initial_lr": rate}


def enlarge(image: Tensor, scale: int = 4) -> Tensor:
    """Enlarge (B, 3, h, w) in [0, 1] by bicubic interpolation, clamped: Pillow's and MATLAB's kernel (a = -0.5)."""
    # antialias selects that kernel; it has no half form on a CPU.
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    large = F.interpolate(wide, scale_factor=scale, mode="bicubic", antialias=True, align_corners=False)
    return large.clamp(0, 1).to(image.dtype)


def enlarge_8_bit(image: Tensor, scale: int = 4) -> Tensor:
    """Enlarge (B, 3, h, w) in [0, 1] as published data protocols do: by Pillow, in 8 bits; see `resize_as_pillow`."""
    return resize_as_pillow(image, scale * image.shape[-2], scale * image.shape[-1])


def reduce_8_bit(image: Tensor, scale: int = 4) -> Tensor:
    """Reduce (B, 3, scale * h, scale * w) in [0, 1] likewise."""
    return resize_as_pillow(image, max(1, image.shape[-2] // scale), max(1, image.shape[-1] // scale))


def resize_as_pillow(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, 3, H, W) in [0, 1] by Pillow's bicubic interpolation of 8-bit images: across, then down, each rounded.

    Equal to Pillow but for one value in ten thousand, half-way between two. Carries no gradient.
    """
    levels = (255 * image.detach().to(torch.promote_types(image.dtype, torch.float32))).round()
    for size in ((image.shape[-2], width), (height, width)):
        levels = F.interpolate(levels, size, mode="bicubic", antialias=True, align_corners=False)
        levels = (levels + 0.5).floor().clamp(0, 255)
    return (levels / 255).to(image.dtype)
