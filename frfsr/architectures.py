"""The one list of architectures: name -> network, where it was published, and how its checkpoints become ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frfsr import names, parts
from frfsr.checkpoints import HubOptions, find_model, read_config
from frfsr.errors import UserError
from frfsr.model import FRFSR
from frfsr.network import Network
from frfsr.peers import (
    c2_matching,
    crossnet,
    datsr,
    masa,
    matched,
    single_image,
    srntt,
    srntt_tf,
    ssen,
    ttsr,
    wtrn,
)
from frfsr.settings import shortened
from frfsr.stored import StoredModule

DTYPES = {name: getattr(torch, name) for name in names.DTYPES}


@dataclass(frozen=True)
class Architecture:
    """A published network, or a part of one.

    Attributes:
        module: its class; a `Network` unless it is only a part.
        title: its name in the literature.
        paper: first author, venue and year.
        code: repository of the published code.
        licence: of that code and its weights, as stated there.
        weights: where its weights are usually found.
        from_published: checkpoint (for several `checkpoint_parts`, a mapping of them) -> the module.
        checkpoint_parts: names of the files that make one network; empty for a single file.
    """

    module: type[StoredModule]
    title: str
    paper: str
    code: str
    licence: str
    weights: str
    from_published: Callable[[Mapping[str, Any]], StoredModule]
    checkpoint_parts: tuple[str, ...] = ()

    @property
    def needs(self) -> str:
        """What it super-resolves with: a reference, several, none; or that it is a part."""
        if not issubclass(self.module, Network):
            return "a part, makes no image"
        return {None: "LR and references", 0: "LR"}.get(self.module.max_references, "LR and one reference")


FRFSR_CODE: dict[str, Any] = dict(
    paper="Mei, arXiv 2306.01500, 2023",
    code="github.com/Yi-Yang355/FRFSR",
    licence="none stated",
    weights="releases of the authors' repository",
)

ARCHITECTURES: dict[str, Architecture] = {
    "frfsr": Architecture(
        FRFSR,
        "FRFSR",
        from_published=parts.frfsr_from_published,
        checkpoint_parts=parts.FRFSR_PARTS,
        **FRFSR_CODE,
    ),
    "frfsr-reuse": Architecture(
        parts.ReuseNetwork, "FRFSR, second network", from_published=parts.reuse_from_published, **FRFSR_CODE
    ),
    "extractor": Architecture(
        parts.Extractor, "Contrastive texture encoder", from_published=parts.extractor_from_published, **FRFSR_CODE
    ),
    "rrdb": Architecture(
        parts.RRDBNet,
        "RRDB, ESRGAN",
        paper="Wang, ECCVW 2018",
        code="github.com/xinntao/ESRGAN",
        licence="Apache-2.0",
        weights="RRDB_PSNR_x4.pth among its releases",
        from_published=parts.rrdb_from_published,
    ),
    "c2-matching": Architecture(
        c2_matching.C2Matching,
        "C2-Matching",
        paper="Jiang, CVPR 2021",
        code="github.com/yumingj/C2-Matching",
        licence="MIT",
        weights="its README; VGG19 from torchvision",
        from_published=c2_matching.from_published,
        checkpoint_parts=matched.PARTS,
    ),
    "masa": Architecture(
        masa.MASA,
        "MASA",
        paper="Lu, CVPR 2021",
        code="github.com/dvlab-research/MASA-SR",
        licence="none stated",
        weights="its README (masa_rec.pth, masa.pth)",
        from_published=masa.from_published,
    ),
    "datsr": Architecture(
        datsr.DATSR,
        "DATSR",
        paper="Cao, ECCV 2022",
        code="github.com/caojiezhang/DATSR",
        licence="CC BY-NC 4.0",
        weights="its README (restoration_mse.pth, feature_extraction.pth); VGG19 from torchvision",
        from_published=datsr.from_published,
        checkpoint_parts=matched.PARTS,
    ),
    "ttsr": Architecture(
        ttsr.TTSR,
        "TTSR",
        paper="Yang, CVPR 2020",
        code="github.com/researchmm/TTSR",
        licence="MIT",
        weights="its README (TTSR.pt, TTSR-rec.pt)",
        from_published=ttsr.from_published,
    ),
    "wtrn": Architecture(
        wtrn.WTRN,
        "WTRN",
        paper="Li, IEEE TIP 2022",
        code="github.com/zskuang58/WTRN-TIP",
        licence="MIT",
        weights="none published",
        from_published=wtrn.from_published,
    ),
    "srntt": Architecture(
        srntt.SRNTT,
        "SRNTT, PyTorch port",
        paper="Zhang, CVPR 2019",
        code="github.com/S-aiueo32/srntt-pytorch",
        licence="Apache-2.0",
        weights="none known; VGG19 from torchvision",
        from_published=srntt.from_published,
        checkpoint_parts=srntt.PARTS,
    ),
    "srntt-tf": Architecture(
        srntt_tf.SRNTTTensorFlow,
        "SRNTT, original",
        paper="Zhang, CVPR 2019",
        code="github.com/ZZUTK/SRNTT",
        licence="not looked up",
        weights="its README; arrays without names, to be named as ours first",
        from_published=srntt_tf.from_published,
        checkpoint_parts=srntt.PARTS,
    ),
    "crossnet": Architecture(
        crossnet.CrossNet,
        "CrossNet",
        paper="Zheng, ECCV 2018",
        code="github.com/htzheng/ECCV2018_CrossNet_RefSR",
        licence="none stated",
        weights="none published",
        from_published=crossnet.from_published,
    ),
    "ssen": Architecture(
        ssen.SSEN,
        "SSEN, after an unofficial implementation",
        paper="Shim, CVPR 2020",
        code="github.com/Slime0519/CVPR_2020_SSEN",
        licence="none stated",
        weights="none published",
        from_published=ssen.from_published,
    ),
    "srcnn": Architecture(
        single_image.SRCNN,
        "SRCNN",
        paper="Dong, ECCV 2014",
        code="github.com/yjn870/SRCNN-pytorch",
        licence="none stated",
        weights="its README",
        from_published=single_image.SRCNN.from_published,
    ),
    "edsr": Architecture(
        single_image.EDSR,
        "EDSR",
        paper="Lim, CVPRW 2017",
        code="github.com/XPixelGroup/BasicSR, github.com/sanghyun-son/EDSR-PyTorch",
        licence="Apache-2.0, MIT",
        weights="BasicSR's model zoo",
        from_published=single_image.EDSR.from_published,
    ),
    "srresnet": Architecture(
        single_image.SRResNet,
        "SRResNet, SRGAN",
        paper="Ledig, CVPR 2017",
        code="github.com/XPixelGroup/BasicSR",
        licence="Apache-2.0",
        weights="BasicSR's model zoo (MSRResNet)",
        from_published=single_image.SRResNet.from_published,
    ),
    "ranksrgan": Architecture(
        single_image.RankSRGAN,
        "RankSRGAN",
        paper="Zhang, ICCV 2019",
        code="github.com/XPixelGroup/RankSRGAN",
        licence="none stated",
        weights="its README (mmsr_RankSRGAN_*.pth)",
        from_published=single_image.RankSRGAN.from_published,
    ),
    "enhancenet": Architecture(
        single_image.EnhanceNet,
        "EnhanceNet",
        paper="Sajjadi, ICCV 2017",
        code="github.com/msmsajjadi/EnhanceNet-Code",
        licence="CC BY-NC-ND 4.0",
        weights="in its repository, for TensorFlow",
        from_published=single_image.EnhanceNet.from_published,
    ),
}


def find_architecture(name: str) -> Architecture:
    """Look an architecture up.

    Args:
        name: key of `ARCHITECTURES`.

    Returns:
        Its entry.

    Raises:
        UserError: there is none; it lists the names.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UserError(f"unknown architecture {shortened(name)}: use {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def load(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | None = None, **hub: Any
) -> Network:
    """Load a network of any architecture, ready for inference.

    Args:
        name_or_path: a packaged name, a folder with config.json and model.safetensors, or a Hub id.
        device: as torch names it; by default a CUDA GPU if there is one, else the CPU.
        dtype: float32 (default), bfloat16 or float16.
        **hub: fields of `frfsr.checkpoints.HubOptions`: revision, token, cache_dir, subfolder, local_files_only.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: there is no such model, device or dtype; or the model is only a part of a network.

    Examples:
        >>> import frfsr
        >>> model = frfsr.load("frfsr-tiny", device="cpu")
        >>> model.architecture, model.scale, model.training
        ('frfsr', 4, False)
        >>> frfsr.load("OWNER/NAME", revision="v1")  # doctest: +SKIP
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    device = usable_device(device)
    files = find_model(name_or_path, HubOptions(**hub))
    architecture, values = read_config(files)
    module = find_architecture(architecture).module
    if not issubclass(module, Network):
        raise UserError(f"{files.label} holds {architecture}, a part of a network, which makes no image by itself.")
    return module.from_files(files, values).to(device, DTYPES[dtype or "float32"])


def usable_device(device: str | torch.device | None) -> torch.device:
    """Find a device where something can be computed.

    Args:
        device: its name; None for the default one (see `load`).

    Returns:
        The device.

    Raises:
        UserError: nothing can be computed there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    names.require_device_name(str(device))
    try:
        torch.zeros(1, device=device).add(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(f"no device {str(device)!r} here ({reason[:120]}): give another, or none.") from error
    return torch.device(device)
