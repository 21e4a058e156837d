"""The anatomy of published checkpoints: the names of their modules, and the sizes that their shapes tell.

`*_names` map the path of our module to that of the published one; for a parameter the longest path that fits counts.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from frfsr.errors import UserError
from frfsr.features import IMAGENET_MEAN, IMAGENET_STD

State = Mapping[str, Tensor]
Names = dict[str, str]

# Our FAM and TAAM of a stage -> the published stage, and the number of its dynamic filters.
STAGES = {
    "down_large": ("down_large", 1),
    "down_medium": ("down_medium", 2),
    "small": ("up_small", 3),
    "up_medium": ("up_medium", 4),
    "up_large": ("up_large", 5),
}

# torchvision numbers the layers of VGG.
TORCHVISION_VGG = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}

# A VGG checkpoint may also have its deeper layers.
VGG_UNUSED = ("vgg.vgg_net.", "features.", "classifier.")

# ESRGAN's first release; the names of its later ones are ours.
OLD_ESRGAN = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}

# ESRGAN's upsampling, which SIFE lacks.
ESRGAN_UPSAMPLING = ("conv_up1.", "conv_up2.", "conv_hr.", "conv_last.", "upconv1.", "upconv2.", "HRconv.")


def unwrap(checkpoint: Mapping[str, Any], what: str) -> State:
    """The tensors of a checkpoint, without its wrappers and the ImageNet constants that our modules have built in.

    Raises UserError if something else than tensors remains, or if the constants are others.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{what} is not a checkpoint of weights but a {type(checkpoint).__name__}.")
    for wrapper in ("params_ema", "params", "state_dict"):
        if wrapper in checkpoint:
            checkpoint = checkpoint[wrapper]
    state = {}
    for key, value in checkpoint.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{what} is not a checkpoint of weights: {key!r} is a {type(value).__name__}.")
        constant = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}.get(key.rpartition(".")[2])
        if constant is None:
            state[key.removeprefix("module.")] = value
        elif value.numel() != 3 or not torch.allclose(value.flatten().float().cpu(), torch.tensor(constant), atol=1e-4):
            raise UserError(f"{what}: {key!r} is not ImageNet's, which the encoder needs.")
    return state


def load_published(module: nn.Module, state: State, names: Names, what: str, unused: tuple[str, ...] = ()) -> None:
    """Copy published weights into our module. unused: prefixes of keys that may be there and are not needed.

    Raises UserError, which names the keys, if one is missing, unknown or of a wrong shape.
    """
    expected = {published_key(key, names): key for key in module.state_dict()}
    shapes = {theirs: module.state_dict()[ours].shape for theirs, ours in expected.items()}
    problems = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected and not key.startswith(unused)],
        "of another shape": [key for key in expected if key in state and state[key].shape != shapes[key]],
    }
    for problem, keys in problems.items():
        if keys:
            listed = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
            raise UserError(f"not a checkpoint of this architecture ({what}): {problem}: {listed}.")
    module.load_state_dict({ours: state[theirs] for theirs, ours in expected.items()})


def published_key(key: str, names: Names) -> str:
    """The published name of our parameter `key`."""
    path = key
    while path and path not in names:
        path = path.rpartition(".")[0]
    return names[path] + key[len(path) :] if path else key


def size(state: State, key: str) -> int:
    """Output channels of the weight `key`."""
    if key not in state:
        raise UserError(f"not a checkpoint of this architecture: it lacks {key!r}.")
    return state[key].shape[0]


def count(state: State, prefix: str) -> int:
    """Number of the modules `prefix`0, `prefix`1, ..."""
    return len({key[len(prefix) :].partition(".")[0] for key in state if key.startswith(prefix)})


