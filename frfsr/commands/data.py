"""`frfsr data`: pairs are built from photos, checked, packed, and put on the Hub."""

import argparse
import re
import sys
from dataclasses import asdict, fields
from typing import Any

from frfsr.commands.arguments import add_command, described
from frfsr.data.building.options import BuildOptions
from frfsr.errors import UserError
from frfsr.names import HUB_NAME, require_pack_name

PAIRS = "folder (CUFED, CUFED5, WR-SR, ImageFolder), packs or Hub id, perhaps with @REVISION"
SPLITS = "train (default), test, train[:100], ..."
NOT_IN: dict[str, Any] = dict(metavar="FOLDER", nargs="+", action="extend", default=[])
BUILD_EXAMPLES = """PHOTOS has a folder for each place with two or more photos, which are matched with each other.
input/ + ref/ (CUFED, WR-SR), CUFED5's groups and an ImageFolder with metadata are matched as they are paired.
Beside out.parquet lies out.json, the report. Interrupted, the same command goes on where it stopped.

examples:
  frfsr data build holidays/ pairs.parquet --not-in benchmarks/WR-SR benchmarks/CUFED5
  frfsr data build holidays/ pairs.parquet --zoom 1 1 --per-photo 50
  frfsr data check pairs.parquet && frfsr train tiny_rec data=pairs.parquet out=runs/mine
"""
PUSH_EXAMPLES = """examples:
  frfsr data push pairs.parquet OWNER/NAME --private
  frfsr data push pairs.parquet OWNER/NAME --revision v2 --licence cc-by-4.0
  frfsr data check OWNER/NAME@v2 && frfsr train tiny_rec data=OWNER/NAME@v2 out=runs/mine
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr data`."""
    data = commands.add_parser("data", help="prepare training and test pairs")
    data_commands = data.add_subparsers(metavar="COMMAND", required=True)
    add_build(data_commands)
    pack = add_command(data_commands, "pack", run_pack, "put the pairs of a folder into one Parquet file")
    pack.add_argument("source", metavar="PAIRS", help=PAIRS)
    pack.add_argument("output", metavar="out.parquet")
    add_source_arguments(pack)
    check = add_command(data_commands, "check", run_check, "report count, sizes, and what is wrong with the images")
    check.add_argument("source", metavar="PAIRS", help=PAIRS)
    add_source_arguments(check)
    check.add_argument(
        "--crop", type=int, default=160, metavar="N", help="side of the training crops (160); 0: for evaluation only"
    )
    check.add_argument(
        "--not-in", **NOT_IN, help="benchmarks, folders or packs that must not show the same; extra build"
    )
    push = add_command(data_commands, "push", run_push, "put pairs on the Hugging Face Hub, with a card", PUSH_EXAMPLES)
    push.add_argument("source", metavar="PAIRS", help="a pack, or a folder in a layout that `frfsr data check` reads")
    push.add_argument("repository", metavar="OWNER/NAME", help="the dataset; made if there is none")
    push.add_argument("--split", default="train", metavar="NAME", help=SPLITS)
    push.add_argument("--revision", metavar="BRANCH", help="branch to push to, made if there is none (main)")
    push.add_argument("--token", help="with the right to write; default: the one of `hf auth login`")
    push.add_argument("--private", action="store_true", default=None, help="a dataset that is made now is private")
    push.add_argument("--licence", metavar="NAME", help="of the images, as the Hub names it: cc-by-4.0, ...")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which rows of a source are read."""
    parser.add_argument("--split", default="train", metavar="NAME", help=SPLITS)
    parser.add_argument("--revision", metavar="NAME", help="of a Hub dataset: branch, tag or commit")
    parser.add_argument("--token", help="for private Hub datasets; default: the one of `hf auth login`")


def add_build(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr data build`, with an option for every field of `BuildOptions`, described as there."""
    build = add_command(commands, "build", run_build, "make training pairs of photos of places", BUILD_EXAMPLES)
    build.add_argument("source", metavar="PHOTOS", help="folder of photos, best with a folder for each place")
    build.add_argument("output", metavar="out.parquet")
    build.add_argument(
        "--not-in", **NOT_IN, help="benchmarks, folders or packs: photos that show what they show are left out"
    )
    texts = described(BuildOptions)
    for name, default in asdict(BuildOptions()).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, tuple):
            shown = " ".join(map(str, default))
            build.add_argument(flag, type=float, nargs=2, metavar=("LOW", "HIGH"), help=f"{texts[name]} ({shown})")
        else:
            build.add_argument(flag, type=int, metavar="N", help=f"{texts[name]} ({default})")


def run_build(options: argparse.Namespace) -> int:
    """Build a pack, and print the report.

    Raises:
        UserError: a wrong option, or no photos.
    """
    given = {field.name: getattr(options, field.name) for field in fields(BuildOptions)}
    settings = BuildOptions(**{name: value for name, value in given.items() if value is not None})
    require_pack_name(options.output)  # before OpenCV is imported
    from frfsr.data.building.build import build

    try:
        print(build(options.source, options.output, settings, options.not_in))
    except KeyboardInterrupt:
        print("frfsr: stopped; the same command goes on from here", file=sys.stderr)
        raise
    return 0


def run_pack(options: argparse.Namespace) -> int:
    """Write a pack."""
    from frfsr.data.pairs import pack

    count = pack(options.source, options.output, options.split, revision=options.revision, token=options.token)
    print(f"{count} pairs in {options.output}")
    return 0


def run_check(options: argparse.Namespace) -> int:
    """Print the report.

    Args:
        options: of `frfsr data check`.

    Returns:
        The exit code, 1 if it finds something.
    """
    from frfsr.data.check import check

    report = check(
        options.source,
        options.split,
        options.crop,
        not_in=options.not_in,
        revision=options.revision,
        token=options.token,
    )
    print(report)
    return 0 if report.ok else 1


def run_push(options: argparse.Namespace) -> int:
    """Push, and print the dataset's address.

    Raises:
        UserError: wrong options, faults in the data, or what the Hub refuses.
    """
    if not re.fullmatch(HUB_NAME, options.repository):
        raise UserError(f"{options.repository!r} is no name of a dataset on the Hub: give OWNER/NAME.")
    from frfsr.data.push import push

    print(
        push(
            options.source,
            options.repository,
            options.split,
            revision=options.revision,
            token=options.token,
            private=options.private,
            licence=options.licence,
        )
    )
    return 0
