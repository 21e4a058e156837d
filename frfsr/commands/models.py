"""`frfsr models`, `info` and `convert`: what networks there are, what one holds, published checkpoints made ours."""

import argparse
from collections.abc import Sequence

from frfsr.commands.arguments import add_command, add_hub_arguments, hub_options
from frfsr.names import require_known
from frfsr.publications import PUBLICATIONS

MODELS_EXAMPLES = """`frfsr convert` makes a folder of published weights, for --model of the other commands.
More single-image networks (RCAN, SwinIR, HAT, ...) are known through spandrel: --base FILE, eval --sisr FILE.
"""
CONVERT_EXAMPLES = f"""architectures: {", ".join(PUBLICATIONS)}
(`frfsr models` tells what they are, and where weights are found)

examples:
  frfsr convert TTSR.pt ttsr/ --arch ttsr && frfsr upscale photo.png --reference sharp.png -o out.png --model ttsr
  frfsr convert net_g=restoration.pth extractor=contras.pth vgg=vgg19.pth c2/ --arch c2-matching
  frfsr convert net_g=rec.pth extractor=contras.pth vgg=vgg19.pth rrdb=RRDB_PSNR_x4.pth out/ --arch frfsr
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr models`, `frfsr info` and `frfsr convert`."""
    models = add_command(commands, "models", run_models, "list architectures and packaged weights", MODELS_EXAMPLES)
    models.add_argument("--json", action="store_true", help="as JSON, with the repositories of the published code")

    info = add_command(commands, "info", run_info, "show a model's configuration and parameters by part")
    info.add_argument(
        "model",
        nargs="?",
        default="frfsr-tiny",
        help="packaged name, folder, Hub id or architecture at its published size (%(default)s)",
    )
    add_hub_arguments(info)

    convert = add_command(
        commands, "convert", run_convert, "turn published checkpoints into safetensors", CONVERT_EXAMPLES
    )
    convert.add_argument(
        "checkpoint", nargs="+", metavar="[PART=]FILE", help=".pth or .safetensors; PART= where there are several"
    )
    convert.add_argument("output", metavar="DIR", help="folder for config.json and model.safetensors")
    convert.add_argument("--arch", required=True, metavar="NAME", help="an architecture, see below")


def run_models(options: argparse.Namespace) -> int:
    """Print the tables."""
    import json
    from dataclasses import asdict

    from frfsr.listing import architectures, packaged

    known, weights = architectures(), packaged()
    if options.json:
        listed = {"architectures": list(map(asdict, known)), "packaged": list(map(asdict, weights))}
        print(json.dumps(listed, indent=2))
        return 0
    head = ("architecture", "what it is", "paper", "parameters", "needs", "licence of code and weights", "weights")
    rows = [
        (entry.name, entry.title, entry.paper, millions(entry.parameters), entry.needs, entry.licence, entry.weights)
        for entry in known
    ]
    print(aligned([head, *rows]))
    print()
    head = ("packaged", "what it is", "architecture", "parameters", "size", "licence")
    rows = [
        (
            entry.name,
            entry.title,
            entry.architecture,
            millions(entry.parameters),
            f"{entry.bytes / 1e6:.1f} MB",
            entry.licence,
        )
        for entry in weights
    ]
    print(aligned([head, *rows]))
    return 0


def millions(parameters: int) -> str:
    """As papers give it: 16.92 M, 0.06 M."""
    return f"{parameters / 1e6:.2f} M"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def run_info(options: argparse.Namespace) -> int:
    """Print a model's configuration and its parameters by part."""
    from dataclasses import asdict

    from frfsr.listing import open_module

    architecture, module = open_module(options.model, **hub_options(options))
    for name, value in {"architecture": architecture, **asdict(module.config)}.items():
        print(f"{name:20} {value}")
    print()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in module.named_children()}
    for name, count in [*counts.items(), ("all", sum(p.numel() for p in module.parameters()))]:
        print(f"{name:20} {count:12,} parameters  {4 * count / 2**20:8.2f} MiB")
    return 0


def run_convert(options: argparse.Namespace) -> int:
    """Convert checkpoints."""
    require_known("architecture", options.arch, tuple(PUBLICATIONS))
    from frfsr.convert import convert_files

    convert_files(options.checkpoint, options.output, options.arch)
    print(f"{options.output}: {options.arch}, for --model {options.output}")
    return 0
