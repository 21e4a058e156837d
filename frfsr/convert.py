"""Published checkpoints -> modules of this package, and the folders that `frfsr convert` writes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file
from torch import Tensor, nn

from frfsr import published
from frfsr.config import FRFSRConfig
from frfsr.errors import UserError
from frfsr.features import SIFE, TextureEncoder
from frfsr.matching import Correspondence
from frfsr.model import FRFSR
from frfsr.published import Names, load_published, unwrap
from frfsr.unet import MultiScaleAggregation, Textures

ARCHITECTURES = ("frfsr", "frfsr-reuse", "extractor", "rrdb")
FRFSR_PARTS = ("net_g", "extractor", "vgg", "rrdb")


class Extractor(nn.Module, PyTorchModelHubMixin, library_name="frfsr"):
    """The published texture encoder (ContrasExtractorSep), which has a set of weights for either image."""

    def __init__(self, channels: tuple[int, int, int]):
        super().__init__()
        self.encoder = TextureEncoder(channels)
        self.reference_encoder = TextureEncoder(channels)

    def forward(self, image1: Tensor, image2: Tensor) -> dict[str, Tensor]:
        """Enlarged LR image and reference, (B, 3, 4h, 4w) of any two sizes, RGB in [0, 1] -> their texture features.

        {"dense_features1": (B, C, h, w), "dense_features2": (B, C, hr, wr)}, as the published code names them.
        """
        return {"dense_features1": self.encoder(image1), "dense_features2": self.reference_encoder(image2)}


class RRDBNet(SIFE, PyTorchModelHubMixin, library_name="frfsr"):
    """ESRGAN's network. Its forward is SIFE's (eq. 14): LR (B, 3, h, w), RGB in [0, 1] -> features (B, C, h, w)."""

    def __init__(self, features: int, blocks: int, growth: int):
        super().__init__(features, blocks, growth)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def image(self, lr: Tensor) -> Tensor:
        """ESRGAN's own super-resolved image (B, 3, 4h, 4w), not clamped."""
        x = self(lr)
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


class ReuseNetwork(nn.Module, PyTorchModelHubMixin, library_name="frfsr"):
    """RefSR (2) of figure 1 as published, on its own (TextureNet): it has no SIFE, and its result remains a feature."""

    def __init__(self, config: FRFSRConfig):
        super().__init__()
        self.config = config
        self.aggregation = MultiScaleAggregation(config, sife=False, reuse=True)

    def forward(
        self, lr: Tensor, correspondence: Correspondence, pyramid: tuple[Tensor, Tensor, Tensor], reused: Tensor
    ) -> Tensor:
        """LR (B, 3, h, w), RGB in [0, 1], and F_rec (B, C, 4h, 4w) -> F_SR (B, C, 4h, 4w), eq. 18.

        correspondence: as `frfsr.matching.correspond` gives it; pyramid: F_Ref at strides 1, 2 and 4 of the reference.
        """
        base = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
        return self.aggregation(Textures(correspondence, pyramid, None, base), reused)


def from_published(state_dict: Mapping[str, Any], arch: str) -> nn.Module:
    """The module of a published architecture with the weights of its checkpoint, in evaluation mode.

    | arch        | state_dict                                                | result         |
    |-------------|-----------------------------------------------------------|----------------|
    | frfsr       | {"net_g": ..., "extractor": ..., "vgg": ..., "rrdb": ...} | `FRFSR`        |
    | frfsr-reuse | TextureNet                                                | `ReuseNetwork` |
    | extractor   | ContrasExtractorSep                                       | `Extractor`    |
    | rrdb        | RRDBNet, under the names of any ESRGAN release            | `RRDBNet`      |

    Sizes and numbers of blocks are read from the shapes. Every state dict may be wrapped as checkpoint files are
    ("params", "state_dict", "module."); "vgg" is VGG19 under the published names or torchvision's.

    Raises UserError, which names the keys, if one is missing, unknown or of a wrong shape.
    """
    if arch not in ARCHITECTURES:
        raise UserError(f"unknown architecture {arch!r}: use {', '.join(ARCHITECTURES)}.")
    if arch == "frfsr":
        return _complete_model(state_dict).eval()
    state = unwrap(state_dict, arch)
    if arch == "extractor":
        module = Extractor(published.extractor_sizes(state))
        load_published(module, state, published.extractor_names(), arch)
    elif arch == "rrdb":
        module = RRDBNet(**published.rrdb_sizes(state))
        load_published(module, state, published.rrdb_names(state), arch)
    else:
        module = ReuseNetwork(FRFSRConfig.published(sife=False, **published.aggregation_sizes(state)))
        load_published(module.aggregation, state, _aggregation_names(module.config), arch)
    return module.eval()


