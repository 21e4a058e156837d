"""The anatomy of published checkpoints: the names of their modules, and the sizes that their shapes tell.

`*_names` map the path of our module to that of the published one; for a parameter the longest path that fits counts.
"""

from typing import Any

from frfsr.states import Names, State, count, size

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
VGG_UNUSED = ("vgg.vgg_net.", "net.", "features.", "classifier.")

# ESRGAN under the names of mmsr, then of its release of 2018; those of BasicSR and MMagic are ours.
MMSR_ESRGAN = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
OLD_ESRGAN = {
    "conv_first": "model.0",
    "conv_up1": "model.3",
    "conv_up2": "model.6",
    "conv_hr": "model.8",
    "conv_last": "model.10",
}

# ESRGAN's upsampling, which SIFE lacks, under all of these names.
ESRGAN_UPSAMPLING = (
    *("conv_up1.", "conv_up2.", "conv_hr.", "conv_last.", "upconv1.", "upconv2.", "HRconv."),
    *("model.3.", "model.6.", "model.8.", "model.10."),
)


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
    large, medium, small = (size(state, f"{prefix}.{name}.weight") for name in ("conv1_1", "conv2_1", "conv3_1"))
    return large, medium, small


def vgg_names(state: State) -> Names:
    """ReferencePyramid -> VGG19 under torchvision's names, those of SRNTT's port, or else VGGFeatureExtractor's."""
    if "features.0.weight" in state:
        return {ours: f"features.{n}" for ours, n in TORCHVISION_VGG.items()}
    prefix = "net" if "net.conv1_1.weight" in state else "vgg.vgg_net"
    return {ours: f"{prefix}.{ours}" for ours in TORCHVISION_VGG}


def rrdb_names(state: State) -> Names:
    """SIFE and ESRGAN's upsampling -> RRDBNet; ESRGAN's earlier releases have other names than ours."""
    dense = [(b, n) for b in range(_rrdb_blocks(state)) for n in (1, 2, 3)]
    if "trunk_conv.weight" in state:
        return MMSR_ESRGAN | {f"body.{b}.rdb{n}": f"RRDB_trunk.{b}.RDB{n}" for b, n in dense}
    if "model.0.weight" in state:
        trunk = "model.1.sub"
        convolutions = {
            f"body.{b}.rdb{n}.conv{c}": f"{trunk}.{b}.RDB{n}.conv{c}.0" for b, n in dense for c in range(1, 6)
        }
        return OLD_ESRGAN | {"conv_body": f"{trunk}.{_rrdb_blocks(state)}"} | convolutions
    return {}


def rrdb_sizes(state: State) -> dict[str, int]:
    """Features, blocks and growth of an RRDBNet."""
    if "trunk_conv.weight" in state:
        first, dense = "conv_first", "RRDB_trunk.0.RDB1.conv1"
    elif "model.0.weight" in state:
        first, dense = "model.0", "model.1.sub.0.RDB1.conv1.0"
    else:
        first, dense = "conv_first", "body.0.rdb1.conv1"
    return dict(
        features=size(state, f"{first}.weight"), blocks=_rrdb_blocks(state), growth=size(state, f"{dense}.weight")
    )


def _rrdb_blocks(state: State) -> int:
    if "model.0.weight" in state:
        return count(state, "model.1.sub.") - 1  # the last one is the convolution after the trunk
    return count(state, "RRDB_trunk." if "trunk_conv.weight" in state else "body.")
