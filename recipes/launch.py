"""How a recipe starts and ends: in this process, or in several; with one line for a mistake, and an exit code."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed.elastic.agent.server.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from frfsr.errors import UserError
from frfsr.recipes.config import MatchingConfig, RunConfig, command_line, load_config

LAUNCHED = "FRFSR_LAUNCHED"  # set in the processes that `launch` starts: it says what they have to say
MISTAKE = 2


def run_recipe(
    train: Callable[..., int], config_class: type[RunConfig], description: str, arguments: Sequence[str] | None = None
) -> int:
    """Run a recipe's command line in this process; returns its exit code, 2 for a mistake, which takes one line.

    Args:
        train: runs a configuration, and returns the exit code.
        config_class: of the configuration.
        description: for --help.
        arguments: `--config FILE KEY=VALUE ...`; by default those of the process.
    """
    return guarded(lambda: train(command_line(config_class, description, arguments)))


def guarded(run: Callable[[], int]) -> int:
    """Do what `run` does; a UserError becomes one line and exit code 2. Afterwards the processes part."""
    try:
        return run()
    except UserError as error:
        report(error)
        return MISTAKE
    finally:
        part()


def report(error: UserError) -> None:
    """Say what is wrong, once for all processes of the run."""
    if LAUNCHED in os.environ:
        get_error_handler().record_exception(error)
    elif os.environ.get("RANK", "0") == "0":
        print(f"{Path(sys.argv[0]).stem}:", *str(error).split(), file=sys.stderr)


def part() -> None:
    """End the process group while everything is still alive: left to the interpreter's end, gloo sometimes hangs."""
    gc.collect()  # DDP's reducers, which use the group, go first
    if distributed.is_initialized():
        distributed.destroy_process_group()


def launch(name: str, settings: Sequence[str], processes: int = 1) -> int:
    """Train by a recipe, `frfsr train`: returns the exit code.

    Args:
        name: a recipe's name or a yaml file.
        settings: KEY=VALUE changes.
        processes: how many, at least 1; each has a GPU of its own, or its share of the CPU cores.

    Raises:
        UserError: a mistake in the configuration, or one that a process found.
    """
    config = load_config(name, settings)
    module = "train_matching" if isinstance(config, MatchingConfig) else "train"
    if processes > 1:
        return launch_several(f"frfsr.recipes.{module}", ["--config", name, *settings], processes)
    if module == "train":
        from frfsr.recipes.train import train
    else:
        from frfsr.recipes.train_matching import train
    try:
        return train(config)
    finally:
        part()


def launch_several(module: str, arguments: Sequence[str], processes: int) -> int:
    """Run `python -m module` with torchrun's launcher."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // processes, 1)))
    os.environ[LAUNCHED] = "1"
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
    )
    try:
        elastic_launch(options, sys.executable)("-m", module, *arguments)
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if first.exitcode == MISTAKE:
            message = first.message["message"] if isinstance(first.message, dict) else first.message
            raise UserError(message.removeprefix(f"{UserError.__name__}: ")) from None
        return first.exitcode if first.exitcode >= 0 else 128 - first.exitcode
    return 0
