"""Model cards: what a stranger on the Hub reads about weights, and the facts by which the Hub files them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from frfsr.publications import PUBLICATIONS, Needs, Publication

PAPER = "https://arxiv.org/abs/2306.01500"
CODE = "https://github.com/frfsr/frfsr"
TAGS = ["super-resolution", "reference-based-super-resolution"]
HUB_LICENCES = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-ND 4.0": "cc-by-nc-nd-4.0",
}
LIMITS = """## Limits

- x4, no other factor. LR images as the training made them: unless said above, photos reduced by bicubic interpolation,
  without noise or JPEG artefacts, which are not removed.
- What comes from a reference is a guess about the photo, not evidence of what was there."""


@dataclass(frozen=True)
class Origin:
    """Where weights come from, as far as it is known.

    Attributes:
        text: a paragraph of Markdown for the card's section on training.
        licence: as the Hub names licences; None leaves it to whoever publishes the weights.
        datasets: Hub ids of the training data.
        base_model: Hub id or packaged name that the training began with.
        results: measured figures with their protocol.
    """

    text: str = "Nothing is recorded about the training of these weights."
    licence: str | None = None
    datasets: Sequence[str] = ()
    base_model: str | None = None
    results: Sequence[EvalResult] = ()


UNKNOWN = Origin()


def converted(published: Publication) -> Origin:
    """The origin of weights that others published."""
    text = (
        f"Weights published by the authors of {published.title} ({published.paper}, code at "
        f"https://{published.code.split(', ')[0]}), converted by `frfsr convert`. "
        f"Licence of the published code and weights: {published.licence}."
    )
    return Origin(text, HUB_LICENCES.get(published.licence, "other"))


def measured(dataset: str, scores: Mapping[str, float], protocol: str) -> list[EvalResult]:
    """Figures on one set, for `Origin.results`.

    Args:
        dataset: its name, with the number of its images where it is not complete.
        scores: metric, as the Hub names it (psnr, ssim, lpips) -> mean over the images.
        protocol: how they were measured, in one line.

    Returns:
        A result for each metric.
    """
    identity = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")
    return [
        EvalResult("image-to-image", identity, dataset, metric, value, "Super-resolution x4", metric_config=protocol)
        for metric, value in scores.items()
    ]


def model_card(
    architecture: str, parameters: int, needs: Needs, name: str | None = None, origin: Origin = UNKNOWN
) -> ModelCard:
    """Write the card of a network, or of a part of one.

    Args:
        architecture: a key of `frfsr.publications.PUBLICATIONS`.
        parameters: how many it has.
        needs: what it super-resolves with.
        name: heading of the card; by default the architecture's name.
        origin: of its weights.

    Returns:
        The card.
    """
    published = PUBLICATIONS[architecture]
    known: dict[str, Any] = given(license=origin.licence, datasets=list(origin.datasets), base_model=origin.base_model)
    if origin.results:
        known |= dict(model_name=name or architecture, eval_results=list(origin.results))
    data = ModelCardData(
        library_name="frfsr",
        pipeline_tag="image-to-image",
        tags=TAGS,
        **known,
    )
    paper = f"[{published.paper}]({PAPER})" if architecture.startswith("frfsr") else published.paper
    sections = [
        f"# {name or architecture}",
        f"{published.title} ({paper}): {needs}. {parameters / 1e6:.2f} M parameters. For [frfsr]({CODE}).",
        usage(needs),
        f"## Training\n\n{origin.text}",
        LIMITS,
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def usage(needs: Needs) -> str:
    """How to use it, in code."""
    if needs is Needs.PART:
        return "## Use\n\nA part of a network: training starts from it, by `init: {PART: THIS_REPOSITORY}` in a recipe."
    references = "" if needs is Needs.NO_REFERENCE else '["sharp.png"], '
    code = f'import frfsr\n\nimage = frfsr.upscale("photo.png", {references}model="OWNER/NAME")'
    command = "frfsr upscale photo.png " + ("--reference sharp.png " if references else "")
    return f"## Use\n\n```python\n{code}\n```\n\n```bash\n{command}-o out.png --model OWNER/NAME\n```"


def given(**facts: Any) -> dict[str, Any]:
    """Those facts that say something."""
    return {name: value for name, value in facts.items() if value}
