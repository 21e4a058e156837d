"""What was published of every network, by its architecture's name: known without loading torch."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Publication:
    """Where a network, or a part of one, comes from.

    Attributes:
        title: its name in the literature.
        paper: first author, venue and year.
        code: repository of the published code; several with commas between.
        licence: of that code and its weights, as stated there.
        weights: where its weights are usually found.
    """

    title: str
    paper: str
    code: str
    licence: str
    weights: str


class Needs(StrEnum):
    """What a network super-resolves with."""

    REFERENCES = "LR and references"
    REFERENCE = "LR and one reference"
    NO_REFERENCE = "LR"
    PART = "a part, makes no image"


PUBLICATIONS = {
    "frfsr": Publication(
        title="FRFSR",
        paper="Mei, arXiv 2306.01500, 2023",
        code="github.com/Yi-Yang355/FRFSR",
        licence="none stated",
        weights="releases of the authors' repository",
    ),
    "frfsr-reuse": Publication(
        title="FRFSR, second network",
        paper="Mei, arXiv 2306.01500, 2023",
        code="github.com/Yi-Yang355/FRFSR",
        licence="none stated",
        weights="releases of the authors' repository",
    ),
    "extractor": Publication(
        title="Contrastive texture encoder",
        paper="Mei, arXiv 2306.01500, 2023",
        code="github.com/Yi-Yang355/FRFSR",
        licence="none stated",
        weights="releases of the authors' repository",
    ),
    "rrdb": Publication(
        title="RRDB, ESRGAN",
        paper="Wang, ECCVW 2018",
        code="github.com/xinntao/ESRGAN",
        licence="Apache-2.0",
        weights="RRDB_PSNR_x4.pth among its releases",
    ),
    "c2-matching": Publication(
        title="C2-Matching",
        paper="Jiang, CVPR 2021",
        code="github.com/yumingj/C2-Matching",
        licence="MIT",
        weights="its README; VGG19 from torchvision",
    ),
    "masa": Publication(
        title="MASA",
        paper="Lu, CVPR 2021",
        code="github.com/dvlab-research/MASA-SR",
        licence="none stated",
        weights="its README (masa_rec.pth, masa.pth)",
    ),
    "datsr": Publication(
        title="DATSR",
        paper="Cao, ECCV 2022",
        code="github.com/caojiezhang/DATSR",
        licence="CC BY-NC 4.0",
        weights="its README (restoration_mse.pth, feature_extraction.pth); VGG19 from torchvision",
    ),
    "ttsr": Publication(
        title="TTSR",
        paper="Yang, CVPR 2020",
        code="github.com/researchmm/TTSR",
        licence="MIT",
        weights="its README (TTSR.pt, TTSR-rec.pt)",
    ),
    "wtrn": Publication(
        title="WTRN",
        paper="Li, IEEE TIP 2022",
        code="github.com/zskuang58/WTRN-TIP",
        licence="MIT",
        weights="none published",
    ),
    "srntt": Publication(
        title="SRNTT, PyTorch port",
        paper="Zhang, CVPR 2019",
        code="github.com/S-aiueo32/srntt-pytorch",
        licence="Apache-2.0",
        weights="none known; VGG19 from torchvision",
    ),
    "srntt-tf": Publication(
        title="SRNTT, original",
        paper="Zhang, CVPR 2019",
        code="github.com/ZZUTK/SRNTT",
        licence="not looked up",
        weights="its README; arrays without names, to be named as ours first",
    ),
    "crossnet": Publication(
        title="CrossNet",
        paper="Zheng, ECCV 2018",
        code="github.com/htzheng/ECCV2018_CrossNet_RefSR",
        licence="none stated",
        weights="none published",
    ),
    "ssen": Publication(
        title="SSEN, after an unofficial implementation",
        paper="Shim, CVPR 2020",
        code="github.com/Slime0519/CVPR_2020_SSEN",
        licence="none stated",
        weights="none published",
    ),
    "srcnn": Publication(
        title="SRCNN",
        paper="Dong, ECCV 2014",
        code="github.com/yjn870/SRCNN-pytorch",
        licence="none stated",
        weights="its README",
    ),
    "edsr": Publication(
        title="EDSR",
        paper="Lim, CVPRW 2017",
        code="github.com/XPixelGroup/BasicSR, github.com/sanghyun-son/EDSR-PyTorch",
        licence="Apache-2.0, MIT",
        weights="BasicSR's model zoo",
    ),
    "ranksrgan": Publication(
        title="RankSRGAN",
        paper="Zhang, ICCV 2019",
        code="github.com/XPixelGroup/RankSRGAN",
        licence="none stated",
        weights="its README (mmsr_RankSRGAN_*.pth)",
    ),
    "srresnet": Publication(
        title="SRResNet, SRGAN",
        paper="Ledig, CVPR 2017",
        code="github.com/XPixelGroup/BasicSR",
        licence="Apache-2.0",
        weights="BasicSR's model zoo (MSRResNet)",
    ),
    "enhancenet": Publication(
        title="EnhanceNet",
        paper="Sajjadi, ICCV 2017",
        code="github.com/msmsajjadi/EnhanceNet-Code",
        licence="CC BY-NC-ND 4.0",
        weights="in its repository, for TensorFlow",
    ),
}
