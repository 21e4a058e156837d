"""Train the variants of an ablation with one seed and one budget, and print them as the paper's table does.

`accelerate launch --quiet recipes/ablations.py vii --config tiny_rec --test cufed5=DIR data=PAIRS out=OUT steps=2000`.
Settings are those of recipes/train.py; the variants' runs are the subfolders of OUT, and the same command again
resumes. Table ix takes a configuration of stage all, of any architecture that can reuse features; with `--rec CONFIG`
its rec stage is trained first, and the variants start from there. With several `--seeds` each variant is trained once
for each, and the table has means and standard deviations.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from accelerate import PartialState

from frfsr.architectures import find_architecture
from frfsr.errors import UserError
from frfsr.evals.benchmarks import TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.choices import read_data
from frfsr.evals.evaluation import Evaluation, Protocol, evaluate
from frfsr.evals.tables import Table, number
from frfsr.evals.upscalers import load_upscaler
from frfsr.files import write_text
from frfsr.recipes.config import TrainingConfig, load_config
from frfsr.recipes.ending import guarded
from frfsr.recipes.train import train


@dataclass(frozen=True)
class Variant:
    """A row of the table: its ticked columns, and what it changes in the model and in the run."""

    name: str
    ticked: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """A table of the paper: its columns, and the rows, which train in one stage."""

    title: str
    stage: str
    columns: tuple[str, ...]
    variants: tuple[Variant, ...]


WITH_SIFE, WITHOUT_SIFE = ({"sife": sife, "base": "bicubic"} for sife in (True, False))  # one base image for all rows
NO_DRB = {"dynamic_blocks": [0, 0, 0], "esa": False}  # plain residual blocks in its place
QUANTITIES = {"PSNR↑": ("psnr_y", 2), "SSIM↑": ("ssim_y", 4), "LPIPS↓": ("lpips", 4)}
SHUFFLES = ("none", "easy", "medium", "hard")
ABLATIONS = {
    "vii": Ablation(
        "Table VII: SIFE and DRB",
        "rec",
        ("SIFE", "DRB"),
        (
            Variant("Baseline", (), WITHOUT_SIFE | NO_DRB),
            Variant("Baseline+DRB", ("DRB",), WITHOUT_SIFE),
            Variant("Baseline+SIFE", ("SIFE",), WITH_SIFE | NO_DRB),
            Variant("Baseline+DRB+SIFE", ("SIFE", "DRB"), WITH_SIFE),
        ),
    ),
    "ix": Ablation(
        "Table IX: feature reuse",
        "all",
        ("FRF",),
        (Variant("All losses", (), {"reuse": False}), Variant("All losses+FRF", ("FRF",), {"reuse": True})),
    ),
    "shuffle": Ablation(
        "Shuffled references in training",
        "rec",
        SHUFFLES,
        tuple(Variant(f"shuffle-{name}", (name,), training={"shuffle": name}) for name in SHUFFLES),
    ),
    "filter-norm": Ablation(
        "Filter normalisation",
        "rec",
        ("FN",),
        (Variant("without", (), {"filter_norm": False}), Variant("with", ("FN",), {"filter_norm": True})),
    ),
}


def title_of(config: TrainingConfig) -> str:
    """What the network of a configuration is called in the literature."""
    return find_architecture(config.model.get("architecture", "frfsr")).publication.title


def configure(config: TrainingConfig, variant: Variant, seeds: int = 1) -> TrainingConfig:
    """The run of one variant, of one of several `seeds`; without SIFE nothing is loaded into it."""
    model = config.model | variant.model
    suffix = f"-seed-{config.seed}" if seeds > 1 else ""
    parts_left_out = () if model.get("sife", True) else ("sife",)
    return replace(
        config,
        model=model,
        init={part: weights for part, weights in config.init.items() if part not in parts_left_out},
        frozen=[part for part in config.frozen if part not in parts_left_out],
        out=str(Path(config.out, re.sub(r"\W+", "-", variant.name.lower()) + suffix)),
        **variant.training,
    )


def table(ablation: Ablation, rows: Sequence[tuple[Variant, Sequence[Evaluation]]]) -> Table:
    """One test set in the paper's layout: a row for each variant, of the evaluations of its seeds."""
    cells = [
        [
            variant.name,
            *("✓" if column in variant.ticked else "" for column in ablation.columns),
            *(spread(results, quantity, digits) for quantity, digits in QUANTITIES.values()),
        ]
        for variant, results in rows
    ]
    return Table(f"{ablation.title}, {rows[0][1][0].benchmark}", ["Model", *ablation.columns, *QUANTITIES], cells)


