"""The image files that a dataset stores -> RGB pictures, by the one reader that the whole project has."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import fsspec
from datasets import Image
from PIL import Image as PILImage

from frfsr.errors import UserError, one_line
from frfsr.imageio import read_photo


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
    path = file["path"]
    if file["bytes"] is None and "://" not in path:
        photo = read_photo(path)
    else:
        photo = read_photo(stored_bytes(file, token), name=path or "an image")
    return PILImage.fromarray(photo.rgb8())


def image_size(file: dict) -> tuple[int, int]:
    """(width, height) in pixels, perhaps before it is turned upright, of a stored file, of which little is read.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        with PILImage.open(file["path"] if file["bytes"] is None else BytesIO(file["bytes"])) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError):
        return decode_image(file).size


def stored_bytes(file: dict, token: str | bool | None = None) -> bytes:
    """Read a stored file.

    Args:
        file: as for `decode_image`.
        token: for private files of the Hub.

    Returns:
        Its bytes.

    Raises:
        UserError: it cannot be read.
    """
    if file["bytes"] is not None:
        return file["bytes"]
    path = file["path"]
    try:
        if "://" not in path:
            return Path(path).read_bytes()
        return read_url(path, token)
    except (OSError, ValueError) as error:  # the latter for names that no file can have
        raise UserError(f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_url(url: str, token: str | bool | None = None) -> bytes:
    """Read a file of the network.

    Args:
        url: of any protocol that fsspec knows.
        token: of the Hub, for `hf://` alone.

    Returns:
        The file's content.

    Raises:
        UserError: it cannot be read.
    """
    options = {"token": token} if url.startswith("hf://") else {}
    try:
        filesystem, place = fsspec.url_to_fs(url, **options)
        return filesystem.cat_file(place)
    except Exception as error:  # each protocol has a client of its own, perhaps not installed, with errors of its own
        reason = one_line(error)[:160] or type(error).__name__
        raise UserError(f"{url} cannot be read: {reason}") from error
