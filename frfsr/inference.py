"""Any photo and any references in, the photo four times as large out: sizes, tiles, channels and bit depths."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from frfsr.degrade import SCALE
from frfsr.errors import UserError
from frfsr.imageio import Photo, photo_from_pil, photo_to_pil, read_photo
from frfsr.model import FRFSR

TILE = 192  # LR pixels; bounds the memory of one step
OVERLAP = 16  # LR pixels over which neighbouring tiles fade into each other
REFERENCE_PIXELS = 2**21  # of all references together: 2.1 megapixels
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's conversion to grey

PhotoLike = Image.Image | str | Path


def upscale(
    lr: PhotoLike,
    references: PhotoLike | Sequence[PhotoLike] = (),
    model: FRFSR | str | Path = "frfsr-tiny",
    device: str | None = None,
    dtype: str | None = None,
    tile: int = TILE,
    progress: bool = False,
) -> Image.Image:
    """Enlarge a photo four times with the textures of sharp reference photos.

    lr: Pillow image or file, any size and mode. The result has its channels: grey stays grey, alpha stays (enlarged by
        bicubic interpolation). Pillow holds 16 bits only for grey; `upscale_photo` keeps them for colour too.
    references: one or several Pillow images or files of any sizes, ideally at the scale of the result. Without any, the
        enlarged photo is its own reference, as in the paper's evaluation on Urban100.
    model: a loaded FRFSR (used as it is), or the name, folder or Hub id of one.
    device, dtype: see `load_model`; only for a model given by name.
    tile: side in LR pixels of the pieces that larger photos are processed in; bounds the memory.
    progress: show a progress bar on stderr.

    Raises UserError for unreadable images, unknown models, devices that do not exist and settings out of range.
    """
    if isinstance(references, PhotoLike):
        references = [references]
    photo, *references = [
        photo_from_pil(image) if isinstance(image, Image.Image) else read_photo(image) for image in (lr, *references)
    ]
    if not isinstance(model, FRFSR):
        model = load_model(model, device, dtype)
    return photo_to_pil(upscale_photo(photo, references, model, tile, progress))


def load_model(name_or_path: str | Path, device: str | None = None, dtype: str | None = None) -> FRFSR:
    """A model by packaged name, folder or Hub id, ready for inference.

    device: as torch names it; by default a CUDA GPU if there is one, else the CPU.
    dtype: float32 (default), bfloat16 or float16. Raises UserError for what does not exist.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device!r} here: {str(error).splitlines()[0]}") from error
    return FRFSR.from_pretrained(name_or_path).to(device, DTYPES[dtype or "float32"]).eval()


def upscale_photo(
    photo: Photo, references: Sequence[Photo], model: FRFSR, tile: int = TILE, progress: bool = False
) -> Photo:
    """Photo (h, w, C) -> Photo (4h, 4w, C) of the same channels and bit depth; arguments as for `upscale`."""
    if tile < 2 * OVERLAP:
        raise UserError(f"tile is {tile} pixels: it must be at least {2 * OVERLAP}.")
    height, width, channels = photo.pixels.shape
    lr = to_tensor(photo)
    canvas = join([shrink(to_tensor(reference)) for reference in references] or [own_reference(lr)])
    rows, columns = tile_starts(height, tile), tile_starts(width, tile)
    result = np.empty((SCALE * height, SCALE * width, channels), photo.pixels.dtype)
    if photo.has_alpha:
        result[..., -1] = enlarge_alpha(photo.pixels[..., -1])
    color = result[..., : channels - photo.has_alpha]

    weight = next(model.parameters())
    steps = tqdm(total=1 + len(rows) * len(columns), desc="upscale", unit="tile", disable=not progress)
    with torch.inference_mode(), steps:
        try:
            encoded = model.encode_reference(canvas.to(weight))
            steps.update()
            for top, row_overlap in rows:
                strip = np.empty((SCALE * min(tile, height), *color.shape[1:]), color.dtype)
                for left, column_overlap in columns:
                    piece = lr[..., top : top + tile, left : left + tile].to(weight)
                    pixels = to_pixels(model(piece, encoded).image, color.shape[2], color.dtype)
                    paste(strip, pixels, left, column_overlap, axis=1)
                    steps.update()
                paste(color, strip, top, row_overlap, axis=0)
        except torch.OutOfMemoryError as error:
            raise UserError(f"out of memory: try smaller tiles (now {tile}) or another device.") from error
    return Photo(result, photo.icc_profile)


