"""How a recipe starts and ends: in this process, or in several; with one line for a mistake, and an exit code."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from frfsr.errors import UserError
from frfsr.recipes.config import Config, MatchingConfig, command_line, load_config

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


def launch(name: str, settings: Sequence[str], processes: int = 1) -> int:
    """Train by a recipe, `frfsr train`.

    Args:
        name: a recipe's name or a yaml file.
        settings: KEY=VALUE changes.
        processes: how many, at least 1; each has a GPU of its own, or its share of the CPU cores.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the configuration, or one that a process found.
    """
    config = load_config(name, settings)
    if processes > 1:
        module = "train_matching" if isinstance(config, MatchingConfig) else "train"
        return launch_several(f"frfsr.recipes.{module}", ["--config", name, *settings], processes)
    from frfsr.recipes import train, train_matching

    try:
        return train_matching.train(config) if isinstance(config, MatchingConfig) else train.train(config)
    finally:
        part()


def launch_several(module: str, arguments: Sequence[str], processes: int) -> int:
    """Run `python -m module` with torchrun's launcher.

    Raises:
        UserError: the mistake that a process found.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // processes, 1)))
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    options = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,  # a mistake stays one, and a run goes on by the same command
    )
    with TemporaryDirectory() as folder:
        mistake = Path(folder, "mistake")
        os.environ[MISTAKE_FILE] = str(mistake)
        try:
            elastic_launch(options, sys.executable)("-m", module, *arguments)
        except SignalException as stopped:
            return 128 + stopped.sigval
        except ChildFailedError as failed:
            if mistake.exists():
                raise UserError(mistake.read_text()) from None
            _, first = failed.get_first_failure()
            return first.exitcode if first.exitcode >= 0 else 128 - first.exitcode
        finally:
            del os.environ[MISTAKE_FILE]
    return 0
