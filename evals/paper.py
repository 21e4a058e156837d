"""The paper's tables, measured: which models on which benchmarks, beside the figures that the paper prints."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from frfsr.evals.benchmarks import TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.choices import BENCHMARKS, ReferenceRule, TableName
from frfsr.evals.evaluation import Evaluation, evaluate
from frfsr.evals.manifests import CUFEDR_POOL
from frfsr.evals.protocol import Protocol
from frfsr.evals.runtime import CUFED5_LR, measure_runtime
from frfsr.evals.statistics import paired_bootstrap
from frfsr.evals.tables import Table, number
from frfsr.evals.upscalers import Upscaler

QUOTED = Path(__file__).with_name("quoted.json")


class Column(NamedTuple):
    """A column of a table: its label, the benchmark, the rule for references, and their level."""

    label: str
    benchmark: str
    reference: ReferenceRule = "true"
    level: int = 1


class Laboratory:
    """Evaluates models on the benchmarks of a folder, each combination once.

    Args:
        paths: where the test sets are, as `read_data` finds them.
        protocol: how the LR is made and what is measured.
        cache: scores found here are not computed again.
        jobs: images in flight at a time.
    """

    def __init__(
        self,
        paths: Mapping[str, str | Path],
        protocol: Protocol,
        cache: ScoreCache | None = None,
        jobs: int = 1,
    ) -> None:
        self.paths = paths
        self.protocol, self.cache, self.jobs = protocol, cache, jobs
        self.results: dict[tuple, Evaluation] = {}
        self.test_sets: dict[tuple, TestSet] = {}

    def test_set(self, name: str, reference: ReferenceRule = "true", level: int = 1) -> TestSet:
        """The benchmark under a rule for references, opened once."""
        key = name, reference, level
        if key not in self.test_sets:
            pool = {other: self.test_set(other) for other in CUFEDR_POOL} if reference == "cufedr" else None
            self.test_sets[key] = TestSet(name, self.paths[name], reference, level, pool=pool)
        return self.test_sets[key]

    def evaluate(self, upscaler: Upscaler, name: str, reference: ReferenceRule = "true", level: int = 1) -> Evaluation:
        """Measure an upscaler on a benchmark, once.

        Args:
            upscaler: what is measured.
            name: the benchmark's.
            reference: which references it is given.
            level: of their relevance, 1 to 5, where the rule asks for one.

        Returns:
            The result.
        """
        key = upscaler.name, upscaler.identity, name, reference, level
        if key not in self.results:
            test_set = self.test_set(name, reference, level)
            self.results[key] = evaluate(upscaler, test_set, self.protocol, self.cache, self.jobs)
        return self.results[key]

    @property
    def notes(self) -> list[str]:
        """What is missing from the sets that are there, and which are not there."""
        present = [note for name in self.paths for note in self.test_set(name).notes]
        absent = [f"{b.title} is missing: {b.source}" for name, b in BENCHMARKS.items() if name not in self.paths]
        return present + absent


def benchmarks_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Tables I and II: model x benchmark. Which of the two a model belongs to depends on the losses of its training."""
    columns = [Column(laboratory.test_set(name).label, name) for name in BENCHMARKS if name in laboratory.paths]
    return grid("Tables I and II: benchmarks", laboratory, upscalers, columns)


def relevance_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table III: CUFED5 with references of falling relevance, with the LR image itself, and with all references."""
    columns = [Column(f"L{level}", "cufed5", level=level) for level in (1, 2, 3, 4)]
    columns += [Column("LR", "cufed5", "lr"), Column("all at once", "cufed5", "all")]
    return grid("Table III: relevance of the reference, CUFED5", laboratory, upscalers, columns)


def with_unrelated(laboratory: Laboratory) -> list[str]:
    """The benchmark that other images' references are tried on too: CUFED5, else WR-SR, whose photos are large."""
    return [name for name in ("cufed5", "wrsr") if name in laboratory.paths][:1]


def unrelated_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table IV: CUFEDR where its pool is there, and other images' references, which need no other set."""
    columns = []
    for name in with_unrelated(laboratory):
        title = laboratory.test_set(name).title
        columns += [Column(f"{title}, own reference", name), Column(f"{title}, another's", name, "rotated")]
    if {"cufed5", *CUFEDR_POOL} <= laboratory.paths.keys():
        columns.insert(0, Column("CUFEDR", "cufed5", "cufedr"))
    return grid("Table IV: unrelated references", laboratory, upscalers, columns)


def shuffles_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Figures 10 and 11: the reference whole, and cut into 2x2, 4x4 and 8x8 patches in frozen random orders."""
    columns = [Column("true", "cufed5"), Column("easy (2x2)", "cufed5", "easy")]
    columns += [Column("medium (4x4)", "cufed5", "medium"), Column("hard (8x8)", "cufed5", "hard")]
    return grid("Figures 10 and 11: shuffled references, CUFED5", laboratory, upscalers, columns)


def runtime_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table V: seconds for one image of CUFED5's usual size, and the peak memory."""
    rows, devices = [], set()
    for upscaler in upscalers:
        runtime = measure_runtime(upscaler)
        rows.append([upscaler.name, number(runtime.seconds, 3), number(runtime.memory, 0)])
        devices.add(runtime.device)
    height, width = CUFED5_LR
    notes = [
        f"LR of {width}x{height} pixels, median after warm-up, on {', '.join(sorted(devices))}",
        "peak MiB: what the model adds to the process, its weights and what its calls take beyond them",
    ]
    return Table("Table V: runtime", ["model", "seconds", "peak MiB"], rows, notes)


