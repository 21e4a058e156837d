"""``frfsr eval``: its arguments (without importing torch) and what it does."""

import argparse
from pathlib import Path

from frfsr.errors import UserError

EXAMPLES = """examples:
  frfsr eval --data wrsr=data/WR-SR --model frfsr-tiny bicubic --json wrsr.json
  frfsr eval --data cufed5=data/CUFED5 --reference rotated
"""
RULES = ["true", "all", "lr", "rotated", "easy", "medium", "hard", "cufedr"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of ``frfsr eval``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--data",
        metavar="NAME=PATH",
        nargs="+",
        required=True,
        help="cufed5, sun80, urban100, manga109, wrsr, set5 or a name of your own; a folder, Parquet pack or Hub id",
    )
    parser.add_argument(
        "--model", metavar="NAME", nargs="+", default=["frfsr-tiny"], help="names, folders, Hub ids, bicubic"
    )
    parser.add_argument(
        "--reference",
        choices=RULES,
        default="true",
        help="which reference: as the benchmark says (default), all at once, the enlarged LR, another image's "
        "(unrelated), the true one with its patches shuffled, or one of Urban100, Manga109 and Sun80",
    )
    parser.add_argument("--reference-level", metavar="N", type=int, default=1, help="1 (most relevant, default) to 5")
    parser.add_argument("--json", metavar="FILE", help="write all figures, per image too")
    add_shared_arguments(parser)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every kind of evaluation."""
    parser.add_argument("--sisr", metavar="FILE", nargs="+", default=[], help="single-image networks to compare with")
    parser.add_argument("--lr", choices=["pil", "matlab"], default="pil", help="whose bicubic makes the LR (pil)")
    parser.add_argument("--border", metavar="N", type=int, default=4, help="pixels left out at each side (4)")
    parser.add_argument("--lpips", metavar="FILE", help="measure LPIPS too: safetensors of AlexNet, or torchvision")
    parser.add_argument("--cache", metavar="DIR", help="keep scores here and do not compute them again")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="images in flight at a time (1)")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates every model on every test set; returns the exit code, 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models.
    """
    from accelerate import PartialState

    from frfsr.evals.evaluate import evaluate
    from frfsr.evals.tables import results_json, results_table, write_text

    paths = named_paths(arguments.data)
    protocol, cache, upscalers = prepare(arguments, arguments.model)
    test_sets = open_test_sets(paths, arguments.reference, arguments.reference_level)
    results = [
        evaluate(upscaler, test_set, protocol, cache, arguments.jobs)
        for test_set in test_sets
        for upscaler in upscalers
    ]
    if PartialState().is_main_process:
        table = results_table(results, protocol)
        table.notes += [note for test_set in test_sets for note in test_set.notes]
        print(table.as_text())
        if arguments.json:
            write_text(arguments.json, results_json(results, protocol))
    return int(any(result.failures for result in results))


def named_paths(entries: list[str]) -> dict[str, str]:
    """["wrsr=DIR", ...] -> {"wrsr": DIR, ...}; raises UserError for anything else."""
    paths = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            raise UserError(f"--data takes NAME=PATH, for example wrsr=DIR, got {entry!r}")
        paths[name] = path
    return paths


def open_test_sets(paths: dict[str, str], reference: str, level: int) -> list:
    """A `TestSet` per path; for CUFEDR only CUFED5, with the others as the pool of references."""
    from frfsr.evals.benchmarks import TestSet

    if reference != "cufedr":
        return [TestSet(name, path, reference, level) for name, path in paths.items()]
    pool = {name: TestSet(name, path) for name, path in paths.items() if name != "cufed5"}
    if "cufed5" not in paths:
        raise UserError("CUFEDR is made of the images of CUFED5: give cufed5=PATH too")
    return [TestSet("cufed5", paths["cufed5"], reference, pool=pool)]


def prepare(arguments: argparse.Namespace, models: list[str]) -> tuple:
    """The `Protocol`, the `ScoreCache` (or None) and the list of `Upscaler` that the arguments describe."""
    from accelerate import PartialState

    from frfsr.evals.cache import ScoreCache
    from frfsr.evals.evaluate import Protocol
    from frfsr.evals.upscalers import SingleImageNetwork, load_upscaler

    if arguments.lpips and arguments.lpips != "torchvision" and not Path(arguments.lpips).is_file():
        raise UserError(f"--lpips: {arguments.lpips} does not exist")
    if arguments.jobs < 1 or arguments.border < 0:
        raise UserError("--jobs must be at least 1 and --border at least 0")
    protocol = Protocol(arguments.lr, arguments.border, arguments.lpips)
    cache = ScoreCache(arguments.cache) if arguments.cache else None
    upscalers = [load_upscaler(name, arguments.lr, arguments.device) for name in models]
    upscalers += [SingleImageNetwork(file, arguments.device or PartialState().device) for file in arguments.sisr]
    return protocol, cache, upscalers
