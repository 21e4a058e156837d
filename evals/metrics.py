"""Image quality: PSNR and SSIM on luma or colour, and LPIPS, on images as they would be saved (8 bits).

Every function takes the result and the truth as RGB images of one size, each a PIL image, a uint8 array (H, W, 3), or a
float tensor (3, H, W) or (1, 3, H, W) in [0, 1], which is clipped and rounded to 8 bits first, and measures them
without their outermost ``border`` pixels; it raises UserError if they differ in size or are none of these. Luma is the
Y of BT.601 in studio swing (16 to 235), kept as a real number.
"""

import math
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from frfsr.checkpoints import read_checkpoint
from frfsr.errors import UserError
from frfsr.pixels import BT601, to_pixels
from frfsr.states import unwrap

Picture = Image.Image | np.ndarray | torch.Tensor

STUDIO_SWING, STUDIO_BLACK = 219, 16
SSIM_WINDOW = 11
ALEXNET_SMALLEST = 31
NO_SKIMAGE = "SSIM needs scikit-image: pip install 'frfsr[eval]'"


def psnr_y(sr: Picture, hr: Picture, border: int = 4) -> float:
    """Measure the peak signal-to-noise ratio of the luma in dB (peak 255); infinite for equal images.

    Args:
        sr: the result.
        hr: the truth.
        border: pixels left out at each side.

    Returns:
        Decibels.

    Examples:
        >>> import numpy as np
        >>> from frfsr import evals
        >>> truth = np.full((32, 32, 3), 100, np.uint8)
        >>> f"{evals.psnr_y(truth + 2, truth):.2f} dB"
        '43.43 dB'
    """
    return _psnr(*(studio_luma(_inner(image, border)) for image in (sr, hr)))


def psnr_rgb(sr: Picture, hr: Picture, border: int = 4) -> float:
    """Measure the peak signal-to-noise ratio over the three colour channels in dB (peak 255).

    Args:
        sr: the result.
        hr: the truth.
        border: pixels left out at each side.

    Returns:
        Infinite for equal images.

    Examples:
        >>> import numpy as np
        >>> from frfsr import evals
        >>> truth = np.full((32, 32, 3), 100, np.uint8)
        >>> f"{evals.psnr_rgb(truth + 2, truth):.2f} dB"
        '42.11 dB'
    """
    return _psnr(*(_inner(image, border).astype(np.float64) for image in (sr, hr)))


def ssim_y(sr: Picture, hr: Picture, border: int = 4) -> float:
    """Measure the structural similarity of the luma: Gaussian window 11x11, sigma 1.5, where it lies inside the image.

    Args:
        sr: the result.
        hr: the truth.
        border: pixels left out at each side.

    Returns:
        -1 ... 1, 1 for equal images.

    Raises:
        UserError: the images are too small for one window, or differ in size.

    Examples:
        >>> from PIL import Image
        >>> from frfsr import evals
        >>> truth = Image.open("sharp.png")
        >>> f"{evals.ssim_y(truth, truth):.4f}"
        '1.0000'
    """
    return _ssim(*(studio_luma(_inner(image, border)) for image in (sr, hr)))


def ssim_rgb(sr: Picture, hr: Picture, border: int = 4) -> float:
    """Measure `ssim_y` of each colour channel, and average.

    Examples:
        >>> from PIL import Image
        >>> from frfsr import evals
        >>> truth = Image.open("sharp.png")
        >>> f"{evals.ssim_rgb(truth, truth):.4f}"
        '1.0000'
    """
    channels = (rearrange(_inner(image, border).astype(np.float64), "h w c -> c h w") for image in (sr, hr))
    return float(np.mean([_ssim(*pair) for pair in zip(*channels, strict=True)]))


def lpips_alex(sr: Picture, hr: Picture, border: int = 4, alexnet: str | Path | None = None) -> float:
    """Measure the perceptual distance LPIPS v0.1 with AlexNet on RGB in [-1, 1].

    Args:
        sr: the result.
        hr: the truth.
        border: pixels left out at each side.
        alexnet: safetensors file with torchvision's AlexNet convolutions (``features.N.weight``, ``features.N.bias``);
            by default torchvision downloads them once.

    Returns:
        The distance: 0 for equal images, larger is worse.

    Raises:
        UserError: the ``lpips`` package or the AlexNet weights cannot be had, or the images are below 31x31 pixels.

    Examples:
        >>> from PIL import Image
        >>> from frfsr import evals
        >>> evals.lpips_alex(Image.open("out.png"), Image.open("truth.png"))  # doctest: +SKIP
        0.265
    """
    sr, hr = _inner(sr, border), _inner(hr, border)
    _check_sizes(sr, hr, smallest=ALEXNET_SMALLEST)
    batch = torch.from_numpy(np.stack([sr, hr]))
    batch = rearrange(batch, "b h w c -> b c h w").float() / 127.5 - 1
    with torch.inference_mode():
        return float(_lpips_network(alexnet)(batch[:1], batch[1:]))