def tile_starts(size: int, tile: int) -> list[tuple[int, int]]:
    """Cut `size` pixels into evenly spread tiles: (start, pixels shared with the tile before, at least OVERLAP)."""
    if size <= tile:
        return [(0, 0)]
    steps = ceil((size - tile) / (tile - OVERLAP))
    starts = [i * (size - tile) // steps for i in range(steps + 1)]
    return [(0, 0)] + [(start, before + tile - start) for before, start in pairwise(starts)]


def paste(target: np.ndarray, piece: np.ndarray, start: int, overlap: int, axis: int) -> None:
    """Write an enlarged tile into `target` along `axis`; over the first pixels it fades into what is there.

    target, piece: (H, W, C) of equal integer type; start, overlap: in LR pixels.
    """
    start, overlap = SCALE * start, SCALE * overlap
    piece = piece.swapaxes(0, axis)
    region = target.swapaxes(0, axis)[start : start + len(piece)]
    fade = ((np.arange(overlap, dtype=np.float32) + 0.5) / max(overlap, 1))[:, None, None]
    region[:overlap] = np.rint((1 - fade) * region[:overlap] + fade * piece[:overlap])
    region[overlap:] = piece[overlap:]


def join(references: Sequence[Tensor]) -> Tensor:
    """References (1, 3, H, W) -> one canvas that shows them all, side by side or stacked, whichever is smaller.

    Gaps repeat the borders. The canvas is bounded by `shrink`.
    """
    heights, widths = zip(*(reference.shape[-2:] for reference in references), strict=True)
    tallest, widest = max(heights), max(widths)
    if tallest * sum(widths) <= widest * sum(heights):
        return shrink(torch.cat([pad_to(reference, tallest, reference.shape[-1]) for reference in references], dim=3))
    return shrink(torch.cat([pad_to(reference, reference.shape[-2], widest) for reference in references], dim=2))


def pad_to(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the right and bottom borders of (1, 3, H, W) up to (1, 3, height, width)."""
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), mode="replicate")


def shrink(image: Tensor) -> Tensor:
    """At most REFERENCE_PIXELS of (1, 3, H, W): time and memory grow with the reference."""
    factor = sqrt(REFERENCE_PIXELS / (image.shape[-2] * image.shape[-1]))
    return image if factor >= 1 else resize(image, factor)


def own_reference(lr: Tensor) -> Tensor:
    """The enlarged LR photo (1, 3, h, w), bounded like any reference."""
    return resize(lr, min(SCALE, sqrt(REFERENCE_PIXELS / (lr.shape[-2] * lr.shape[-1]))))


def resize(image: Tensor, factor: float) -> Tensor:
    """Antialiased bicubic interpolation of (1, 3, H, W) in [0, 1]."""
    height, width = (max(1, int(factor * side)) for side in image.shape[-2:])
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def enlarge_alpha(alpha: np.ndarray) -> np.ndarray:
    """(h, w) -> (4h, 4w) of the same integer type, by bicubic interpolation."""
    height, width = alpha.shape
    image = Image.fromarray(alpha.astype(np.float32))
    values = np.asarray(image.resize((SCALE * width, SCALE * height), Image.Resampling.BICUBIC))
    return np.rint(values.clip(0, np.iinfo(alpha.dtype).max)).astype(alpha.dtype)


def to_tensor(photo: Photo) -> Tensor:
    """The colour of a photo as (1, 3, H, W) float32 RGB in [0, 1]; grey is repeated, alpha left out."""
    color = photo.pixels[..., :-1] if photo.has_alpha else photo.pixels
    values = torch.from_numpy(color.astype(np.float32) / np.iinfo(color.dtype).max)
    return repeat(values, "h w 1 -> 1 c h w", c=3) if color.shape[2] == 1 else rearrange(values, "h w c -> 1 c h w")


def to_pixels(image: Tensor, channels: int, dtype: np.dtype) -> np.ndarray:
    """(1, 3, H, W) float RGB in about [0, 1] -> (H, W, channels) integers over the whole range of `dtype`."""
    values = rearrange(image.float().clamp(0, 1).cpu().numpy(), "1 c h w -> h w c")
    if channels == 1:
        values = (values @ LUMA)[..., None]
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)
