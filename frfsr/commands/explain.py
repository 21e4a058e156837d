"""`frfsr explain`: where the textures of one result come from."""

import argparse
import sys

from frfsr.commands.arguments import (
    add_command,
    add_upscaling_arguments,
    load_networks,
    max_pixels,
    upscaling_options,
)
from frfsr.errors import UserError

EXAMPLES = """examples:
  frfsr explain photo.png --reference sharp.png -o explained/

writes result, without_references, change (black: none), matches (the hues of view_1_places tell where), confidence,
source (which view), warped (the references' pixels at their places) as PNG, and all numbers as explanation.json
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr explain`."""
    parser = add_command(commands, "explain", run, "show where the textures of a result come from", EXAMPLES)
    photo = parser.add_argument("photos", nargs="+", metavar="PHOTO", help="the photo")
    photo.required = False  # as in `frfsr upscale`
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the pictures and numbers")
    add_upscaling_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Write the pictures and numbers.

    Raises:
        UserError: not one photo, no reference, or an image that cannot be read.
    """
    settings = upscaling_options(options)
    if not options.reference:
        raise UserError("nothing to explain without a reference: give --reference FILE.")
    if len(options.photos or []) != 1:
        taken = f"; --reference took {' and '.join(options.reference)}" if not options.photos else ""
        raise UserError(f"one photo is explained at a time{taken}: frfsr explain PHOTO --reference FILE -o DIR.")
    from frfsr.commands.jobs import expand
    from frfsr.files import require_writable_folder
    from frfsr.imageio import read_photo

    references, limit = expand(options.reference), max_pixels(options)
    photo, *opened = [read_photo(path, max_pixels=limit) for path in (*options.photos, *references)]
    require_writable_folder(options.output)
    model, base = load_networks(options)
    from frfsr.upscaling.explain import explain_photo

    explained = explain_photo(photo, opened, model, settings, base=base, names=references, progress=not options.quiet)
    explained.save(options.output)
    for line in explained.report.warnings:
        print("frfsr: warning:", line, file=sys.stderr)
    if not options.quiet:
        numbers = explained.numbers()
        told = [f"{numbers['change']['changed_share']:.0%} of the pixels changed by the references"]
        if numbers["confidence"]:
            told.append(f"mean confidence {numbers['confidence']['mean']:.2f}")
        print(f"frfsr: {options.output}: {', '.join(told)}", file=sys.stderr)
    return 0
