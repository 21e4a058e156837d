"""One HTML file with before/after sliders and all figures in it, that opens without a server."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment
from PIL import Image

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Slider:
    """Two pictures (height, width, 3) of one size, uint8, to be compared by a slider."""

    title: str
    before: np.ndarray
    after: np.ndarray
    before_name: str
    after_name: str


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    title: str
    picture: Image.Image


def as_html(title: str, items: Sequence[Slider | Figure], text: str) -> str:
    """Make the page.

    Args:
        title: of the page.
        items: what it shows, in this order.
        text: shown as it is below them (tables, protocol).

    Returns:
        HTML, with the pictures in it.
    """
    environment = Environment(autoescape=True)
    environment.filters["data_url"] = data_url
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(title=title, items=items, text=text)


def data_url(picture: Image.Image | np.ndarray) -> str:
    """Put a picture, or an array (H, W, 3) uint8, as a PNG into a URL."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
