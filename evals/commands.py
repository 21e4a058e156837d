"""``frfsr eval``: its arguments (without importing torch) and what it does."""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from frfsr.errors import UserError

EXAMPLES = """examples:
  frfsr eval --data wrsr=data/WR-SR --model frfsr-tiny bicubic --json wrsr.json
  frfsr eval --data cufed5=data/CUFED5 --reference rotated
  frfsr eval tables --models bicubic frfsr-tiny --data data --out results
  frfsr eval figures --models bicubic frfsr-tiny --data data --out results --benchmark wrsr
"""
MODELS = "packaged names, folders, Hub ids or bicubic; LABEL=NAME gives one another name"
RULES = ["true", "all", "lr", "rotated", "easy", "medium", "hard", "cufedr"]
TABLES = ["I", "III", "IV", "V", "VI", "shuffles", "paired"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of ``frfsr eval``; the parser's ``run`` becomes the function to call."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.set_defaults(run=run)
    parser.add_argument(
        "--data",
        metavar="NAME=PATH",
        nargs="+",
        default=[],
        help="cufed5, sun80, urban100, manga109, wrsr, set5 or a name of your own; a folder, Parquet pack or Hub id",
    )
    parser.add_argument("--model", metavar="NAME", nargs="+", default=["frfsr-tiny"], help=f"{MODELS} (frfsr-tiny)")
    parser.add_argument(
        "--reference",
        choices=RULES,
        default="true",
        help="which reference: as the benchmark says (default), all at once, the enlarged LR, another image's "
        "(unrelated), the true one with its patches shuffled, or one of Urban100, Manga109 and Sun80",
    )
    parser.add_argument("--reference-level", metavar="N", type=int, default=1, help="1 (most relevant, default) to 5")
    parser.add_argument("--json", metavar="FILE", help="write all figures, per image too")
    parser.add_argument("--cache", metavar="DIR", help="keep scores here and do not compute them again")
    add_shared_arguments(parser)
    commands = parser.add_subparsers(metavar="COMMAND")

    tables = add_command(commands, "tables", run_tables, "the paper's tables as markdown, CSV and JSON")
    add_models_and_data(tables)
    tables.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, metavar="T", help=", ".join(TABLES))
    tables.add_argument("--ablations", metavar="LABEL=NAME", nargs="+", default=[], help="models of tables VII to IX")
    tables.add_argument("--quoted", action="store_true", help="show the paper's own figures too, marked as quoted")

    figures = add_command(
        commands, "figures", run_figures, "compared crops, error maps, matches, charts; one HTML report"
    )
    add_models_and_data(figures)
    figures.add_argument("--benchmark", metavar="NAME", default="cufed5", help="whose images are shown (%(default)s)")
    figures.add_argument("--images", metavar="NAME", nargs="+", default=[], help="which; default: --count of them")
    figures.add_argument(
        "--count", metavar="N", type=int, default=4, help="images from most to least gain (%(default)s)"
    )
    figures.add_argument(
        "--crop", metavar=("LEFT", "TOP", "SIDE"), nargs=3, type=int, help="default: where results differ"
    )
    figures.add_argument("--reference", choices=RULES, default="true", help="which reference (%(default)s)")
    figures.add_argument("--no-charts", action="store_true", help="leave out the charts, which need whole evaluations")
    figures.add_argument("--quoted", action="store_true", help="show the paper's own figures in the charts")

    speed = add_command(commands, "speed", run_speed, "time the kernels against stock PyTorch")
    speed.add_argument("--out", metavar="DIR", default="evals/results", help="folder for the tables (%(default)s)")
    speed.add_argument("--device", help="cpu, cuda, ...; default: all there are")


