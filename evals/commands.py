"""``frfsr eval``: its arguments (without importing torch) and what it does."""

import argparse

from frfsr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of ``frfsr eval``."""
    parser.add_argument(
        "--data",
        metavar="NAME=PATH",
        nargs="+",
        required=True,
        help="test sets, for example wrsr=DIR cufed5=DIR urban100=DIR; folders, Parquet packs or Hub ids",
    )
    parser.add_argument(
        "--model", metavar="NAME", nargs="+", default=["frfsr-tiny"], help="names, folders, Hub ids, or bicubic"
    )
    parser.add_argument(
        "--reference",
        choices=["true", "rotated", "lr", "all"],
        default="true",
        help="the image's own, another image's (unrelated), its own enlarged LR, or all its own at once",
    )
    parser.add_argument("--reference-level", metavar="N", type=int, default=1, help="1 (most relevant, default) to 5")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")
    parser.add_argument("--json", metavar="FILE", help="write all figures, per image too")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates every model on every test set; returns the exit code, 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models.
    """
    from frfsr.evals.benchmarks import TestSet
    from frfsr.evals.evaluate import as_table, evaluate, write_json
    from frfsr.evals.upscalers import load_upscaler

    named = [entry.partition("=") for entry in arguments.data]
    if wrong := [name for name, equals, path in named if not (name and equals and path)]:
        raise UserError(f"--data takes NAME=PATH, for example wrsr={wrong[0] or 'DIR'}")
    test_sets = [TestSet(name, path, arguments.reference, arguments.reference_level) for name, _, path in named]
    upscalers = [load_upscaler(name, arguments.device) for name in arguments.model]
    results = [evaluate(upscaler, test_set) for test_set in test_sets for upscaler in upscalers]
    print(as_table(results))
    if arguments.json:
        write_json(results, arguments.json)
    return int(any(result.failures for result in results))
