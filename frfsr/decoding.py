"""The image files that a dataset stores -> RGB pictures, by the one reader that the whole project has."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import fsspec
import numpy as np
from datasets import Image
from einops import repeat
from PIL import Image as PILImage

from frfsr.errors import UserError
from frfsr.imageio import photo_from_pil, read_photo


class RGBImage(Image):
    """The feature of image columns that come as RGB pictures on access."""

    def decode_example(self, value: dict, token_per_repo_id: Mapping[str, str | bool | None] | None = None):
        """`decode_image`; a token is for images of a Hub dataset that is streamed."""
        path, tokens = value["path"] or "", token_per_repo_id or {}
        return decode_image(value, next((token for name, token in tokens.items() if name in path), None))


def decode_image(file: dict, token: str | bool | None = None) -> PILImage.Image:
    """The upright RGB picture of a stored file. Transparency is dropped: colours come as they are stored.

    Args:
        file: ``{"bytes", "path"}``; without bytes the path or URL is read.
        token: for URLs of the Hugging Face Hub.

    Returns:
        Mode RGB, 8 bits; 16 bits are divided by 257 and rounded.

    Raises:
        UserError: the file is missing, damaged or no image.
    """
    data, path = file["bytes"], file["path"]
    if data is None:
        photo = (
            read_photo(path) if "://" not in path else photo_from_pil(PILImage.open(BytesIO(stored_bytes(file, token))))
        )
    else:
        try:
            photo = photo_from_pil(PILImage.open(BytesIO(data)))
        except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
            raise UserError(f"{path or 'an image'} cannot be read as an image: {error}") from error
    pixels = photo.pixels[..., :3] if photo.pixels.shape[2] > 2 else repeat(photo.pixels[..., 0], "h w -> h w c", c=3)
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / np.float32(257)).astype(np.uint8)
    return PILImage.fromarray(np.ascontiguousarray(pixels))


def stored_bytes(file: dict, token: str | bool | None = None) -> bytes:
    """The bytes of a stored file, as for `decode_image`; raises UserError if it cannot be read."""
    if file["bytes"] is not None:
        return file["bytes"]
    path = file["path"]
    try:
        if "://" not in path:
            return Path(path).read_bytes()
        with fsspec.open(path, "rb", **({"token": token} if path.startswith("hf://") else {})) as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
