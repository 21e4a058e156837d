"""What several commands share: one-line mistakes, and the options of models and of the engine."""

import argparse
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from frfsr.errors import UserError
from frfsr.names import DEVICES, DTYPES, require_device_name, require_known
from frfsr.upscaling.options import DEFAULTS, Options, parse_memory, parse_pixels, parse_views

if TYPE_CHECKING:
    from frfsr.network import Network

HUB = ("revision", "token", "subfolder", "cache_dir")
READERS: dict[str, Callable[[str], Any]] = {"views": parse_views, "max_memory": parse_memory}
OF_REFERENCES = ("views", "search", "strength")
"""Settings that do nothing without references."""
METAVARS = {"strength": "S", "max_memory": "SIZE", "views": "HOW", "tile": "N"}


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, as all others of ours."""

    def error(self, message: str) -> NoReturn:
        """End with a mistake."""
        self.exit(2, f"frfsr: {message} (see {self.prog} --help)\n")


class CommandsAfterAll(argparse._SubParsersAction):
    """Commands of a command that also runs by itself, whose own options theirs would silently replace."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_) -> None:
        """Go on with the command that was given, unless options stand before it."""
        for action in parser._actions:
            if action.option_strings and getattr(namespace, action.dest, action.default) is not action.default:
                command = f"{parser.prog} {values[0]}"
                parser.error(f"{action.option_strings[0]} stands before {values[0]}: give it behind, {command} ...")
        super().__call__(parser, namespace, values)


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand.

    Args:
        commands: what `add_subparsers` returned.
        name: of the command.
        run: takes the parsed options and returns the exit code.
        summary: what it does, for the list of commands and its own help.
        examples: for the end of its help.

    Returns:
        Its parser.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_hub_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only concerns models of the Hub."""
    group = parser.add_argument_group("models of the Hugging Face Hub")
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit")
    group.add_argument("--token", help="for private models; default: the one of `hf auth login`")
    group.add_argument("--subfolder", metavar="NAME", help="folder of the repository with config.json")
    group.add_argument("--cache-dir", metavar="DIR", help="where downloads are kept")


def hub_options(options: argparse.Namespace) -> dict[str, str]:
    """Those that were given, as `frfsr.load` takes them."""
    return {name: value for name in HUB if (value := getattr(options, name)) is not None}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `load_networks` needs."""
    parser.add_argument(
        "--model", default="frfsr-tiny", metavar="NAME", help="packaged name, folder or Hub id (%(default)s)"
    )
    parser.add_argument(
        "--base", metavar="NAME", help="file, folder or name of a single-image network: its image is refined"
    )
    parser.add_argument("--device", help=f"{', '.join(DEVICES)}, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument("--dtype", help=f"{', '.join(DTYPES)} (float32)")
    add_hub_arguments(parser)


def check_model_arguments(options: argparse.Namespace) -> None:
    """Refuse names that torch is not needed to refuse.

    Args:
        options: of the command.

    Raises:
        UserError: no such device or dtype.
    """
    if options.device is not None:
        require_device_name(options.device)
    if options.dtype is not None:
        require_known("dtype", options.dtype, DTYPES)


def load_networks(options: argparse.Namespace) -> "tuple[Network, Network | None]":
    """The model, and the network whose image it refines, if any."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch: large tensors in huge pages, see docs/kernels.md
    from frfsr.base import load_with_base

    return load_with_base(options.model, options.base, options.device, options.dtype, **hub_options(options))


def add_upscaling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that the commands share which enlarge photos: what `upscaling_options` reads, and --quiet."""
    parser.add_argument(
        "--reference",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="sharp photos of similar content, of any size, zoom and turn; files, folders or globs",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")
    add_model_arguments(parser)
    add_engine_arguments(parser).add_argument(
        "--max-pixels",
        metavar="SIZE",
        help="largest size that is read, width times height, such as 500MP (268MP); for files that you trust",
    )


def upscaling_options(options: argparse.Namespace) -> Options:
    """Read the engine's settings, and refuse what torch is not needed to refuse.

    Args:
        options: of the command.

    Returns:
        The engine's settings.

    Raises:
        UserError: one is out of range or does nothing, or there is no such device or dtype.
    """
    settings = engine_options(options)
    check_model_arguments(options)
    if not options.reference and getattr(options, "pairs", None) is None:
        for name in OF_REFERENCES:
            if getattr(options, name) is not None:
                raise UserError(f"--{name} changes nothing without a reference: leave it out, or give --reference.")
    return settings


def add_engine_arguments(parser: argparse.ArgumentParser, defaults: Options = DEFAULTS) -> argparse._ArgumentGroup:
    """Add an option for every field of `Options`, described as there.

    Args:
        parser: gets them.
        defaults: for the help; `engine_options` must be given the same.

    Returns:
        The group of them.
    """
    group = parser.add_argument_group("how it is done")
    texts = described(Options)
    for field in fields(Options):
        default = getattr(defaults, field.name)
        told = "" if default is None else f" ({default})"
        kind = next((kind for kind in (field.type, *get_args(field.type)) if kind in (int, float)), str)
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=str if field.name in READERS else kind,
            metavar=METAVARS.get(field.name, "HOW"),
            help=texts.get(field.name, "").replace("%", "%%") + told,
        )
    return group


def engine_options(options: argparse.Namespace, defaults: Options = DEFAULTS) -> Options:
    """Read the settings that were given.

    Args:
        options: of a command that has the arguments of `add_engine_arguments`.
        defaults: the settings that were not given.

    Returns:
        All settings.

    Raises:
        UserError: one is out of range.
    """
    given = {field.name: getattr(options, field.name) for field in fields(Options)}
    return replace(
        defaults, **{name: READERS.get(name, same)(value) for name, value in given.items() if value is not None}
    )


def same(value: Any) -> Any:
    """What argparse has read already."""
    return value


def max_pixels(options: argparse.Namespace) -> int:
    """The largest size that is read.

    Raises:
        UserError: it is no number of pixels.
    """
    from frfsr.imageio import MAX_PIXELS

    return MAX_PIXELS if options.max_pixels is None else parse_pixels(options.max_pixels)


def described(documented: type) -> dict[str, str]:
    """Names and texts of the Attributes section of a docstring."""
    section = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2]
    entries = re.split(r"^ {4}(?=\w+: )", section, flags=re.MULTILINE)
    pairs = (entry.partition(": ") for entry in entries)
    return {name: " ".join(text.split()).removesuffix(".") for name, colon, text in pairs if colon}
