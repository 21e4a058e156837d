"""FRFSR: `forward` is the paper's figure 1."""

from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from frfsr.config import FRFSRConfig, from_mapping
from frfsr.errors import UserError
from frfsr.features import SIFE, ReferencePyramid, TextureEncoder
from frfsr.kernels import refine_flow
from frfsr.matching import Correspondence, blurred_luma, correspond
from frfsr.reuse import reuse_features
from frfsr.unet import MultiScaleAggregation, Textures

PACKAGED_WEIGHTS = Path(__file__).parent / "weights"


class ReferenceFeatures(NamedTuple):
    """All that the model needs of a reference image, so that many LR images or tiles can share it.

    matching: texture features (B, C, hr, wr) at stride 4; pyramid: F_Ref at strides 1, 2 and 4; luma: for the
    refinement of the flow, (B, 1, 4hr, 4wr), or None where the model has none.
    """

    matching: Tensor
    pyramid: tuple[Tensor, Tensor, Tensor]
    luma: Tensor | None


class SRResult(NamedTuple):
    """What the model returns; without a reference only the image.

    image: (B, 3, 4h, 4w), RGB, about [0, 1], not clamped; features: F_SR (B, C, 4h, 4w); correspondence: what was
    matched with what.
    """

    image: Tensor
    features: Tensor | None
    correspondence: Correspondence | None