def require_extras(lpips: bool = False, alexnet: str | Path | None = None) -> None:
    """Find out before the first image whether everything that will be measured can be.

    Args:
        lpips: `lpips_alex` will be called too.
        alexnet: its file of AlexNet.

    Raises:
        UserError: a package or a file is missing.
    """
    if find_spec("skimage") is None:
        raise UserError(NO_SKIMAGE)
    if lpips:
        _lpips_network(alexnet)


def require_size(image: Picture, border: int = 4, lpips: bool = False) -> None:
    """Find out before a result is computed whether it can be measured.

    Args:
        image: the truth.
        border: pixels left out at each side.
        lpips: `lpips_alex` will be called too.

    Raises:
        UserError: too little is left inside the border.
    """
    inner = _inner(image, border)
    _check_sizes(inner, inner, smallest=ALEXNET_SMALLEST if lpips else SSIM_WINDOW)


def studio_luma(image: np.ndarray) -> np.ndarray:
    """Y in [16, 235], float64 (H, W), of an RGB image (H, W, 3) in [0, 255]."""
    return image @ (np.array(BT601) * STUDIO_SWING / 255) + STUDIO_BLACK


def to_uint8(image: Picture) -> np.ndarray:
    """Round any picture of this module to a uint8 array (H, W, 3), as it would be saved.

    Raises:
        UserError: not an RGB image, or floats beyond [0, 1] by more than a network's overshoot.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        image = image.squeeze(0) if image.ndim == 4 else image
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise UserError(f"expected a float tensor (3, H, W) in [0, 1], got {image.dtype} {tuple(image.shape)}")
        if not image.isfinite().all():
            raise UserError("the image has NaN or infinite values")
        if image.numel() and image.abs().max() > 16:
            raise UserError("a float tensor must lie in [0, 1]; divide 8-bit values by 255")
        return to_pixels(image)
    if not isinstance(image, np.ndarray):
        raise UserError(f"expected an image, got a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
    return image


def _inner(image: Picture, border: int) -> np.ndarray:
    """The image without its outermost ``border`` pixels."""
    image = to_uint8(image)
    height, width = image.shape[:2]
    if min(height, width) <= 2 * border:
        raise UserError(f"an image of {width}x{height} pixels has nothing inside a border of {border}")
    return image[border : height - border, border : width - border]


def _check_sizes(sr: np.ndarray, hr: np.ndarray, smallest: int = 1) -> None:
    if min(sr.shape[:2]) < smallest:
        raise UserError(f"needs {smallest}x{smallest} pixels inside the border, got {sr.shape[1]}x{sr.shape[0]}")
    if sr.shape != hr.shape:
        sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (sr, hr))
        raise UserError(f"result and truth differ in size: {sizes} (without borders)")


def _psnr(sr: np.ndarray, hr: np.ndarray) -> float:
    _check_sizes(sr, hr)
    error = np.mean((sr - hr) ** 2)
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def _ssim(sr: np.ndarray, hr: np.ndarray) -> float:
    _check_sizes(sr, hr, smallest=SSIM_WINDOW)
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise UserError(NO_SKIMAGE) from error
    similarity = structural_similarity(
        sr, hr, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(cast(float, similarity))  # the stubs count the maps that were not asked for


@cache
def _lpips_network(alexnet: str | Path | None) -> torch.nn.Module:
    """LPIPS with the linear heads of the ``lpips`` package, on the CPU; kept, since loading takes longer than using."""
    try:
        import lpips
    except ImportError as error:
        raise UserError("LPIPS needs the lpips package: pip install 'frfsr[eval]'") from error
    convolutions = {0: "slice1.0", 3: "slice2.3", 6: "slice3.6", 8: "slice4.8", 10: "slice5.10"}
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # lpips uses a deprecated argument
            network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=alexnet is not None, verbose=False)
        if alexnet is not None:
            weights = unwrap(read_checkpoint(alexnet), str(alexnet))
            network.net.load_state_dict(
                {
                    f"{name}.{kind}": weights[f"features.{n}.{kind}"]
                    for n, name in convolutions.items()
                    for kind in ("weight", "bias")
                }
            )
    except (OSError, KeyError, RuntimeError, UserError) as error:
        source = f"read torchvision's AlexNet convolutions from {alexnet}" if alexnet else "download AlexNet for LPIPS"
        raise UserError(f"cannot {source}: {error}") from error
    return network