def aggregation_names(dynamic_blocks: tuple[int, int, int], blocks: tuple[int, int, int], sife: bool) -> Names:
    """MultiScaleAggregation -> SwinUnetv3RestorationNet (with SIFE) or TextureNet (with feature reuse)."""
    names = {
        "head": "unet_head",
        "down_large": "down_tail_large",
        "down_medium": "down_tail_medium",
        "up_small": "up_tail_small",
        "up_medium": "up_tail_medium",
        "tail": "up_tail_large",
    }
    if sife:
        names["taam_small.fusion"] = "high_q_conv1"
    else:
        names |= {"taam_down_large.fusion": "high_q_conv1", "taam_up_large.fusion": "high_q_conv2"}
    for stage, (published, number) in STAGES.items():
        direction, scale = published.split("_")
        level = ("large", "medium", "small").index(scale)
        names |= {
            f"fam_{stage}.offset_conv1": f"{published}_offset_conv1",
            f"fam_{stage}.offset_conv2": f"{published}_offset_conv2",
            f"fam_{stage}.offset_mask": f"{published}_dyn_agg.conv_offset_mask",
            f"fam_{stage}": f"{published}_dyn_agg",
            f"taam_{stage}.conv": f"{direction}_head_{scale}.0",
        }
        for n in range(dynamic_blocks[level]):
            for i in (1, 2):
                dfm, ddf = f"taam_{stage}.drb.{n}.filter{i}", f"ddf_block_{number}.{n}.conv{i}"
                names |= {
                    f"{dfm}.spatial": f"{ddf}.spatial_branch.0",
                    f"{dfm}.channel.0": f"{ddf}.channel_branch.1",
                    f"{dfm}.channel.2": f"{ddf}.channel_branch.3",
                }
        for n in range(blocks[level]):
            block, body = f"taam_{stage}.drb.{dynamic_blocks[level] + n}", f"{direction}_body_{scale}.{n}"
            names |= {block: body, f"{block}.esa": f"{body}.ESA"}
    return {ours: f"dyn_agg_restore.{published}" for ours, published in names.items()}


def aggregation_sizes(state: State) -> dict[str, Any]:
    """Fields of FRFSRConfig that a SwinUnetv3RestorationNet or TextureNet tells."""
    state = {key.removeprefix("dyn_agg_restore."): tensor for key, tensor in state.items()}
    stages = (("down_large", 1), ("down_medium", 2), ("up_small", 3))
    return dict(
        texture_channels=tuple(size(state, f"{stage}_dyn_agg.weight") for stage, _ in stages),
        groups=size(state, "down_large_dyn_agg.conv_offset_mask.weight") // (3 * 9),
        channels=tuple(size(state, f"{name}.weight") for name in ("unet_head", "down_tail_large", "down_tail_medium")),
        dynamic_blocks=tuple(count(state, f"ddf_block_{number}.") for _, number in stages),
        blocks=tuple(count(state, f"{stage.replace('_', '_body_')}.") for stage, _ in stages),
    )


def extractor_names() -> Names:
    """The two TextureEncoders -> ContrasExtractorSep."""
    return {
        "encoder": "feature_extraction_image1.model",
        "reference_encoder": "feature_extraction_image2.model",
    }


def extractor_sizes(state: State) -> tuple[int, int, int]:
    """Widths of the encoder's three stages."""
    prefix = "feature_extraction_image1.model"
    return tuple(size(state, f"{prefix}.{name}.weight") for name in ("conv1_1", "conv2_1", "conv3_1"))


def vgg_names(state: State) -> Names:
    """ReferencePyramid -> VGGFeatureExtractor, or torchvision's VGG19 if the checkpoint has its names."""
    torchvision = "features.0.weight" in state
    return {ours: f"features.{n}" if torchvision else f"vgg.vgg_net.{ours}" for ours, n in TORCHVISION_VGG.items()}


def rrdb_names(state: State) -> Names:
    """SIFE and ESRGAN's upsampling -> RRDBNet; only ESRGAN's first release has other names than ours."""
    if "trunk_conv.weight" not in state:
        return {}
    blocks = range(count(state, "RRDB_trunk."))
    return OLD_ESRGAN | {f"body.{b}.rdb{n}": f"RRDB_trunk.{b}.RDB{n}" for b in blocks for n in (1, 2, 3)}


def rrdb_sizes(state: State) -> dict[str, int]:
    """Arguments of SIFE."""
    old = "trunk_conv.weight" in state
    body, first = ("RRDB_trunk.", "RRDB_trunk.0.RDB1") if old else ("body.", "body.0.rdb1")
    return dict(
        features=size(state, "conv_first.weight"),
        blocks=count(state, body),
        growth=size(state, f"{first}.conv1.weight"),
    )
