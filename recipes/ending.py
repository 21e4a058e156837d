"""How a recipe's process ends: with one line for a mistake, an exit code, and its processes parted."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from torch import distributed

from frfsr.errors import UserError
from frfsr.recipes.config import Config, command_line

MISTAKE_FILE = "FRFSR_MISTAKE_FILE"  # set in the processes that `launch` starts, which says what they have to say
MISTAKE, INTERRUPTED = 2, 130


def run_recipe(
    train: Callable[[Config], int],
    config_class: type[Config],
    description: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a recipe's command line in this process.

    Args:
        train: runs a configuration, and returns the exit code.
        config_class: of the configuration.
        description: for --help.
        arguments: `--config FILE KEY=VALUE ...`; by default those of the process.

    Returns:
        The exit code, 2 for a mistake, which takes one line.
    """
    return guarded(lambda: train(command_line(config_class, description, arguments)))


def guarded(run: Callable[[], int]) -> int:
    """Make a UserError one line and exit code 2. Afterwards the processes part.

    One of several processes that finds a mistake says so and leaves at once: gloo sometimes hangs when processes part
    at different places. What the others meet then, in whatever they were doing together, is not worth a word.

    Args:
        run: gives an exit code.

    Returns:
        The exit code; 130 if it was interrupted where nothing could be saved.
    """
    try:
        return run()
    except UserError as error:
        report(error)
        if MISTAKE_FILE in os.environ:
            os._exit(MISTAKE)
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    except RuntimeError:
        if Path(os.environ.get(MISTAKE_FILE, "")).is_file():
            os._exit(MISTAKE)
        raise
    finally:
        part()


def report(error: UserError) -> None:
    """Say what is wrong, once for all processes of the run."""
    if MISTAKE_FILE in os.environ:
        with suppress(FileExistsError), open(os.environ[MISTAKE_FILE], "x") as file:
            file.write(str(error))
    elif os.environ.get("RANK", "0") == "0":
        print(f"{Path(sys.argv[0]).stem}:", *str(error).split(), file=sys.stderr)


def part() -> None:
    """End the process group while everything is still alive: left to the interpreter's end, gloo sometimes hangs."""
    gc.collect()  # DDP's reducers, which use the group, go first
    if distributed.is_initialized():
        distributed.destroy_process_group()