def add_command(
    commands: argparse._SubParsersAction, name: str, function: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(run=function)
    return parser


def add_models_and_data(parser: argparse.ArgumentParser) -> None:
    """What is compared, on what, and where the results go."""
    parser.add_argument("--models", metavar="NAME", nargs="+", default=["bicubic", "frfsr-tiny"], help=MODELS)
    parser.add_argument("--data", metavar="DIR", required=True, help="folder with cufed5/, wrsr/, urban100/, ...")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the results; its cache/ keeps the scores"
    )
    add_shared_arguments(parser)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every kind of evaluation."""
    parser.add_argument("--sisr", metavar="NAME", nargs="+", default=[], help="single-image networks to compare with")
    parser.add_argument("--base", metavar="NAME", help="a single-image network (file, folder) whose image is refined")
    parser.add_argument("--lr", choices=["pil", "matlab"], default="pil", help="whose bicubic makes the LR (pil)")
    parser.add_argument("--border", metavar="N", type=int, default=4, help="pixels left out at each side (4)")
    parser.add_argument("--lpips", metavar="FILE", help="measure LPIPS too: safetensors of AlexNet, or torchvision")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="images in flight at a time (1)")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")


def run(options: argparse.Namespace) -> int:
    """Evaluates every model on every test set; returns the exit code, 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models.
    """
    from accelerate import PartialState

    from frfsr.evals.cache import ScoreCache
    from frfsr.evals.evaluate import evaluate
    from frfsr.evals.tables import results_json, results_table, write_text

    paths = named_paths(options.data)
    protocol = read_protocol(options)
    if options.json and not Path(options.json).parent.is_dir():
        raise UserError(f"cannot write {options.json}: there is no folder {Path(options.json).parent}")
    cache = ScoreCache(options.cache) if options.cache else None
    test_sets = open_test_sets(paths, options.reference, options.reference_level)
    upscalers = load_upscalers(options, options.model)
    results = [
        evaluate(upscaler, test_set, protocol, cache, options.jobs) for test_set in test_sets for upscaler in upscalers
    ]
    if PartialState().is_main_process:
        table = results_table(results, protocol)
        table.notes += [note for test_set in test_sets for note in test_set.notes]
        print(table.as_text())
        if options.json:
            write_text(options.json, results_json(results, protocol))
    return int(any(result.failures for result in results))


def run_tables(options: argparse.Namespace) -> int:
    """Measures what the chosen tables need and writes them; returns 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models.
    """
    from accelerate import PartialState

    from frfsr.evals.paper import make_tables
    from frfsr.evals.tables import failures, results_json, write_text

    laboratory = open_laboratory(options)
    upscalers = load_upscalers(options, options.models)
    tables = make_tables(laboratory, upscalers, options.tables, options.quoted)
    if options.ablations:
        variants = load_upscalers(argparse.Namespace(**(vars(options) | {"sisr": []})), options.ablations)
        tables |= make_tables(laboratory, variants, ["VII"], options.quoted)
    results = list(laboratory.results.values())
    if PartialState().is_main_process:
        notes = [*laboratory.notes, *failures(results), f"protocol: {laboratory.protocol}"]
        sections = [table.as_markdown() for table in tables.values()]
        sections.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
        for name, table in tables.items():
            write_text(Path(options.out) / f"table_{name}.csv", table.as_csv())
        write_text(Path(options.out) / "tables.md", "# Results\n\n" + "\n".join(sections))
        write_text(Path(options.out) / "results.json", results_json(results, laboratory.protocol))
        print("\n\n".join(f"{table.title}\n{table.as_text()}" for table in tables.values()), *notes, sep="\n")
    return int(any(result.failures for result in results))


def run_figures(options: argparse.Namespace) -> int:
    """Makes the pictures and the report; returns 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models.
    """
    from accelerate import PartialState

    if find_spec("matplotlib") is None:
        raise UserError("figures need matplotlib: pip install 'frfsr[eval]'")
    from frfsr.evals.figures import Box
    from frfsr.evals.gallery import Choice, chart_items, picture_items, write_gallery
    from frfsr.evals.tables import failures, results_table

    laboratory = open_laboratory(options)
    if options.benchmark not in laboratory.paths:
        raise UserError(f"{options.data} has no {options.benchmark}; there are {', '.join(laboratory.paths)}")
    upscalers = load_upscalers(options, options.models)
    crop = Box(*options.crop) if options.crop else None
    choice = Choice(tuple(options.images), options.count, crop, options.reference)
    items = picture_items(laboratory, upscalers, options.benchmark, choice)
    if not options.no_charts:
        items += chart_items(laboratory, upscalers, options.benchmark, options.quoted)
    results = list(laboratory.results.values())
    if PartialState().is_main_process:
        write_gallery(Path(options.out), items, results_table(results, laboratory.protocol).as_text())
        print(*failures(results), f"{len(items)} pictures in {Path(options.out) / 'report.html'}", sep="\n")
    return int(any(result.failures for result in results))


def run_speed(options: argparse.Namespace) -> int:
    """Times the kernels; see `frfsr.evals.speed`."""
    from frfsr.evals import speed

    return speed.run(options.out, options.device)


def named_paths(entries: list[str]) -> dict[str, str]:
    """["wrsr=DIR", ...] -> {"wrsr": DIR, ...}; raises UserError for anything else."""
    if not entries:
        raise UserError("--data is missing: give NAME=PATH, for example wrsr=DIR")
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


def open_laboratory(options: argparse.Namespace):
    """The `Laboratory` of ``--data``, its scores cached in ``--out``, which is made if needed."""
    from frfsr.evals.cache import ScoreCache
    from frfsr.evals.paper import Laboratory

    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}") from error
    return Laboratory(options.data, read_protocol(options), ScoreCache(out / "cache"), options.jobs)


def read_protocol(options: argparse.Namespace):
    """The `Protocol` that the arguments describe."""
    from frfsr.evals.evaluate import Protocol

    if options.lpips and options.lpips != "torchvision" and not Path(options.lpips).is_file():
        raise UserError(f"--lpips: {options.lpips} does not exist")
    if options.jobs < 1 or options.border < 0:
        raise UserError("--jobs must be at least 1 and --border at least 0")
    return Protocol(options.lr, options.border, options.lpips)


def load_upscalers(options: argparse.Namespace, models: list[str]) -> list:
    """The models by NAME or LABEL=NAME (packaged name, folder, Hub id, bicubic), and those of ``--sisr``."""
    from accelerate import PartialState

    from frfsr.evals.upscalers import SingleImageNetwork, load_upscaler

    upscalers = []
    for entry in models:
        label, equals, name = entry.rpartition("=")
        upscaler = load_upscaler(name, options.lr, options.device, options.base)
        if equals:
            upscaler.name = label
        upscalers.append(upscaler)
    return upscalers + [SingleImageNetwork(file, options.device or PartialState().device) for file in options.sisr]