def parameters_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table VI: parameters in all and by part."""
    rows = []
    for upscaler in upscalers:
        parts = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in upscaler.parameters.items())
        rows.append([upscaler.name, f"{sum(upscaler.parameters.values()) / 1e6:.2f} M", parts or "-"])
    return Table("Table VI: parameters", ["model", "parameters", "by part"], rows)


def ablation_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Tables VII to IX: variants of a model on CUFED5 and what else is there, with LPIPS if it is measured."""
    table = benchmarks_table(laboratory, upscalers)
    table.title, table.rows, table.notes = "Tables VII to IX: ablations", table.rows[: len(upscalers)], []
    if laboratory.protocol.lpips and "cufed5" in laboratory.paths:
        table.header.append("LPIPS")
        for row, upscaler in zip(table.rows, upscalers, strict=True):
            row.append(number(laboratory.evaluate(upscaler, "cufed5").mean("lpips"), 4))
    return table


def paired_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Differences between models, and between own and unrelated reference, with bootstrap confidence intervals."""
    first, *others = upscalers
    comparisons = [
        (f"{model.name} - {first.name}", laboratory.evaluate(model, name), laboratory.evaluate(first, name))
        for name in laboratory.paths
        for model in others
    ]
    comparisons += [
        (
            f"{model.name}, own - another's reference",
            laboratory.evaluate(model, name),
            laboratory.evaluate(model, name, "rotated"),
        )
        for name in with_unrelated(laboratory)
        for model in upscalers
        if model.parameters
    ]
    rows = []
    for words, *sides in comparisons:
        one, two = ({score.name: score for score in side.scores} for side in sides)
        if both := sorted(one.keys() & two.keys()):
            differences = [
                str(paired_bootstrap([getattr(one[n], q) for n in both], [getattr(two[n], q) for n in both]))
                for q in ("psnr_y", "ssim_y")
            ]
            rows.append([sides[0].benchmark, words, str(len(both)), *differences])
    return Table(
        "Paired differences",
        ["benchmark", "difference", "images", "PSNR, dB", "SSIM"],
        rows,
        ["mean over images [95 % confidence interval, percentile bootstrap over images]"],
    )


TABLES: dict[TableName, Callable[[Laboratory, Sequence[Upscaler]], Table]] = {
    "I": benchmarks_table,
    "III": relevance_table,
    "IV": unrelated_table,
    "V": runtime_table,
    "VI": parameters_table,
    "VII": ablation_table,
    "shuffles": shuffles_table,
    "paired": paired_table,
}
PRINTED: dict[str, tuple[str, ...]] = {"I": ("I", "II"), "VII": ("VII", "VIII", "IX")}
"""The paper's tables that one of ours stands for, where it is more than the one of the same number."""
NEED_CUFED5 = ("III", "shuffles")


def grid(title: str, laboratory: Laboratory, upscalers: Sequence[Upscaler], columns: Sequence[Column]) -> Table:
    """Measure PSNR / SSIM of every model in every column.

    Args:
        title: of the table.
        laboratory: measures.
        upscalers: a row each.
        columns: label, benchmark, rule for references, level.

    Returns:
        The table.
    """
    rows = []
    for upscaler in upscalers:
        results = [laboratory.evaluate(upscaler, *column[1:]) for column in columns]
        cells = [f"{number(result.mean('psnr_y'), 2)} / {number(result.mean('ssim_y'), 4)}" for result in results]
        rows.append([upscaler.name, *cells])
    titles = {laboratory.test_set(*column[1:]).label for column in columns}
    return Table(
        title, ["model", *(column.label for column in columns)], rows, [f"measured on {', '.join(sorted(titles))}"]
    )


def with_quoted(table: Table, key: str) -> Table:
    """Append the rows of the paper's tables under the columns of the same name, marked as quoted or even doubtful."""
    titles = [title.partition(" (")[0] for title in table.header[1:]]
    doubts: list[str] = []
    for name in PRINTED.get(key, (key,)):
        printed = quoted_tables().get(name, {"columns": [], "rows": []})
        for label, *cells in printed["rows"]:
            known = dict(zip(printed["columns"], cells, strict=True))
            shown = [known.get(title, "-") for title in titles]
            if set(shown) != {"-"}:
                reason = quoted_tables()["doubtful"].get(name, {}).get(label)
                table.rows.append([f"{label} (quoted, doubtful)" if reason else f"{label} (quoted)", *shown])
                doubts += [f"doubtful: {label}, table {name}: {reason}"] if reason else []
    table.notes += [f"quoted: {quoted_tables()['source']}", *doubts]
    return table


@cache
def quoted_tables() -> dict:
    """Read the paper's tables by number: columns, and rows that begin with the model's name; and which are doubtful."""
    return json.loads(QUOTED.read_text(encoding="utf-8"))


def make_tables(
    laboratory: Laboratory, upscalers: Sequence[Upscaler], keys: Sequence[TableName], quoted: bool = False
) -> dict[TableName, Table]:
    """Measure the tables of `TABLES`; those on CUFED5 alone are left out where it is missing.

    Args:
        laboratory: measures.
        upscalers: a row each.
        keys: which tables.
        quoted: show the paper's figures too.

    Returns:
        The tables by their names.
    """
    tables: dict[TableName, Table] = {}
    for key in keys:
        if key in NEED_CUFED5 and "cufed5" not in laboratory.paths:
            continue
        table = TABLES[key](laboratory, upscalers)
        tables[key] = with_quoted(table, key) if quoted and key in quoted_tables() else table
    return tables