def _complete_model(state_dicts: Mapping[str, Any]) -> FRFSR:
    if set(state_dicts) != set(FRFSR_PARTS):
        raise UserError(f"frfsr needs the parts {', '.join(FRFSR_PARTS)}; got {', '.join(state_dicts) or 'none'}.")
    parts = {part: unwrap(state, part) for part, state in state_dicts.items()}
    net_g, extractor, vgg, rrdb = (parts[part] for part in FRFSR_PARTS)
    config = FRFSRConfig.published(
        encoder_channels=published.extractor_sizes(extractor),
        **{f"sife_{name}": value for name, value in published.rrdb_sizes(rrdb).items()},
        **published.aggregation_sizes(net_g),
    )
    model = FRFSR(config)
    encoders = nn.ModuleDict({"encoder": model.encoder, "reference_encoder": model.reference_encoder})
    load_published(model.aggregation, net_g, _aggregation_names(config), "net_g")
    load_published(encoders, extractor, published.extractor_names(), "extractor")
    load_published(model.pyramid, vgg, published.vgg_names(vgg), "vgg", unused=published.VGG_UNUSED)
    load_published(model.sife, rrdb, published.rrdb_names(rrdb), "rrdb", unused=published.ESRGAN_UPSAMPLING)
    return model


def _aggregation_names(config: FRFSRConfig) -> Names:
    return published.aggregation_names(config.dynamic_blocks, config.blocks, config.sife)


def convert_files(checkpoints: Sequence[str], output: str | Path, arch: str) -> None:
    """Write config.json and model.safetensors of published checkpoints, for the result class's `from_pretrained`.

    checkpoints: a .pth or .safetensors file; for frfsr one `part=file` for each of net_g, extractor, vgg and rrdb.
    output: a folder, made if it does not exist. Nothing is written before everything has been read and found to fit.

    Raises UserError for files that cannot be read or do not fit the architecture, and for an unwritable folder.
    """
    if arch == "frfsr":
        files = dict(checkpoint.split("=", 1) for checkpoint in checkpoints if "=" in checkpoint)
        if len(files) != len(checkpoints):
            raise UserError(f"frfsr needs files as {' '.join(f'{part}=FILE' for part in FRFSR_PARTS)}.")
        state_dict = {part: read_checkpoint(file) for part, file in files.items()}
    elif len(checkpoints) == 1:
        state_dict = read_checkpoint(checkpoints[0])
    else:
        raise UserError(f"{arch} needs one checkpoint, got {len(checkpoints)}.")
    module = from_published(state_dict, arch)
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".convert-", dir=output) as unfinished:
            module.save_pretrained(unfinished)
            for name in sorted(os.listdir(unfinished)):
                os.replace(Path(unfinished, name), Path(output, name))
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}.") from error


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Content of a .safetensors or .pth file; of the latter only tensors and plain containers are unpickled.

    Raises UserError if the file is missing or is neither.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}.") from error
    except Exception as error:  # unpickling something else than a checkpoint can fail in any way
        raise UserError(f"{path} is not a checkpoint: give a .pth or .safetensors file of weights.") from error
