"""`frfsr upscale`: one photo, or many."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from frfsr.commands.arguments import (
    add_command,
    add_upscaling_arguments,
    load_networks,
    max_pixels,
    upscaling_options,
)
from frfsr.errors import UserError, one_line
from frfsr.files import require_writable_folder
from frfsr.upscaling.options import Options, Report, duration

if TYPE_CHECKING:
    from frfsr.commands.jobs import Job
    from frfsr.imageio import Photo
    from frfsr.network import Network
    from frfsr.upscaling.prepare import EncodedReferences

EXAMPLES = """examples:
  frfsr upscale photo.png --reference sharp.png -o out.png
  frfsr upscale scan.tif --reference day1.jpg day2.jpg -o scan_x4.tif --device cuda --dtype bfloat16
  frfsr upscale photo.png --reference sharp.png -o out.png --base RCAN_BIX4.pth
  frfsr upscale huge.jpg -o huge_x4.png --tile 128      (no reference: what the network makes of the photo alone)
  frfsr upscale photos/ --reference sharp/ -o out/      (paired by name: a.png with a.jpg, a_1.jpg, a/*)
  frfsr upscale 'trip/**/*.jpg' --reference tower.jpg -o out/       (one reference for all; goes on where it stopped)
  curl -s URL | frfsr upscale - --reference sharp.png -o - > out.png
"""
SHOWN = 3  # references that the success line names


class Tools(NamedTuple):
    """What every job of a run needs: see the command's options; kept: references of the job before."""

    model: "Network"
    base: "Network | None"
    settings: Options
    label: str
    kept: "EncodedReferences"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr upscale`."""
    parser = add_command(commands, "upscale", run, "enlarge photos four times", EXAMPLES)
    photos = parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="PNG, JPEG, WebP, TIFF, ...; 8 or 16 bits, grey, colour, with alpha; folders, globs; - is standard input",
    )
    photos.required = False  # argparse cannot tell what took the photo, `run` can
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help=".png, .jpg, .webp or .tif; a folder for several photos; - for a PNG to standard output",
    )
    parser.add_argument("--pairs", metavar="FILE", help="lines of a photo and its references, instead of equal names")
    parser.add_argument("--force", action="store_true", help="make results again that are in the output folder")
    add_upscaling_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Enlarge the photos.

    Args:
        options: of `frfsr upscale`.

    Returns:
        The exit code, 1 if some of a batch failed.

    Raises:
        UserError: no photo, or wrong options; of a single photo also what is wrong with it.
    """
    settings = upscaling_options(options)
    if not options.photos and options.pairs is None:
        taken = f": --reference took {' and '.join(options.reference)}" if options.reference else ""
        raise UserError(f"no photo{taken}; give it first: frfsr upscale PHOTO --reference FILE -o OUT.")
    from frfsr.commands.jobs import plan

    jobs, is_batch = plan(options.photos or [], options.reference, options.output, options.pairs)
    return run_batch(jobs, settings, options) if is_batch else run_one(jobs[0], settings, options)


def run_one(job: "Job", settings: Options, options: argparse.Namespace) -> int:
    """Enlarge one photo.

    Raises:
        UserError: an image cannot be read or written, or standard output is a terminal.
    """
    from frfsr.commands.jobs import STREAM

    with TemporaryDirectory() as folder:
        place = job.output
        if job.output == STREAM:
            if sys.stdout.isatty():
                raise UserError("standard output is a terminal: write -o FILE, or -o - > out.png.")
            place = str(Path(folder, "out.png"))
        images = read_images(job, place, max_pixels(options))
        tools = load_tools(settings, options)
        upscale_job(job, images, place, tools, quiet=options.quiet)
        if job.output == STREAM:
            sys.stdout.buffer.write(Path(place).read_bytes())
            sys.stdout.buffer.flush()
    return 0


def load_tools(settings: Options, options: argparse.Namespace) -> Tools:
    """Load the networks."""
    model, base = load_networks(options)
    from frfsr.upscaling.prepare import EncodedReferences

    return Tools(model, base, settings, Path(options.model).name, EncodedReferences())


def run_batch(jobs: "list[Job]", settings: Options, options: argparse.Namespace) -> int:
    """Enlarge all photos whose results are not there yet; faults of single photos do not stop it.

    Raises:
        UserError: the output folder cannot be written to, or there is no such model.
    """
    from tqdm import tqdm

    limit = max_pixels(options)
    require_writable_folder(options.output)
    todo = [job for job in jobs if options.force or not Path(job.output).exists()]
    present = [job for job in jobs if not options.force and Path(job.output).exists()]
    faults = [fault for job in present if (fault := fault_of(job, limit))]
    skipped = len(present) - len(faults)
    if skipped and not options.quiet:
        print(f"frfsr: {skipped} of {len(jobs)} are there already: skipped (--force makes them again)", file=sys.stderr)
    done = 0
    try:
        if todo:
            tools = load_tools(settings, options)
            for job in tqdm(todo, desc="upscale", unit="photo", disable=options.quiet):
                try:
                    images = read_images(job, job.output, limit)
                    upscale_job(job, images, job.output, tools, quiet=options.quiet, is_batch=True)
                    done += 1
                except UserError as error:
                    text = one_line(error)
                    faults.append(text if job.photo in text else f"{job.photo}: {text}")
    finally:  # also when it is interrupted
        for fault in faults:
            print("frfsr:", one_line(fault), file=sys.stderr)
        if faults or not options.quiet:
            missing = len(jobs) - done - skipped - len(faults)
            rest = f", {missing} not begun: the same command goes on" if missing else ""
            print(f"frfsr: {done} written, {skipped} skipped, {len(faults)} failed{rest}", file=sys.stderr)
    return 1 if faults else 0


def fault_of(job: "Job", limit: int) -> str | None:
    """What is wrong with a result that is there already; None if it is the whole one."""
    from frfsr.imageio import read_photo

    try:
        photo = read_photo(job.photo, max_pixels=limit)
        height, width = (4 * side for side in photo.pixels.shape[:2])
        result = read_photo(job.output, max_pixels=16 * limit, strict=True)
        if result.pixels.shape[:2] == (height, width):
            return None
        reason = f"{result.pixels.shape[1]}x{result.pixels.shape[0]} pixels are not {width}x{height}"
    except UserError as error:
        reason = one_line(error)
    return f"{job.output} exists, but is not the result of {job.photo} ({reason}): give --force to replace it."


def read_images(job: "Job", place: str, limit: int) -> "list[Photo]":
    """Read the photo and its references.

    Args:
        job: names them.
        place: where the result is to be written.
        limit: pixels of an image, at most.

    Returns:
        The photo, then its references.

    Raises:
        UserError: one of them cannot be read, or the result not be written.
    """
    from frfsr.commands.jobs import STREAM
    from frfsr.imageio import check_output, read_photo

    photo = read_photo(
        sys.stdin.buffer.read() if job.photo == STREAM else job.photo,
        max_pixels=limit,
        name="standard input" if job.photo == STREAM else None,
    )
    references = [read_photo(path, max_pixels=limit) for path in job.references]
    height, width = photo.pixels.shape[:2]
    inputs = [name for name in (job.photo, *job.references) if name != STREAM]
    check_output(place, 4 * height, 4 * width, photo.has_alpha, inputs)
    return [photo, *references]


def upscale_job(
    job: "Job", images: "list[Photo]", place: str, tools: Tools, *, quiet: bool, is_batch: bool = False
) -> None:
    """Compute and write one result, and say so.

    Args:
        job: names the files.
        images: the photo, then its references.
        place: where the result is written.
        tools: networks and settings.
        quiet: show no progress.
        is_batch: it is one of several.
    """
    from tqdm import tqdm

    from frfsr.imageio import write_photo
    from frfsr.upscaling.upscale import upscale_photo

    start = perf_counter()
    upscaled = upscale_photo(
        images[0],
        images[1:],
        tools.model,
        tools.settings,
        base=tools.base,
        names=job.references,
        progress=not (quiet or is_batch),
        kept=tools.kept,
    )
    write_photo(upscaled.photo, place)
    lines = [f"warning: {line}" for line in upscaled.report.warnings]
    if not quiet:
        lines += upscaled.report.notes
        height, width = upscaled.photo.pixels.shape[:2]
        seconds = duration(perf_counter() - start)
        sources = describe_views(upscaled.report, job.references)
        lines.append(f"{job.output}: {width}x{height} in {seconds} by {tools.label}, {sources}")
    for line in lines:
        tqdm.write(f"frfsr: {one_line(line)}", file=sys.stderr)


def describe_views(report: Report, names: Iterable[str]) -> str:
    """Which references, and which views of them, a result was made with."""
    names = [Path(name).name for name in names]
    if not report.views:
        return "no reference used" if names else "without references"
    told = []
    for view in sorted(report.views, key=lambda view: -view.share)[:SHOWN]:
        facts = [f"x{view.zoom:.2f}"] if view.zoom != 1 else []
        facts += [f"turned by {view.turn}°"] if view.turn else []
        facts += [f"{view.share:.0%}"] if len(report.views) > 1 else []
        told.append(names[view.reference] + (f" ({', '.join(facts)})" if facts else ""))
    rest = len(report.views) - SHOWN
    return f"with {', '.join(told)}" + (f" and {rest} more" if rest > 0 else "")