def spread(results: Sequence[Evaluation], quantity: str, digits: int) -> str:
    """Mean over the seeds, and behind ± the standard deviation of a single one, where there are several."""
    values = [result.mean(quantity) for result in results]
    measured = [value for value in values if value is not None]
    if not measured:
        return number(None, digits)
    deviation = f" ± {stdev(measured):.{digits}f}" if len(measured) > 1 else ""
    return f"{mean(measured):.{digits}f}{deviation}"


def run(options: argparse.Namespace) -> int:
    """Train the variants and print their table.

    Args:
        options: of the command line.

    Returns:
        The exit code: 0, or that of a training that was stopped.

    Raises:
        UserError: wrong configurations, data or models.
    """
    ablation = ABLATIONS[options.ablation]
    config = load_config(options.config, options.settings, TrainingConfig)
    if config.stage != ablation.stage:
        raise UserError(f"{ablation.title} is about stage {ablation.stage}, {options.config} about {config.stage}.")
    test_sets = [TestSet(name, path) for name, path in read_data(options.test).items()]
    runs = [
        (variant, [configure(replace(config, seed=seed), variant, len(options.seeds)) for seed in options.seeds])
        for variant in ablation.variants
    ]
    if options.rec:
        rec = load_config(options.rec, [f"data={config.data}", f"out={Path(config.out, 'rec')}"], TrainingConfig)
        rec = replace(rec, held_back=config.held_back)
        if stopped := train(rec):
            return stopped
        start = {"all": str(Path(rec.out, "weights"))}
        runs = [(variant, [replace(one, init=start) for one in seeds]) for variant, seeds in runs]
        before = Variant(f"{title_of(config)}, before")
        runs.insert(0, (before, [rec]))
    for _, seeds in runs:
        for one in seeds:
            if stopped := train(one):
                return stopped

    protocol = Protocol(lpips=options.lpips)
    cache = ScoreCache(Path(config.out, "cache"))
    loaded = [(variant, [load_upscaler(Path(one.out, "weights")) for one in seeds]) for variant, seeds in runs]
    tables = [
        table(
            ablation,
            [
                (variant, [evaluate(upscaler, tests, protocol, cache) for upscaler in upscalers])
                for variant, upscalers in loaded
            ],
        )
        for tests in test_sets
    ]
    if PartialState().is_main_process:
        print("\n\n".join(f"{one.title}\n{one.as_text()}" for one in tables))
        write_text(Path(config.out, "tables.md"), "\n".join(one.as_markdown() for one in tables))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablation", choices=ABLATIONS)
    parser.add_argument("--config", required=True, help="yaml file, as for recipes/train.py")
    parser.add_argument(
        "--test",
        action="append",
        required=True,
        metavar="TEST",
        help="a test set as for frfsr eval: NAME=PATH, or a folder of benchmarks; may be repeated",
    )
    parser.add_argument("--rec", metavar="CONFIG", help="table ix: the rec stage from which the variants start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="of the variants (%(default)s)")
    parser.add_argument("--lpips", metavar="FILE", help="measure LPIPS too: safetensors of AlexNet, or torchvision")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="changes to the configuration")
    return guarded(lambda: run(parser.parse_intermixed_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
