"""Write docs/zoo.md from what the package knows: `python docs/zoo.py`. A test fails where the two differ."""

from collections.abc import Callable, Iterator
from pathlib import Path

from frfsr.architectures import ARCHITECTURES, Architecture
from frfsr.listing import published_size
from frfsr.network import Network
from frfsr.peers.single_image import SingleImageNetwork

PAGE = Path(__file__).with_name("zoo.md")
INTRODUCTION = """# Networks

<!-- Written by docs/zoo.py from frfsr/architectures.py and publications.py. -->

Every network is called alike, `model(lr, references).image`, and is known by its name to `frfsr upscale`, `eval`,
`train`, `convert` and `frfsr.load`. Parameters are those of the published size. No published weights come with the
package: fetch them from their authors, mind the licence, and convert them once:

```bash
frfsr convert --arch masa masa_rec.pth masa/      # config.json and model.safetensors
frfsr upscale photo.png --reference sharp.png -o out.png --model masa
```

Weights of our own inside the package: `frfsr-tiny`, `frfsr-tiny-gan` for the eye,
`frfsr-tiny-real` for photos with noise and JPEG artefacts.
"""
SECTIONS = {
    "With references": lambda entry: (
        issubclass(entry.module, Network) and not issubclass(entry.module, SingleImageNetwork)
    ),
    "Single-image networks": lambda entry: issubclass(entry.module, SingleImageNetwork),
    "Parts": lambda entry: not issubclass(entry.module, Network),
}
REMARKS = {
    "With references": "",
    "Single-image networks": """
They are rows of tables, and base images for the networks above: `--base FILE`. Whatever
[spandrel](https://github.com/chaiNNer-org/spandrel) knows at ×4 serves as well, by its file.
""",
    "Parts": """
They make no image by themselves; training starts from them.
""",
}


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(
        "\n".join(["", f"## {title}", REMARKS[title], *table(belongs), ""]) for title, belongs in SECTIONS.items()
    )


def table(belongs: Callable[[Architecture], bool]) -> Iterator[str]:
    """Lines of the table of those architectures that belong into it."""
    yield "| name | network | parameters | needs | weights | licence |"
    yield "|---|---|---|---|---|---|"
    for name, entry in ARCHITECTURES.items():
        if belongs(entry):
            published = entry.publication
            code = ", ".join(f"[{place.split('/')[1]}](https://{place})" for place in published.code.split(", "))
            files = f"; convert {', '.join(entry.checkpoint_parts)}" if entry.checkpoint_parts else ""
            millions = sum(parameter.numel() for parameter in published_size(entry.module).parameters()) / 1e6
            cells = [f"`{name}`", f"{published.title}: {published.paper}. Code of {code}", f"{millions:.2f} M"]
            cells += [entry.module.needs(), published.weights + files, published.licence]
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
