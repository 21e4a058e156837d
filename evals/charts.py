"""Charts: quality against size and runtime (figure 12), robustness against shuffled references (figures 10 and 11)."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


@dataclass(frozen=True)
class Contestant:
    """A model in `bubble_chart`.

    Attributes:
        name: beside its bubble.
        parameters: in millions.
        psnr: in dB.
        seconds: per image, None if not known.
        quoted: from the paper, not measured.
    """

    name: str
    parameters: float
    psnr: float
    seconds: float | None
    quoted: bool = False


def bubble_chart(contestants: Sequence[Contestant], benchmark: str) -> Image.Image:
    """Draw PSNR against parameters; the area of a bubble grows with the runtime, quoted ones are hollow."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    slowest = max((c.seconds for c in contestants if c.seconds), default=1.0)
    for c in contestants:
        area = 60 + 900 * (c.seconds or 0) / slowest
        face = "none" if c.quoted else "tab:blue"
        axes.scatter(c.parameters, c.psnr, s=area, facecolors=face, edgecolors="tab:blue", alpha=0.7)
        seconds = f", {c.seconds:.2g} s" if c.seconds else ""
        above = (0, 2 + math.sqrt(area) / 2)  # the area is in square points
        axes.annotate(
            f"{c.name}{seconds}",
            (c.parameters, c.psnr),
            xytext=above,
            textcoords="offset points",
            fontsize=8,
            ha="center",
        )
    axes.set(xlabel="parameters, million", ylabel="PSNR-Y, dB", title=f"{benchmark}: area of a bubble = runtime")
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    return rendered(figure)


def line_chart(lines: Mapping[str, Sequence[float]], steps: Sequence[str], title: str) -> Image.Image:
    """Draw the PSNR of every model (a line) over the strengths of the shuffle (``steps``)."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(steps, values, marker="o", label=name)
    axes.set(ylabel="PSNR-Y, dB", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return rendered(figure)


def rendered(figure: Figure) -> Image.Image:
    """Draw the figure as an RGB picture."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
