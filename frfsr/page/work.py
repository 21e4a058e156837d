"""What the page computes: files that were checked before they are decoded, networks, and runs that can be stopped."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from frfsr.architectures import load
from frfsr.checkpoints import PACKAGED
from frfsr.degrade import SCALE, upscale_bicubic
from frfsr.errors import ImageWarning, UserError
from frfsr.imageio import Photo, check_output, read_photo, write_photo
from frfsr.imageio.photo import to_8_bit
from frfsr.imageio.write import WRITE_FORMATS
from frfsr.network import Network
from frfsr.upscaling.matches import Matches
from frfsr.upscaling.options import Options, Report
from frfsr.upscaling.upscale import upscale_photo

PREVIEW_PIXELS = 4_000_000  # of a reference, kept to show matched places
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".gif", ".bmp", ".ppm", ".pgm")

_reading = threading.Lock()  # one file is decoded at a time, which bounds the memory
_here = threading.local()  # the job that this thread works for


@dataclass(frozen=True)
class Limits:
    """What one person may ask of the page.

    Attributes:
        photo_pixels: of the photo that is enlarged, width times height.
        file_pixels: of any file; checked before it is decoded.
        file_bytes: of any file.
        references: their number.
        seconds: that one run may take.
        jobs: runs at the same time.
        waiting: runs in the queue.
    """

    photo_pixels: int = 2**20
    file_pixels: int = 50_000_000
    file_bytes: int = 400_000_000
    references: int = 8
    seconds: int = 900
    jobs: int = 1
    waiting: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UserError(f"{name.replace('_', ' ')} of the page is {value}: it must be at least 1.")


class Job:
    """One run, which its person or the clock stops at the next layer of the network.

    Args:
        seconds: that it may take.
    """

    def __init__(self, seconds: int):
        self.seconds, self.deadline, self.cancelled = seconds, time.monotonic() + seconds, threading.Event()

    def check(self) -> None:
        """End the run where it is to stop.

        Raises:
            UserError: it is.
        """
        if self.cancelled.is_set():
            raise UserError("cancelled.")
        if time.monotonic() > self.deadline:
            raise UserError(
                f"stopped: it took longer than {self.seconds} seconds, the limit of this page; give a smaller photo, "
                "or use `frfsr upscale`."
            )

    def __enter__(self) -> "Job":
        _here.job = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.job = None


def check_job(*_: object) -> None:
    """Stop this thread's job if it is to stop; a hook that runs before every layer."""
    if job := getattr(_here, "job", None):
        job.check()


class Networks:
    """The networks that can be chosen, each loaded once per device.

    Args:
        names: packaged names, folders or Hub ids; none: all that are packaged.
        device: the one that is proposed; None: a GPU if there is one.

    Raises:
        UserError: the first network or the device does not exist.
    """

    def __init__(self, names: Sequence[str] = (), device: str | None = None):
        self.names = list(names) or sorted(folder.name for folder in PACKAGED.glob("*/"))
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        found = [*gpus, "cpu"]
        self.devices = [device, *(other for other in found if other != device)] if device else found
        self.loaded: dict[tuple[str, str], Network] = {}
        self.lock = threading.Lock()
        self.get(self.names[0], self.devices[0])

    def get(self, name: str, device: str) -> Network:
        """Load a network, or return it.

        Raises:
            UserError: it is not offered.
        """
        if name not in self.names or device not in self.devices:
            raise UserError(f"{name} on {device} is not offered here.")
        with self.lock:
            if (name, device) not in self.loaded:
                model = load(name, device)
                for module in model.modules():
                    module.register_forward_pre_hook(check_job)
                self.loaded[name, device] = model
            return self.loaded[name, device]


@dataclass(frozen=True)
class Shown:
    """A reference as it is shown: its name, (H, W, 3) uint8 pixels, and their scale (1: as in the file)."""

    name: str
    pixels: np.ndarray
    scale: float


@dataclass(frozen=True)
class Outcome:
    """A result.

    Attributes:
        file: the download.
        before: (4h, 4w, C) uint8, the photo enlarged without a network.
        after: (4h, 4w, C) uint8, the result.
        report: what was done.
        matches: for each pixel of the photo; None if the network matched nothing.
        references: as they are shown.
        seconds: that it took.
    """

    file: Path
    before: np.ndarray
    after: np.ndarray
    report: Report
    matches: Matches | None
    references: tuple[Shown, ...]
    seconds: float


