"""Pictures of an evaluation: which images are shown, and the files and the report they go into."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from frfsr.degrade import upscale_bicubic
from frfsr.errors import UserError
from frfsr.evals.benchmarks import TestSet
from frfsr.evals.charts import Contestant, bubble_chart, line_chart
from frfsr.evals.choices import ReferenceRule
from frfsr.evals.figures import CROP, Box, attention, check_crop, choose_crop, comparison, error_maps, matching
from frfsr.evals.paper import Laboratory, quoted_tables
from frfsr.evals.report import Figure, Slider, as_html
from frfsr.evals.runtime import measure_runtime
from frfsr.evals.upscalers import NetworkUpscaler, Upscaler
from frfsr.evals.visualise import look_inside
from frfsr.files import whole_file, write_text

SHUFFLES: dict[str, ReferenceRule] = {"whole": "true", "easy": "easy", "medium": "medium", "hard": "hard"}


@dataclass(frozen=True)
class Choice:
    """What is shown.

    Attributes:
        names: images; if empty, ``count`` of them, evenly spread from the largest to the smallest gain of the last
            model over the first, so that the pictures flatter nobody.
        crop: the window of all images; None to take, in each, where the results differ most.
        reference: rule for references, as for `TestSet`.
    """

    names: tuple[str, ...] = ()
    count: int = 4
    crop: Box | None = None
    reference: ReferenceRule = "true"


def choose_images(laboratory: Laboratory, upscalers: Sequence[Upscaler], benchmark: str, choice: Choice) -> list[str]:
    """Name the images to show, in the order of `Choice`.

    Args:
        laboratory: measures, where the scores choose.
        upscalers: whose scores those are.
        benchmark: the test set's name.
        choice: what is asked for.

    Returns:
        Names of images of the test set.

    Raises:
        UserError: the test set has no image of a name.
    """
    available = laboratory.test_set(benchmark, choice.reference).names
    if unknown := [name for name in choice.names if name not in available]:
        raise UserError(f"there is no image {unknown[0]!r}; there are {', '.join(available[:5])}, ...")
    if choice.names:
        return list(choice.names)
    before, after = (
        {score.name: score.psnr_y for score in laboratory.evaluate(upscaler, benchmark, choice.reference).scores}
        for upscaler in (upscalers[0], upscalers[-1])
    )
    ranked = sorted(before.keys() & after.keys(), key=lambda name: (before[name] - after[name], name))
    places = np.linspace(0, len(ranked) - 1, min(choice.count, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


def require_crop(test_set: TestSet, choice: Choice) -> None:
    """Refuse a crop that does not lie in an image that is shown or, where the scores will choose, may be.

    Raises:
        UserError: a part of it lies outside.
    """
    for item in test_set if choice.crop else ():
        if choice.names and item.name not in choice.names:
            continue
        try:
            truth = item.truth()
        except UserError:  # a failure of the evaluation, which is not shown
            continue
        check_crop(cast(Box, choice.crop), truth, item.name)


def picture_items(
    laboratory: Laboratory, upscalers: Sequence[Upscaler], benchmark: str, choice: Choice
) -> list[Slider | Figure]:
    """Make for every chosen image a slider, the compared crops, the error maps and what the last network did inside.

    Args:
        laboratory: measures.
        upscalers: that are compared, in this order.
        benchmark: the test set's name.
        choice: of the images.

    Returns:
        What the report shows.
    """
    test_set = laboratory.test_set(benchmark, choice.reference)
    network = next((u for u in reversed(upscalers) if isinstance(u, NetworkUpscaler) and u.uses_references), None)
    items: list[Slider | Figure] = []
    require_crop(test_set, choice)
    for name in choose_images(laboratory, upscalers, benchmark, choice):
        sample = test_set[test_set.names.index(name)].load(laboratory.protocol)
        results = {upscaler.name: upscaler(sample.lr, sample.references) for upscaler in upscalers}
        pictures = list(results.values())
        different = pictures if len(pictures) > 1 else [upscale_bicubic(sample.lr), sample.hr]
        box = choice.crop or choose_crop(different, CROP)
        title = f"{test_set.title} {name}"
        items.append(Slider(title, pictures[0], pictures[-1], upscalers[0].name, upscalers[-1].name))
        items.append(Figure(f"{title}: crops", comparison(sample, results, box)))
        items.append(Figure(f"{title}: errors on luma", error_maps(sample, results)))
        if network and sample.references:
            insight = look_inside(network.model, sample)
            if insight.explanation.matched:
                found = matching(insight.explanation.matched)
                items.append(Figure(f"{title}: matching by {network.name}", found))
            if insight.attention:
                items.append(Figure(f"{title}: attention of {network.name}", attention(insight)))
    return items


def chart_items(laboratory: Laboratory, upscalers: Sequence[Upscaler], benchmark: str, quoted: bool) -> list[Figure]:
    """Make figure 12 (quality, size and runtime) and figures 10 and 11 (shuffled references).

    Args:
        laboratory: measures.
        upscalers: that are compared.
        benchmark: the test set's name.
        quoted: show the paper's figures too.

    Returns:
        What the report shows.
    """
    label = laboratory.test_set(benchmark).label
    contestants = [
        Contestant(
            upscaler.name,
            sum(upscaler.parameters.values()) / 1e6,
            laboratory.evaluate(upscaler, benchmark).mean("psnr_y") or 0.0,
            measure_runtime(upscaler).seconds,
        )
        for upscaler in upscalers
    ]
    if quoted and benchmark == "cufed5":
        contestants += quoted_contestants()
    lines = {
        upscaler.name: [
            laboratory.evaluate(upscaler, benchmark, rule).mean("psnr_y") or 0.0 for rule in SHUFFLES.values()
        ]
        for upscaler in upscalers
    }
    return [
        Figure("Quality, parameters and runtime", bubble_chart(contestants, label)),
        Figure("Shuffled references", line_chart(lines, list(SHUFFLES), f"{label}: patches of the reference shuffled")),
    ]


def quoted_contestants() -> list[Contestant]:
    """The paper's tables V and VI: the models with one number of parameters, and their runtime if it is printed."""
    tables = quoted_tables()
    seconds = {name: float(value) for name, value in tables["V"]["rows"]}
    return [
        Contestant(
            f"{name} (quoted)",
            float(parameters.removesuffix(" M")),
            float(quality.split(" / ")[0]),
            seconds.get(name.removesuffix(" without SIFE").removesuffix("-rec")),
            quoted=True,
        )
        for name, parameters, quality in tables["VI"]["rows"]
        if "+" not in parameters
    ]


def write_gallery(out: Path, items: Sequence[Slider | Figure], text: str) -> None:
    """All figures as PNG files named after their titles, and report.html with everything.

    Raises:
        UserError: a file cannot be written.
    """
    for item in items:
        if isinstance(item, Figure):
            file = out / ("".join(c if c.isalnum() else "_" for c in item.title) + ".png")
            with whole_file(file) as partial:
                item.picture.save(partial, optimize=True)
    write_text(out / "report.html", as_html("Super-resolution report", items, text))
