"""What the tests of image files make their inputs with."""

from collections.abc import Callable

import numpy as np
import pytest

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def random_samples() -> Callable[[tuple[int, ...], int], np.ndarray]:
    """(shape, bits) -> samples over the whole range, both ends included."""
    return make_samples


@pytest.fixture
def tiff_bytes() -> Callable[..., bytes]:
    """Give the writer of any TIFF, however wrong."""
    return make_tiff


def make_samples(shape: tuple[int, ...], bits: int) -> np.ndarray:
    samples = GENERATOR.integers(0, 2**bits, shape, np.uint8 if bits <= 8 else np.uint16)
    samples.flat[:2] = 0, 2**bits - 1
    return samples


def make_tiff(tags: dict[int, int], arrays: dict[int, list[int]], body: bytes, byteorder: str = "<") -> bytes:
    """One page; the offsets in tag 273 count from the body."""
    order = "little" if byteorder == "<" else "big"
    body_at, entries = 8, []
    values_at = body_at + len(body) + len(body) % 2
    values = b""
    for tag, content in sorted((tags | arrays).items()):
        content = content if isinstance(content, list) else [content]
        if tag == 273:
            content = [offset + body_at for offset in content]
        data = b"".join(value.to_bytes(4, order) for value in content)
        field = data
        if len(content) > 1:
            field = (values_at + len(values)).to_bytes(4, order)
            values += data
        entries.append(tag.to_bytes(2, order) + (4).to_bytes(2, order) + len(content).to_bytes(4, order) + field)
    directory_at = values_at + len(values)
    magic = b"II" if byteorder == "<" else b"MM"
    head = magic + (42).to_bytes(2, order) + directory_at.to_bytes(4, order)
    directory = len(entries).to_bytes(2, order) + b"".join(entries) + bytes(4)
    return head + body + b"\0" * (len(body) % 2) + values + directory