def open_photo(path: str, limits: Limits) -> tuple[Photo, list[str]]:
    """Read an uploaded file.

    Returns:
        The photo, and one line for each thing that a person should know about the file.

    Raises:
        UserError: the file is too large, of another type, or damaged; by its name, without its folder.
    """
    name = Path(path).name
    if Path(path).suffix.lower() not in ENDINGS:
        raise UserError(f"{name}: not an image file by its name; give one of {', '.join(ENDINGS)}.")
    try:
        size = os.path.getsize(path)
    except OSError as error:
        raise UserError(f"{name}: no longer here; upload it again.") from error
    if size > limits.file_bytes:
        raise UserError(f"{name}: {size / 1e6:.1f} MB are more than {limits.file_bytes / 1e6:.1f} MB.")
    with _reading, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ImageWarning)
        photo = read_photo(path, max_pixels=limits.file_pixels, name=name)
    return photo, [str(warning.message) for warning in said if issubclass(warning.category, ImageWarning)]


def open_to_enlarge(path: str, limits: Limits) -> tuple[Photo, list[str]]:
    """As `open_photo`; the photo must be small enough to be enlarged here.

    Raises:
        UserError: the photo is larger, or cannot be read.
    """
    photo, notes = open_photo(path, limits)
    height, width = photo.pixels.shape[:2]
    if width * height > limits.photo_pixels:
        raise UserError(
            f"{Path(path).name}: {width}×{height} pixels are more than the {limits.photo_pixels / 1e6:.1f} megapixels "
            "that are enlarged here; reduce the photo, or use `frfsr upscale`."
        )
    return photo, notes


def enlarge(
    photo_path: str,
    reference_paths: Sequence[str],
    network: Network,
    strength: float,
    *,
    folder: Path,
    limits: Limits,
    progress: Callable[[int, int], object],
) -> Outcome:
    """Do what `frfsr upscale` does, for this thread's job.

    Args:
        photo_path: of the photo.
        reference_paths: of the references, or none.
        network: on its device.
        strength: 0 ... 1.
        folder: for the download, which is named after the photo.
        limits: of the page.
        progress: is told how many tiles are done, and of how many.

    Returns:
        What is shown of it.

    Raises:
        UserError: a bad file, a limit, or the job is stopped.
    """
    started = time.monotonic()
    if len(reference_paths) > limits.references:
        raise UserError(f"{len(reference_paths)} references are more than {limits.references}: give fewer.")
    photo, notes = open_to_enlarge(photo_path, limits)
    references = []
    for path in reference_paths:
        check_job()
        reference, said = open_photo(path, limits)
        references.append(reference)
        notes += said
    names = [Path(path).name for path in reference_paths]
    settings = Options(strength=strength)
    upscaled = upscale_photo(photo, references, network, settings, names=names, progress=progress)
    file = download_name(folder, photo_path, upscaled.photo)
    write_photo(upscaled.photo, file)
    report = upscaled.report
    return Outcome(
        file,
        enlarged(photo),
        to_8_bit(upscaled.photo.pixels),
        Report(**{**vars(report), "warnings": (*notes, *report.warnings)}),
        upscaled.matches,
        tuple(map(shown, names, references)),
        time.monotonic() - started,
    )


def download_name(folder: Path, photo_path: str, result: Photo) -> Path:
    """Where the result is stored: in the photo's format where that can be written, else as PNG."""
    stem, ending = os.path.splitext(Path(photo_path).name)
    name = folder / f"{stem}_x{SCALE}{ending if ending.lower() in WRITE_FORMATS else '.png'}"
    try:
        height, width = result.pixels.shape[:2]
        check_output(name, height, width, result.has_alpha)
    except UserError:  # the result is too large for the format, or the ending was wrong
        return name.with_suffix(".png")
    return name


def enlarged(photo: Photo) -> np.ndarray:
    """(h, w, C) -> (4h, 4w, C) uint8, by bicubic interpolation."""
    channels = [upscale_bicubic(channel) for channel in np.moveaxis(to_8_bit(photo.pixels), 2, 0)]
    return np.stack(channels, axis=2)


def shown(name: str, photo: Photo) -> Shown:
    """A reference, reduced to `PREVIEW_PIXELS`."""
    pixels = photo.rgb8()
    scale = min(1.0, (PREVIEW_PIXELS / (pixels.shape[0] * pixels.shape[1])) ** 0.5)
    if scale == 1:
        return Shown(name, pixels, 1.0)
    size = [max(1, round(scale * side)) for side in (pixels.shape[1], pixels.shape[0])]
    return Shown(name, np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)), scale)


def picture(pixels: np.ndarray) -> Image.Image:
    """(H, W, C) uint8 pixels of 1 to 4 channels as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def thumbnail(pixels: np.ndarray, side: int) -> Image.Image:
    """At most `side` pixels wide and high."""
    image = picture(pixels)
    image.thumbnail((side, side))
    return image
