"""From the arguments of ``frfsr eval`` to what runs: settings, test sets, models (only they import torch)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from frfsr.errors import UserError
from frfsr.evals.choices import BICUBIC, PUBLISHED, ReferenceRule
from frfsr.files import require_writable_folder
from frfsr.names import require_device_name
from frfsr.upscaling.options import Options

if TYPE_CHECKING:
    from frfsr.evals.benchmarks import TestSet
    from frfsr.evals.paper import Laboratory
    from frfsr.evals.protocol import Protocol
    from frfsr.evals.upscalers import Upscaler


def read_protocol(options: argparse.Namespace) -> "Protocol":
    """Read what is measured, before anything is loaded.

    Args:
        options: of the command.

    Returns:
        The protocol.

    Raises:
        UserError: something that it needs is missing.
    """
    from frfsr.evals.protocol import Protocol

    if options.device is not None:
        require_device_name(options.device)
    if options.jobs < 1:
        raise UserError("--jobs must be at least 1")
    protocol = Protocol(options.lr, options.border, options.lpips)
    from frfsr.evals.metrics import require_extras

    require_extras(protocol.lpips is not None, protocol.alexnet_file)
    return protocol


def describe(engine: Options, base: str | None) -> str:
    """How networks were run, in one line: what changes results, and of the rest what is not as usual."""
    told = [f"views {engine.views}", f"strength {engine.strength:g}", f"enlarged LR {engine.upsampled}"]
    rest = {"search": engine.search, "tiles of": engine.tile, "bytes of memory": engine.max_memory}
    told += [f"{what} {value}" for what, value in rest.items() if value not in (None, PUBLISHED.search)]
    return f"networks: {', '.join(told)}{f', refining {Path(base).stem}' if base else ''}"


def open_test_sets(
    paths: dict[str, str | Path], reference: ReferenceRule, level: int, protocol: "Protocol"
) -> "list[TestSet]":
    """A `TestSet` per path; for CUFEDR only CUFED5, with the others as the pool of references.

    Args:
        paths: by name.
        reference: the rule for references.
        level: of their relevance, from 1 on.
        protocol: what is measured.

    Returns:
        The test sets.

    Raises:
        UserError: a path holds no test set, or one of which no image can be measured; CUFEDR comes without CUFED5.
    """
    from frfsr.evals.benchmarks import TestSet
    from frfsr.evals.evaluation import require_measurable

    if reference == "cufedr":
        pool = {name: TestSet(name, path) for name, path in paths.items() if name != "cufed5"}
        if "cufed5" not in paths:
            raise UserError("CUFEDR is made of the images of CUFED5: give cufed5=PATH too")
        test_sets = [TestSet("cufed5", paths["cufed5"], reference, pool=pool)]
    else:
        test_sets = [TestSet(name, path, reference, level) for name, path in paths.items()]
    for test_set in test_sets:
        require_measurable(test_set, protocol)
    return test_sets


def open_laboratory(options: argparse.Namespace, paths: dict[str, str | Path]) -> "Laboratory":
    """The `Laboratory` of ``--data``, its scores cached in ``--out``, which is made if needed.

    Raises:
        UserError: the folder cannot be written to, or no image of a test set can be measured.
    """
    protocol = read_protocol(options)
    require_writable_folder(options.out)
    from frfsr.evals.cache import ScoreCache
    from frfsr.evals.evaluation import require_measurable
    from frfsr.evals.paper import Laboratory

    laboratory = Laboratory(paths, protocol, ScoreCache(Path(options.out) / "cache"), options.jobs)
    for name in paths:
        require_measurable(laboratory.test_set(name), protocol)
    return laboratory


def load_upscalers(options: argparse.Namespace, engine: Options) -> "list[Upscaler]":
    """The models of ``--models``, and those of ``--sisr``, which look at no reference.

    Raises:
        UserError: there is no such model, none that refines ``--base``, or two have one name.
    """
    if options.base is not None and all(name == BICUBIC for _, name in map(labelled, options.models)):
        raise UserError("--base changes nothing: none of --models refines another network's image; leave it out.")
    from accelerate import PartialState

    from frfsr.base import load_single_image
    from frfsr.evals.upscalers import NetworkUpscaler, short_name

    device = options.device or PartialState().device
    upscalers = load_models(options, engine, options.models) + [
        NetworkUpscaler(load_single_image(name, device), label or short_name(name), engine)
        for label, name in map(labelled, options.sisr)
    ]
    names = [upscaler.name for upscaler in upscalers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two models are called {twice}: tell them apart by LABEL=NAME.")
    return upscalers


def load_models(options: argparse.Namespace, engine: Options, models: Sequence[str]) -> "list[Upscaler]":
    """Models by NAME or LABEL=NAME."""
    from frfsr.evals.protocol import Protocol
    from frfsr.evals.upscalers import load_upscaler

    interpolation, upscalers = Protocol(options.lr).interpolation, []
    for label, name in map(labelled, models):
        base = None if name == BICUBIC else options.base
        upscaler = load_upscaler(name, interpolation, options.device, engine, base=base)
        upscaler.name = label or upscaler.name
        upscalers.append(upscaler)
    return upscalers


def labelled(entry: str) -> tuple[str, str]:
    """LABEL=NAME -> (LABEL, NAME), NAME -> ("", NAME)."""
    label, _, name = entry.rpartition("=")
    return label, name
