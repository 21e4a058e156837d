"""One HTML file with before/after sliders and all figures in it, that opens without a server."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; }
figure { margin: 1rem 0 2rem; }
figcaption { color: #555; }
.slider { position: relative; display: inline-block; --x: 50%; }
.slider img { display: block; max-width: 100%; }
.slider .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--x)); }
.slider .edge { position: absolute; top: 0; bottom: 2rem; left: var(--x); width: 2px; background: #fc0; }
.slider input { width: 100%; height: 2rem; margin: 0; }
pre { overflow-x: auto; background: #f5f5f5; padding: 1rem; }
"""
SCRIPT = """
for (const slider of document.querySelectorAll(".slider")) {
  const move = () => slider.style.setProperty("--x", slider.querySelector("input").value + "%");
  slider.querySelector("input").addEventListener("input", move);
  move();
}
"""


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
    """The page: the items in their order, then ``text`` as it is (tables, protocol)."""
    body = "\n".join(slider_html(item) if isinstance(item, Slider) else figure_html(item) for item in items)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n<pre>{escape(text)}</pre>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def slider_html(slider: Slider) -> str:
    """Two stacked pictures; a range input uncovers one of them."""
    before, after = (data_url(Image.fromarray(image)) for image in (slider.before, slider.after))
    label = f"{slider.title}: left {slider.before_name}, right {slider.after_name}"
    return (
        f'<figure><div class="slider"><img src="{before}" alt="{escape(slider.before_name)}">'
        f'<img class="after" src="{after}" alt="{escape(slider.after_name)}"><div class="edge"></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{escape(label)}"></div>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def figure_html(figure: Figure) -> str:
    """A picture with its caption."""
    return (
        f'<figure><img src="{data_url(figure.picture)}" alt="{escape(figure.title)}">'
        f"<figcaption>{escape(figure.title)}</figcaption></figure>"
    )


def data_url(picture: Image.Image) -> str:
    """The picture as a PNG inside a URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
