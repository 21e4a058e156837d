"""FRFSR: `forward` is the paper's figure 1."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frfsr.alignment import alignments, split_offsets
from frfsr.atlas import APART, AROUND, Atlas, lay_out, match, relative
from frfsr.config import FRFSRConfig
from frfsr.errors import UserError
from frfsr.features import SIFE, ReferencePyramid, TextureEncoder
from frfsr.kernels import refine_flow
from frfsr.matching import blurred_luma, similarity
from frfsr.network import Correspondence, Network, Rates, ReferenceFeatures, SRResult, enlarge
from frfsr.pixels import pad_sides
from frfsr.reuse import aggregation
from frfsr.smoothing import smooth_flow
from frfsr.unet import MultiScaleAggregation, Textures


class FRFSR(Network):
    """x4 super-resolution of an image with a sharp reference image of similar content.

    Examples:
        >>> import frfsr, torch
        >>> model = frfsr.FRFSR(frfsr.FRFSRConfig.tiny()).eval()  # initial weights; frfsr.load gives trained ones
        >>> lr, reference = torch.rand(1, 3, 12, 16), torch.rand(1, 3, 40, 72)  # RGB in [0, 1], any sizes
        >>> with torch.inference_mode():
        ...     result = model(lr, reference)
        >>> tuple(result.image.shape), tuple(result.correspondence.score.shape)
        ((1, 3, 48, 64), (1, 12, 16))
    """

    architecture, config_class = "frfsr", FRFSRConfig
    min_side = 3  # a patch
    halo, tile_step = 32, 6  # the coarse branch of ESA looks far, every sixth LR pixel
    searches = True
    refines = "base"
    memory_format = torch.channels_last  # several times faster than contiguous on CPU and on tensor cores

    def __init__(self, config: FRFSRConfig):
        super().__init__(config)
        self.encoder = TextureEncoder(config.encoder_channels)
        self.reference_encoder = None if config.shared_encoder else TextureEncoder(config.encoder_channels)
        self.pyramid = ReferencePyramid(config.texture_channels)
        trunk = partial(SIFE, config.sife_features, config.sife_blocks, config.sife_growth)
        self.sife = trunk(image_head=config.base == "sife") if config.sife else None
        self.base = trunk(image_head=True, fed=config.base_fed) if config.base == "own" else None
        self.aggregation = aggregation(
            lambda reuse: MultiScaleAggregation(config, sife=config.sife, reuse=reuse), config.reuse
        )
        self.to(memory_format=self.memory_format)

    def forward(
        self,
        lr: Tensor,
        references: Tensor | ReferenceFeatures | Sequence[ReferenceFeatures] | Atlas | None = None,
        upsampled: Tensor | None = None,
        *,
        base: Tensor | None = None,
    ) -> SRResult:
        """Super-resolve; see `Network.forward`.

        Args:
            lr: (B, 3, h, w), RGB in [0, 1], of any size.
            references: an image (B, 3, H, W), results of `encode_reference`, laid out by `frfsr.atlas.lay_out` or not,
                or None for the base image alone.
            upsampled: `lr` enlarged x4 by the caller.
            base: the image (B, 3, 4h, 4w) that is to be refined, of any other x4 network; by default the one of
                `FRFSRConfig.base`.

        Returns:
            The image (B, 3, 4h, 4w), not clamped, F_rec and what was matched.

        Raises:
            UserError: an image is not four times the size of `lr`.
        """
        height, width = lr.shape[-2:]
        for name, image in (("upsampled", upsampled), ("base", base)):
            if image is not None and image.shape != (*lr.shape[:2], 4 * height, 4 * width):
                raise UserError(
                    f"{name} has the shape {tuple(image.shape)}: it must be four times as large as the LR image, "
                    f"{tuple(lr.shape)}."
                )
        lr, upsampled, base = self.prepare(lr, upsampled, base)
        sife, base = self.single_image(lr, upsampled, base)
        if references is None:
            return SRResult(base[..., : 4 * height, : 4 * width])
        if isinstance(references, Tensor):
            references = self.encode_reference(references)
        atlas = lay_out(references)
        with torch.no_grad():  # an argmax has no gradient; the encoder learns in recipes/train_matching.py
            found = match(self.encoder(upsampled), atlas, self.config.match_padding)
            flow = found.flow
            if atlas.luma is not None:
                flow = refine_flow(
                    flow, blurred_luma(upsampled), atlas.luma, self.config.refine, similarity(flow, APART, AROUND)
                )
            smooth = smooth_flow(flow) if self.config.flow == "smooth" else None
            # torch 2.11 compiles no _replace
            correspondence = Correspondence(found.score, flow, found.index, found.source, found.still, smooth)
        textures = Textures(correspondence, atlas.pyramid, sife, base)
        features = self.aggregation(textures)
        image = self.aggregation.reconstruct(features, textures)
        image, features = (result[..., : 4 * height, : 4 * width] for result in (image, features))
        return SRResult(image, features, relative(correspondence, atlas))

    def encode_reference(self, reference: Tensor) -> ReferenceFeatures:
        """Image (B, 3, H, W), RGB in [0, 1] -> ReferenceFeatures. Borders are replicated to a multiple of 4."""
        reference = pad_sides(reference, 12, 4).contiguous(memory_format=self.memory_format)
        with torch.no_grad():
            matching = (self.encoder if self.reference_encoder is None else self.reference_encoder)(reference)
        luma = blurred_luma(reference) if self.config.refine else None
        return ReferenceFeatures(matching, self.pyramid(reference), luma)

    def single_image(self, lr: Tensor, upsampled: Tensor, base: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """What is known without a reference: F_sife (eq. 14), and the base image that is to be refined."""
        sife = None if self.sife is None else self.sife(lr)
        if base is not None:
            return sife, base
        if self.base is not None:
            return sife, self.base.image(self.base(lr, sife), upsampled)
        if self.sife is not None and sife is not None and self.config.base == "sife":
            return sife, self.sife.image(sife, upsampled)
        if self.config.base == "bilinear":
            return sife, F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        return sife, upsampled

    def prepare(
        self, lr: Tensor, upsampled: Tensor | None, base: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Enlarge if the caller has not; replicate borders up to the 3x3 pixels that a patch needs."""
        upsampled = enlarge(lr) if upsampled is None else upsampled
        images = [lr, upsampled] if base is None else [lr, upsampled, base]
        sides = (self.min_side, *[4 * self.min_side] * 2)
        lr, upsampled, *given = (
            pad_sides(image, side, 1).contiguous(memory_format=self.memory_format)
            for image, side in zip(images, sides, strict=False)
        )
        return lr, upsampled, given[0] if given else None

    def parameter_groups(self, rates: Rates) -> list[dict[str, Any]]:
        """Group as published: offset convolutions by scale after all others, then parts with rates of their own."""
        return split_offsets(self, super().parameter_groups(rates), rates)

    def watched(self) -> Iterator[nn.Module]:
        """The convolutions that predict offsets and masks."""
        return (fam.offset_mask for fam in alignments(self))
