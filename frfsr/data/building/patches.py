"""A patch of a photo: whether it teaches anything, how easy it is, its likeness to others, its file."""

import math
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from frfsr.data.building.photos import sharpness
from frfsr.degrade import downscale, upscale_bicubic

CONTRAST = 15.0  # standard deviation of grey
SHARPNESS = 90.0  # variance of the Laplacian
CLIPPED = 0.25  # share of pixels that are nearly black or white


def fault_of(patch: np.ndarray) -> str | None:
    """Why a patch (S, S, 3) uint8 teaches nothing: flat, blurred, or black and white."""
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    if grey.std() < CONTRAST:
        return "flat"
    if ((grey <= 5) | (grey >= 250)).mean() > CLIPPED:
        return "over- or underexposed"
    return "blurred" if sharpness(grey) < SHARPNESS else None


def bicubic_psnr(patch: np.ndarray) -> float:
    """PSNR of Y that enlarging the patch's LR image reaches, in dB."""
    images = (upscale_bicubic(downscale(patch)), patch)
    made, truth = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float) * 219 / 255 for image in images)
    return 10 * math.log10(255**2 / max(((made - truth) ** 2).mean(), 1e-9))


def perceptual_hash(patch: np.ndarray) -> str:
    """64 bits as hexadecimal digits: the signs of the patch's lowest frequencies against their median."""
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(small)[:8, :8].ravel()
    return np.packbits(lowest > np.median(lowest)).tobytes().hex()


def as_png(pixels: np.ndarray) -> bytes:
    """A PNG file of (H, W, 3) uint8."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
