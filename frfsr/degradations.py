"""What happens to people's photos before they are to be enlarged: blur, shrinking, noise and JPEG, in random order.

A practical degradation in the manner of BSRGAN (Zhang et al., ICCV 2021: the order is drawn) and Real-ESRGAN (Wang et
al., 2021: turned Gaussian blur, shot noise, twice JPEG), milder than both, since the references show what was lost.
"""

import io
from collections.abc import Callable
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from frfsr import degrade
from frfsr.errors import UserError
from frfsr.settings import Share, settings

Sigma = Annotated[float, Field(ge=0.1, le=6)]
Factor = Annotated[float, Field(ge=0.25, le=1)]
Strength = Annotated[float, Field(ge=0, le=64)]
Quality = Annotated[int, Field(ge=5, le=100)]
FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@settings
class Degradation:
    """Ranges from which the degradation of a photo is drawn, and in which share of the photos each part happens.

    Attributes:
        clean_share: photos that are only reduced by Pillow's bicubic interpolation, as for all other networks.
        blur, blur_share: standard deviations of a turned Gaussian along its two axes, in HR pixels.
        resize, resize_share: factor of a first shrinking, before the one that ends at a quarter; its filter is drawn.
        noise, noise_share: standard deviation of the noise in grey levels, of 255.
        grey_share: share of the noise that is the same in all three channels.
        shot_share: share of the noise that grows with the square root of the brightness.
        jpeg, jpeg_share: quality.
        last_jpeg_share: share of the photos whose LR image is saved as a JPEG once more, at its end.
    """

    clean_share: Share = 0.1
    blur: tuple[Sigma, Sigma] = (0.2, 3.0)
    blur_share: Share = 0.8
    resize: tuple[Factor, Factor] = (0.4, 1.0)
    resize_share: Share = 0.5
    noise: tuple[Strength, Strength] = (1.0, 15.0)
    noise_share: Share = 0.7
    grey_share: Share = 0.4
    shot_share: Share = 0.5
    jpeg: tuple[Quality, Quality] = (40, 95)
    jpeg_share: Share = 0.7
    last_jpeg_share: Share = 0.5

    def __post_init__(self):
        for name in ("blur", "resize", "noise", "jpeg"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"{name} must be a range [smallest, largest], got {[low, high]}.")


def degraded_lr(photo: np.ndarray, parameters: Degradation, rng: np.random.Generator) -> np.ndarray:
    """Make the LR image of a photo as a stranger would have it.

    Args:
        photo: (4h, 4w, 3) uint8, RGB.
        parameters: what may happen.
        rng: decides what does; the same generator and photo give the same image.

    Returns:
        (h, w, 3) uint8.
    """
    if rng.random() < parameters.clean_share:
        return degrade.downscale(photo)
    height, width = photo.shape[:2]
    steps: list[Callable[[np.ndarray], np.ndarray]] = []
    if rng.random() < parameters.blur_share:
        sigmas, angle = rng.uniform(*parameters.blur, 2), rng.uniform(0, np.pi)
        steps.append(lambda image: blurred(image, sigmas * image.shape[1] / width, angle))
    if rng.random() < parameters.resize_share:
        factor, chosen = rng.uniform(*parameters.resize), FILTERS[rng.integers(len(FILTERS))]
        sides = max(round(width * factor), 1), max(round(height * factor), 1)
        steps.append(lambda image: np.asarray(Image.fromarray(image).resize(sides, chosen)))
    if rng.random() < parameters.noise_share:
        strength, grey, shot = rng.uniform(*parameters.noise), rng.random(), rng.random()
        kinds = bool(grey < parameters.grey_share), bool(shot < parameters.shot_share)
        steps.append(lambda image: noisy(image, strength, *kinds, rng))
    if rng.random() < parameters.jpeg_share:
        quality = int(rng.integers(parameters.jpeg[0], parameters.jpeg[1] + 1))
        steps.append(lambda image: saved_as_jpeg(image, quality))
    image = photo
    for place in rng.permutation(len(steps)):
        image = steps[place](image)
    image = degrade.resize(image, height // degrade.SCALE, width // degrade.SCALE)
    if rng.random() < parameters.last_jpeg_share:
        image = saved_as_jpeg(image, int(rng.integers(parameters.jpeg[0], parameters.jpeg[1] + 1)))
    return image


def blurred(image: np.ndarray, sigmas: np.ndarray, angle: float) -> np.ndarray:
    """Convolve with a Gaussian; borders are repeated.

    Args:
        image: (H, W, 3) uint8.
        sigmas: (2,), standard deviations along its axes, in pixels.
        angle: of the first axis over the image's rows, radians.

    Returns:
        (H, W, 3) uint8.
    """
    reach = max(int(np.ceil(3 * sigmas.max())), 1)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))
    padded = np.pad(image.astype(np.float32), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    size = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel / kernel.sum(), size)[..., None]
    return to_uint8(np.fft.irfft2(spectrum, size, axes=(0, 1))[2 * reach :, 2 * reach :])


def noisy(image: np.ndarray, strength: float, grey: bool, shot: bool, rng: np.random.Generator) -> np.ndarray:
    """Add noise.

    Args:
        image: (H, W, 3) uint8.
        strength: standard deviation in grey levels; of shot noise at white, and less where it is darker.
        grey: the same for the three colours.
        shot: it depends on the brightness, as photons' does.
        rng: draws it.

    Returns:
        (H, W, 3) uint8.
    """
    noise = strength * rng.standard_normal((*image.shape[:2], 1 if grey else 3))
    return to_uint8(image + noise * np.sqrt(image / 255) if shot else image + noise)


def saved_as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """What is left of an image (H, W, 3) uint8 in a JPEG of this quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round grey levels to what an image of 8 bits holds."""
    return image.round().clip(0, 255).astype(np.uint8)
