"""``frfsr eval``: its arguments (without importing torch) and what it does."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from frfsr.commands.arguments import CommandsAfterAll, add_command, add_engine_arguments, engine_options
from frfsr.errors import UserError
from frfsr.evals.choices import PUBLISHED, TableName, read_data, read_references, rules
from frfsr.evals.setup import (
    describe,
    load_models,
    load_upscalers,
    open_laboratory,
    open_test_sets,
    read_protocol,
)
from frfsr.files import require_writable, write_text

EXAMPLES = """examples:
  frfsr eval --data wrsr=data/WR-SR --models frfsr-tiny bicubic --json wrsr.json
  frfsr eval --data cufed5=data/CUFED5 --references rotated
  frfsr eval --data cufed5=data/CUFED5 --references all --views auto --base RCAN_BIX4.pth
  frfsr eval tables --models bicubic frfsr-tiny c2/ masa/ --data data --out results
  frfsr eval figures --models bicubic frfsr-tiny --data data --out results --benchmark wrsr
"""
MODELS = "bicubic, packaged names, folders of any network, Hub ids, or checkpoints of single-image networks; "
MODELS += "LABEL=NAME gives one another name"
DATA = "test sets: NAME=PATH (cufed5, sun80, urban100, manga109, wrsr, set5 or a name of your own; folder, pack or "
DATA += "Hub id), or a folder that holds benchmarks in subfolders of these names"
REFERENCES = f"which references: a level of the image's own, 1 (most relevant) to 5, or {', '.join(rules())} (true: as "
REFERENCES += "the benchmark says; lr: the enlarged LR; rotated: another image's; easy to hard: patches shuffled)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``frfsr eval``; the parser's ``run`` becomes the function to call."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.set_defaults(run=run)
    add_models_and_data(parser, ["frfsr-tiny"])
    parser.add_argument("--json", metavar="FILE", help="write all figures, per image too")
    parser.add_argument("--cache", metavar="DIR", help="keep scores here and do not compute them again")
    add_references(parser)
    commands = parser.add_subparsers(metavar="COMMAND", action=CommandsAfterAll)

    tables = add_command(commands, "tables", run_tables, "the paper's tables as markdown, CSV and JSON")
    add_models_and_data(tables, ["bicubic", "frfsr-tiny"])
    add_out(tables)
    names = [name for name in get_args(TableName) if name != "VII"]
    tables.add_argument("--tables", nargs="+", choices=names, default=names, metavar="T", help=", ".join(names))
    tables.add_argument("--ablations", metavar="LABEL=NAME", nargs="+", default=[], help="models of tables VII to IX")
    tables.add_argument("--quoted", action="store_true", help="show the paper's own figures too, marked as quoted")

    summary = "compared crops, error maps, matches, charts; one HTML report"
    figures = add_command(commands, "figures", run_figures, summary)
    add_models_and_data(figures, ["bicubic", "frfsr-tiny"])
    add_out(figures)
    add_references(figures)
    figures.add_argument("--benchmark", metavar="NAME", default="cufed5", help="whose images are shown (%(default)s)")
    which = figures.add_mutually_exclusive_group()
    which.add_argument("--images", metavar="NAME", nargs="+", default=[], help="which; default: --count of them")
    which.add_argument("--count", metavar="N", type=int, default=4, help="images from most to least gain (%(default)s)")
    figures.add_argument(
        "--crop", metavar=("LEFT", "TOP", "SIDE"), nargs=3, type=int, help="default: where results differ"
    )
    charts = figures.add_mutually_exclusive_group()
    charts.add_argument("--no-charts", action="store_true", help="leave out the charts, which need whole evaluations")
    charts.add_argument("--quoted", action="store_true", help="show the paper's own figures in the charts")

    speed = add_command(commands, "speed", run_speed, "time the kernels against stock PyTorch")
    speed.add_argument("--out", metavar="DIR", default="evals/results", help="folder for the tables (%(default)s)")
    speed.add_argument("--device", help="cpu, cuda, ...; default: all there are")


def add_models_and_data(parser: argparse.ArgumentParser, models: list[str]) -> None:
    """What is compared, on what, and how it is run and measured."""
    parser.add_argument("--models", metavar="NAME", nargs="+", default=models, help=f"{MODELS} ({' '.join(models)})")
    parser.add_argument("--sisr", metavar="NAME", nargs="+", default=[], help="single-image networks, without --base")
    parser.add_argument("--data", metavar="TEST", nargs="+", action="extend", default=[], help=DATA)
    parser.add_argument("--base", metavar="NAME", help="a single-image network (file, folder) whose image is refined")
    parser.add_argument("--lr", default="pil", metavar="WHOSE", help="what makes the LR: pil (default), matlab, real")
    parser.add_argument("--border", metavar="N", type=int, default=4, help="pixels left out at each side (4)")
    parser.add_argument("--lpips", metavar="FILE", help="measure LPIPS too: safetensors of AlexNet, or torchvision")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="images in flight at a time (1)")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")
    add_engine_arguments(parser, PUBLISHED)


def add_references(parser: argparse.ArgumentParser) -> None:
    """Add --references."""
    parser.add_argument("--references", metavar="WHICH", default="true", help=REFERENCES)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add --out."""
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the results; its cache/ keeps the scores"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate every model on every test set.

    Args:
        options: of `frfsr eval`.

    Returns:
        The exit code, 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models; a package is missing.
    """
    paths, engine = read_data(options.data), engine_options(options, PUBLISHED)
    reference, level = read_references(options.references)
    if options.json is not None:
        require_writable(options.json)
    protocol = read_protocol(options)
    from accelerate import PartialState

    from frfsr.evals.cache import ScoreCache
    from frfsr.evals.evaluation import evaluate
    from frfsr.evals.tables import results_json, results_table

    cache = None if options.cache is None else ScoreCache(options.cache)
    test_sets = open_test_sets(paths, reference, level, protocol)
    upscalers = load_upscalers(options, engine)
    results = [
        evaluate(upscaler, test_set, protocol, cache, options.jobs) for test_set in test_sets for upscaler in upscalers
    ]
    if PartialState().is_main_process:
        networks = describe(engine, options.base)
        if options.json is not None:
            write_text(options.json, results_json(results, protocol, networks))
        table = results_table(results, protocol)
        table.notes += [networks, *(note for test_set in test_sets for note in test_set.notes)]
        print(table.as_text())
    return int(any(result.failures for result in results))


def run_tables(options: argparse.Namespace) -> int:
    """Measure what the chosen tables need and write them.

    Args:
        options: of `frfsr eval tables`.

    Returns:
        The exit code, 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models; a package is missing.
    """
    if "paired" in options.tables and find_spec("scipy") is None:
        raise UserError("paired differences need scipy: pip install 'frfsr[eval]'")
    paths, engine = read_data(options.data), engine_options(options, PUBLISHED)
    laboratory = open_laboratory(options, paths)
    from accelerate import PartialState

    from frfsr.evals.paper import make_tables
    from frfsr.evals.tables import failures, results_json

    tables = make_tables(laboratory, load_upscalers(options, engine), options.tables, options.quoted)
    if options.ablations:
        variants = load_models(options, engine, options.ablations)
        tables |= make_tables(laboratory, variants, ["VII"], options.quoted)
    results = list(laboratory.results.values())
    if PartialState().is_main_process:
        networks = describe(engine, options.base)
        notes = [*laboratory.notes, *failures(results), f"protocol: {laboratory.protocol}", networks]
        sections = [table.as_markdown() for table in tables.values()]
        sections.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
        for name, table in tables.items():
            write_text(Path(options.out) / f"table_{name}.csv", table.as_csv())
        write_text(Path(options.out) / "tables.md", "# Results\n\n" + "\n".join(sections))
        write_text(Path(options.out) / "results.json", results_json(results, laboratory.protocol, networks))
        print("\n\n".join(f"{table.title}\n{table.as_text()}" for table in tables.values()), *notes, sep="\n")
    return int(any(result.failures for result in results))


def run_figures(options: argparse.Namespace) -> int:
    """Make the pictures and the report.

    Args:
        options: of `frfsr eval figures`.

    Returns:
        The exit code, 1 if any image failed.

    Raises:
        UserError: wrong arguments, data or models; a package is missing.
    """
    for package in ("matplotlib", "jinja2"):
        if find_spec(package) is None:
            raise UserError(f"figures need {package}: pip install 'frfsr[eval]'")
    paths, engine = read_data(options.data), engine_options(options, PUBLISHED)
    reference, _ = read_references(options.references)
    if options.benchmark not in paths:
        raise UserError(f"--data has no {options.benchmark}; there are {', '.join(paths)}")
    if options.count < 1:
        raise UserError(f"--count is {options.count}: it must be at least 1.")
    laboratory = open_laboratory(options, paths)
    from accelerate import PartialState

    from frfsr.evals.figures import Box
    from frfsr.evals.gallery import Choice, chart_items, picture_items, write_gallery
    from frfsr.evals.tables import failures, results_table

    upscalers = load_upscalers(options, engine)
    crop = Box(*options.crop) if options.crop else None
    choice = Choice(tuple(options.images), options.count, crop, reference)
    items = picture_items(laboratory, upscalers, options.benchmark, choice)
    if not options.no_charts:
        items += chart_items(laboratory, upscalers, options.benchmark, options.quoted)
    results = list(laboratory.results.values())
    if PartialState().is_main_process:
        write_gallery(Path(options.out), items, results_table(results, laboratory.protocol).as_text())
        print(*failures(results), f"{len(items)} pictures in {Path(options.out) / 'report.html'}", sep="\n")
    return int(any(result.failures for result in results))


def run_speed(options: argparse.Namespace) -> int:
    """Time the kernels; see `frfsr.evals.speed`."""
    from frfsr.evals import speed

    return speed.run(options.out, options.device)
