"""How a recipe starts from `frfsr train`: in this process, or in several."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from frfsr.errors import UserError
from frfsr.recipes import train, train_matching
from frfsr.recipes.config import MatchingConfig, load_config
from frfsr.recipes.ending import MISTAKE_FILE, part


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
