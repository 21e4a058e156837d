"""Image quality: PSNR and SSIM on luma or colour, and LPIPS, on images as they would be saved (8 bits).

Every function takes the result and the truth as RGB images of one size, each a PIL image, a uint8 array (H, W, 3), or a
float tensor (3, H, W) or (1, 3, H, W) in [0, 1], which is clipped and rounded to 8 bits first, and measures them
without their outermost ``crop`` pixels. Luma is the Y of BT.601 in studio swing (16 to 235), kept as a real number.
"""

import math
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from frfsr.errors import UserError

Picture = Image.Image | np.ndarray | torch.Tensor

# Weights of R, G, B in [0, 255] for Y, and its offset.
LUMA = np.array([65.481, 128.553, 24.966]) / 255
LUMA_OFFSET = 16.0
SSIM_WINDOW = 11
ALEXNET_SMALLEST = 31


def psnr_y(sr: Picture, hr: Picture, crop: int = 4) -> float:
    """Peak signal-to-noise ratio of the luma in dB (peak 255); infinite for equal images."""
    return _psnr(luma(_inner(sr, crop)), luma(_inner(hr, crop)))


def psnr_rgb(sr: Picture, hr: Picture, crop: int = 4) -> float:
    """Peak signal-to-noise ratio over the three colour channels in dB (peak 255); infinite for equal images."""
    return _psnr(_inner(sr, crop).astype(np.float64), _inner(hr, crop).astype(np.float64))


def ssim_y(sr: Picture, hr: Picture, crop: int = 4) -> float:
    """Structural similarity of the luma in [-1, 1]: Gaussian window 11x11, sigma 1.5, where it lies inside the image.

    Raises:
        UserError: the images are too small for one window, or differ in size.
    """
    return _ssim(luma(_inner(sr, crop)), luma(_inner(hr, crop)))


def ssim_rgb(sr: Picture, hr: Picture, crop: int = 4) -> float:
    """`ssim_y` of each colour channel, averaged."""
    sr, hr = _inner(sr, crop), _inner(hr, crop)
    return float(np.mean([_ssim(sr[..., c].astype(np.float64), hr[..., c].astype(np.float64)) for c in range(3)]))


def lpips_alex(sr: Picture, hr: Picture, crop: int = 4, alexnet: str | Path | None = None) -> float:
    """Perceptual distance LPIPS v0.1 with AlexNet on RGB in [-1, 1]: 0 for equal images, larger is worse.

    Args:
        alexnet: safetensors file with torchvision's AlexNet convolutions (``features.N.weight``, ``features.N.bias``);
            by default torchvision downloads them once.

    Raises:
        UserError: the ``lpips`` package or the AlexNet weights cannot be had, or the images are below 31x31 pixels.
    """
    sr, hr = _inner(sr, crop), _inner(hr, crop)
    _check_sizes(sr, hr, smallest=ALEXNET_SMALLEST)
    batch = torch.from_numpy(np.stack([sr, hr]))
    batch = rearrange(batch, "b h w c -> b c h w").float() / 127.5 - 1
    with torch.inference_mode():
        return float(_lpips_network(alexnet)(batch[:1], batch[1:]))


def luma(image: np.ndarray) -> np.ndarray:
    """Y in [16, 235], float64 (H, W), of an RGB image (H, W, 3) in [0, 255]."""
    return image @ LUMA + LUMA_OFFSET


def to_uint8(image: Picture) -> np.ndarray:
    """Any picture of this module as a uint8 array (H, W, 3), as it would be saved.

    Raises:
        UserError: not an RGB image, or floats beyond [0, 1] by more than a network's overshoot.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        image = image.squeeze(0) if image.ndim == 4 else image
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise UserError(f"expected a float tensor (3, H, W) in [0, 1], got {image.dtype} {tuple(image.shape)}")
        image = rearrange(image.detach().float().cpu(), "c h w -> h w c").numpy()
        if np.abs(image).max(initial=0) > 16:
            raise UserError("a float tensor must lie in [0, 1]; divide 8-bit values by 255")
        if not np.isfinite(image).all():
            raise UserError("the image has NaN or infinite values")
        return (image.clip(0, 1) * 255).round().astype(np.uint8)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
    return image


def _inner(image: Picture, crop: int) -> np.ndarray:
    """The image without its outermost ``crop`` pixels."""
    image = to_uint8(image)
    height, width = image.shape[:2]
    if min(height, width) <= 2 * crop:
        raise UserError(f"an image of {width}x{height} pixels has nothing inside a border of {crop}")
    return image[crop : height - crop, crop : width - crop]


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
        raise UserError("SSIM needs scikit-image: pip install 'frfsr[eval]'") from error
    return float(
        structural_similarity(sr, hr, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )


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
            weights = load_file(alexnet)
            network.net.load_state_dict(
                {
                    f"{name}.{kind}": weights[f"features.{n}.{kind}"]
                    for n, name in convolutions.items()
                    for kind in ("weight", "bias")
                }
            )
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        source = f"read torchvision's AlexNet convolutions from {alexnet}" if alexnet else "download AlexNet for LPIPS"
        raise UserError(f"cannot {source}: {error}") from error
    return network