class FRFSR(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="frfsr",
    tags=["super-resolution", "reference-based-super-resolution"],
    license="apache-2.0",
):
    """x4 super-resolution of an image with a sharp reference image of similar content."""

    memory_format = torch.channels_last  # several times faster than contiguous on CPU and on tensor cores

    def __init__(self, config: FRFSRConfig):
        super().__init__()
        self.config = config
        self.encoder = TextureEncoder(config.encoder_channels)
        self.reference_encoder = None if config.shared_encoder else TextureEncoder(config.encoder_channels)
        self.pyramid = ReferencePyramid(config.texture_channels)
        self.sife = None
        if config.sife:
            image_head = config.base == "sife"
            self.sife = SIFE(config.sife_features, config.sife_blocks, config.sife_growth, image_head)
        self.aggregation = MultiScaleAggregation(config, sife=config.sife, reuse=False)
        self.reuse_aggregation = MultiScaleAggregation(config, sife=config.sife, reuse=True) if config.reuse else None
        self.to(memory_format=self.memory_format)

    def forward(
        self,
        lr: Tensor,
        reference: Tensor | ReferenceFeatures | None,
        upsampled: Tensor | None = None,
        *,
        base: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve `lr` (B, 3, h, w) with `reference` (B, 3, H, W); RGB in [0, 1], any sizes.

        reference: an image, the result of `encode_reference`, or None for the base image alone (bicubic, or SIFE's).
        upsampled: `lr` enlarged x4 by the caller, (B, 3, 4h, 4w): published data protocols round it to 8 bits first.
            Without it the model enlarges by bicubic interpolation.
        base: the image that is refined, (B, 3, 4h, 4w), instead of the model's own: another network's result.
        """
        height, width = lr.shape[-2:]
        lr, upsampled = self.prepare(lr, upsampled)
        sife, own_base = self.single_image(lr, upsampled)
        if base is None:
            base = own_base
        else:
            right, bottom = (upsampled.shape[side] - base.shape[side] for side in (-1, -2))
            base = F.pad(base, (0, right, 0, bottom), mode="replicate")
            base = base.contiguous(memory_format=self.memory_format)
        if reference is None:
            return SRResult(base[..., : 4 * height, : 4 * width], None, None)
        if not isinstance(reference, ReferenceFeatures):
            reference = self.encode_reference(reference)
        with torch.no_grad():  # an argmax has no gradient; the encoder learns in recipes/train_matching.py
            correspondence = correspond(self.encoder(upsampled), reference.matching, self.config.match_padding)
            if self.config.refine:
                luma = blurred_luma(upsampled)
                flow = refine_flow(correspondence.flow, luma, reference.luma, self.config.refine)
                correspondence = correspondence._replace(flow=flow)
        textures = Textures(correspondence, reference.pyramid, sife, base)

        if self.reuse_aggregation is None:
            features = self.aggregation(textures)
            image = self.aggregation.reconstruct(features, textures)
        else:
            image, features = reuse_features(self.aggregation, self.reuse_aggregation, textures)
        return SRResult(image[..., : 4 * height, : 4 * width], features[..., : 4 * height, : 4 * width], correspondence)

    def encode_reference(self, reference: Tensor) -> ReferenceFeatures:
        """Image (B, 3, H, W), RGB in [0, 1] -> ReferenceFeatures. Borders are replicated to a multiple of 4."""
        height, width = reference.shape[-2:]
        bottom, right = (max(side + -side % 4, 12) - side for side in (height, width))
        reference = F.pad(reference, (0, right, 0, bottom), mode="replicate").contiguous(
            memory_format=self.memory_format
        )
        with torch.no_grad():
            matching = (self.encoder if self.reference_encoder is None else self.reference_encoder)(reference)
        luma = blurred_luma(reference) if self.config.refine else None
        return ReferenceFeatures(matching, self.pyramid(reference), luma)

    def single_image(self, lr: Tensor, upsampled: Tensor) -> tuple[Tensor | None, Tensor]:
        """What is known without a reference: F_sife (eq. 14), and the base image that is to be refined."""
        sife = None if self.sife is None else self.sife(lr)
        if self.config.base == "sife":
            return sife, upsampled + self.sife.image_head(sife)
        if self.config.base == "bilinear":
            return sife, F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        return sife, upsampled

    def prepare(self, lr: Tensor, upsampled: Tensor | None) -> tuple[Tensor, Tensor]:
        """Enlarge if the caller has not; replicate borders up to the 3x3 pixels that a patch needs."""
        if upsampled is None:
            # antialias selects the same cubic kernel (a = -0.5) that Pillow and MATLAB use; it has no half form on CPU.
            wide = lr.to(torch.promote_types(lr.dtype, torch.float32))
            upsampled = F.interpolate(wide, scale_factor=4, mode="bicubic", antialias=True, align_corners=False)
            upsampled = upsampled.clamp(0, 1).to(lr.dtype)
        bottom, right = (max(3 - side, 0) for side in lr.shape[-2:])
        if bottom or right:
            lr = F.pad(lr, (0, right, 0, bottom), mode="replicate")
            upsampled = F.pad(upsampled, (0, 4 * right, 0, 4 * bottom), mode="replicate")
        return tuple(image.contiguous(memory_format=self.memory_format) for image in (lr, upsampled))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options) -> "FRFSR":
        """Load weights that come with the package ("frfsr-tiny"), from a folder, or from the Hub by id.

        Needs config.json and model.safetensors; nothing is unpickled. Raises UserError when they are not found or do
        not fit each other.
        """
        packaged = PACKAGED_WEIGHTS / str(name_or_path)
        source = packaged if packaged.is_dir() else Path(name_or_path)
        is_hub_id = str(name_or_path).count("/") == 1 and not str(name_or_path).startswith((".", "/", "~"))
        if not source.is_dir() and not is_hub_id:
            raise UserError(
                f"no model {str(name_or_path)!r}: give a packaged name ({packaged_names()}), a folder or a Hub id."
            )
        try:
            with redirect_stdout(None):  # the base class announces on stdout where it loads from
                return super().from_pretrained(
                    str(source) if source.is_dir() else str(name_or_path), strict=True, **options
                )
        except UserError as error:
            raise UserError(f"config.json of {str(name_or_path)!r}: {error}") from error
        except Exception as error:
            raise UserError(
                f"no usable weights at {str(name_or_path)!r} ({' '.join(str(error).split())[:200]}): give a "
                f"packaged name ({packaged_names()}), a folder with config.json and model.safetensors, or a Hub id."
            ) from error

    @classmethod
    def _decode_arg(cls, expected_type: type, value: Any) -> Any:
        """Make the configuration of config.json's content; the base class would drop keys that it does not know."""
        if expected_type is FRFSRConfig:
            return from_mapping(FRFSRConfig, value)
        return super()._decode_arg(expected_type, value)


def packaged_names() -> str:
    """Names of the weights inside the package, comma-separated."""
    return ", ".join(sorted(folder.name for folder in PACKAGED_WEIGHTS.glob("*/"))) or "none"
