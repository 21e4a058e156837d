"""The command `frfsr`. Torch is imported by the subcommands that compute, so that help and mistakes answer at once."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from frfsr.commands import data, explain, models, page, training, upscale
from frfsr.commands.arguments import Parser, add_command
from frfsr.errors import ImageWarning, UserError, one_line
from frfsr.evals import commands as evaluation

FINDINGS, PROBLEM, INTERRUPTED = 1, 2, 130  # exit codes; argparse, too, answers bad input with 2
EXTRAS = {"datasets": "data", "pyarrow": "data", "fsspec": "data", "accelerate": "data", "cv2": "build"}
"""Packages that whole commands need -> the extra that has them."""
NO_ROOM = re.compile("failed to map segment|cannot allocate memory", re.IGNORECASE)
"""How the dynamic linker says that a library does not fit into memory."""
SHELLS = ("bash", "zsh", "tcsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit code: 0, 1 for findings, 2 for bad input, 130 when interrupted.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its warnings about a wrong name would bury our one line
    try:
        try:
            options = build_parser().parse_args(arguments)
            with warnings.catch_warnings():
                warnings.showwarning = show_warning
                return options.run(options)
        finally:
            sys.stdout.flush()  # here, and not at Python's end, where nobody can answer a broken pipe
    except UserError as error:
        print("frfsr:", one_line(error), file=sys.stderr)
        return PROBLEM
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(f"frfsr: this needs {error.name}: pip install 'frfsr[{EXTRAS[error.name]}]'", file=sys.stderr)
        return PROBLEM
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not NO_ROOM.search(str(error)):
            raise
        print("frfsr: not enough memory: close other programs, or take smaller photos.", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as in `frfsr models | head -1`: nobody reads on, and Python must not complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINDINGS
    except OSError as error:  # a name that is too long, a disk that is full or fails: nothing that a traceback explains
        place = f"{one_line(error.filename)[:200]}: " if error.filename else ""
        print(f"frfsr: {place}{error.strerror or one_line(error)}", file=sys.stderr)
        return PROBLEM


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_, **__) -> None:
    """Print a warning about a file in one line, any other as Python does; arguments as for `warnings.showwarning`."""
    is_ours = issubclass(category, ImageWarning)
    text = f"frfsr: {one_line(message)}\n" if is_ours else warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(text)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = Parser(
        prog="frfsr", description="Reference-based super-resolution: photos four times as large, with real textures."
    )
    parser.add_argument("--version", action="version", version=f"frfsr {version('frfsr')}")
    parser.add_argument(
        "--print-completion", action=PrintCompletion, choices=SHELLS, help="print a script that completes commands"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    upscale.add_parser(commands)
    explain.add_parser(commands)
    evaluation.add_arguments(
        add_command(commands, "eval", evaluation.run, "measure PSNR and SSIM on test sets", evaluation.EXAMPLES)
    )
    data.add_parser(commands)
    training.add_parser(commands)
    models.add_parser(commands)
    page.add_parser(commands)
    return parser


class PrintCompletion(argparse.Action):
    """Print the script of a shell, and end."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values, *_) -> None:
        """Print the script."""
        try:
            import shtab
        except ImportError as error:
            raise UserError("completion needs shtab: pip install 'frfsr[completion]'") from error
        print(shtab.complete(parser, shell=values))
        parser.exit()
