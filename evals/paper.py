"""The paper's tables, measured: which models on which benchmarks, beside the figures that the paper prints."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from frfsr.errors import UserError
from frfsr.evals.benchmarks import BENCHMARKS, TestSet
from frfsr.evals.cache import ScoreCache
from frfsr.evals.evaluate import Evaluation, Protocol, evaluate
from frfsr.evals.manifests import CUFEDR_POOL
from frfsr.evals.runtime import CUFED5_LR, measure_runtime
from frfsr.evals.statistics import paired_bootstrap
from frfsr.evals.tables import Table, number
from frfsr.evals.upscalers import Upscaler

QUOTED = Path(__file__).with_name("quoted.json")


class Laboratory:
    """Evaluates models on the benchmarks of a folder, each combination once.

    Args:
        root: a folder with the benchmarks in subfolders named like `BENCHMARKS` (case and punctuation do not matter;
            a name may end in ``_sample``).

    Raises:
        UserError: there is not one benchmark in the folder.
    """

    def __init__(self, root: str | Path, protocol: Protocol, cache: ScoreCache | None = None, jobs: int = 1) -> None:
        self.paths = find_benchmarks(root)
        self.protocol, self.cache, self.jobs = protocol, cache, jobs
        self.results: dict[tuple, Evaluation] = {}
        self.test_sets: dict[tuple, TestSet] = {}

    def test_set(self, name: str, reference: str = "true", level: int = 1) -> TestSet:
        """The benchmark under a rule for references, opened once."""
        key = name, reference, level
        if key not in self.test_sets:
            pool = {other: self.test_set(other) for other in CUFEDR_POOL} if reference == "cufedr" else None
            self.test_sets[key] = TestSet(name, self.paths[name], reference, level, pool=pool)
        return self.test_sets[key]

    def evaluate(self, upscaler: Upscaler, name: str, reference: str = "true", level: int = 1) -> Evaluation:
        """The result on the benchmark, computed once."""
        key = upscaler.identity, name, reference, level
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


def find_benchmarks(root: str | Path) -> dict[str, Path]:
    """The subfolders and packs of ``root`` that are benchmarks, by their keys."""
    if not Path(root).is_dir():
        raise UserError(f"{root} is no folder")
    found = {}
    for entry in sorted(Path(root).iterdir()):
        name = "".join(filter(str.isalnum, entry.stem.lower())).removesuffix("sample")
        if name in BENCHMARKS:
            found[name] = entry
    if not found:
        raise UserError(f"{root} has no subfolder named {', '.join(BENCHMARKS)}")
    return found


def benchmarks_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Tables I and II: model x benchmark. Which of the two a model belongs to depends on the losses of its training."""
    columns = [(laboratory.test_set(name).label, name, "true", 1) for name in BENCHMARKS if name in laboratory.paths]
    table = grid("Tables I and II: benchmarks", laboratory, upscalers, columns)
    return table


def relevance_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table III: CUFED5 with references of falling relevance, with the LR image itself, and with all references."""
    columns = [(f"L{level}", "cufed5", "true", level) for level in (1, 2, 3, 4)]
    columns += [("LR", "cufed5", "lr", 1), ("all at once", "cufed5", "all", 1)]
    return grid("Table III: relevance of the reference, CUFED5", laboratory, upscalers, columns)


def with_unrelated(laboratory: Laboratory) -> list[str]:
    """The benchmark that other images' references are tried on too: CUFED5, else WR-SR, whose photos are large."""
    return [name for name in ("cufed5", "wrsr") if name in laboratory.paths][:1]


def unrelated_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table IV: CUFEDR where its pool is there, and other images' references, which need no other set."""
    columns = [
        (f"{laboratory.test_set(name).title}, {words}", name, rule, 1)
        for name in with_unrelated(laboratory)
        for words, rule in (("own reference", "true"), ("another's", "rotated"))
    ]
    if {"cufed5", *CUFEDR_POOL} <= laboratory.paths.keys():
        columns.insert(0, ("CUFEDR", "cufed5", "cufedr", 1))
    return grid("Table IV: unrelated references", laboratory, upscalers, columns)


def shuffles_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Figures 10 and 11: the reference whole, and cut into 2x2, 4x4 and 8x8 patches in frozen random orders."""
    columns = [(words, "cufed5", words.split()[0], 1) for words in ("true", "easy (2x2)", "medium (4x4)", "hard (8x8)")]
    return grid("Figures 10 and 11: shuffled references, CUFED5", laboratory, upscalers, columns)


def runtime_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Table V: seconds for one image of CUFED5's usual size, and the peak memory."""
    rows, devices = [], set()
    for upscaler in upscalers:
        runtime = measure_runtime(upscaler)
        rows.append([upscaler.name, number(runtime.seconds, 3), number(runtime.memory, 0)])
        devices.add(runtime.device)
    height, width = CUFED5_LR
    note = f"LR of {width}x{height} pixels, median after warm-up, on {', '.join(sorted(devices))}"
    return Table("Table V: runtime", ["model", "seconds", "peak MiB"], rows, [note])


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
    if laboratory.protocol.alexnet and "cufed5" in laboratory.paths:
        table.header.append("LPIPS")
        for row, upscaler in zip(table.rows, upscalers, strict=True):
            row.append(number(laboratory.evaluate(upscaler, "cufed5").mean("lpips"), 4))
    return table


def paired_table(laboratory: Laboratory, upscalers: Sequence[Upscaler]) -> Table:
    """Differences between models, and between own and unrelated reference, with bootstrap confidence intervals."""
    comparisons = [
        (f"{model.name} - {upscalers[0].name}", name, (model, "true"), (upscalers[0], "true"))
        for name in laboratory.paths
        for model in upscalers[1:]
    ]
    comparisons += [
        (f"{model.name}, own - another's reference", name, (model, "true"), (model, "rotated"))
        for name in with_unrelated(laboratory)
        for model in upscalers
        if model.parameters
    ]
    rows = []
    for words, name, *sides in comparisons:
        first, second = ({s.name: s for s in laboratory.evaluate(m, name, rule).scores} for m, rule in sides)
        if both := sorted(first.keys() & second.keys()):
            differences = [
                str(paired_bootstrap([getattr(first[n], q) for n in both], [getattr(second[n], q) for n in both]))
                for q in ("psnr_y", "ssim_y")
            ]
            rows.append([laboratory.test_set(name).label, words, str(len(both)), *differences])
    return Table(
        "Paired differences",
        ["benchmark", "difference", "images", "PSNR, dB", "SSIM"],
        rows,
        ["mean over images [95 % confidence interval, percentile bootstrap over images]"],
    )


TABLES = {
    "I": benchmarks_table,
    "III": relevance_table,
    "IV": unrelated_table,
    "V": runtime_table,
    "VI": parameters_table,
    "VII": ablation_table,
    "shuffles": shuffles_table,
    "paired": paired_table,
}
PRINTED = {"I": ("I", "II"), "VII": ("VII", "VIII", "IX")}
"""The paper's tables that one of ours stands for, where it is more than the one of the same number."""
NEED_CUFED5 = ("III", "shuffles")


def grid(
    title: str, laboratory: Laboratory, upscalers: Sequence[Upscaler], columns: Sequence[tuple[str, str, str, int]]
) -> Table:
    """PSNR / SSIM of every model (row) in every column (label, benchmark, rule for references, level)."""
    rows = []
    for upscaler in upscalers:
        results = [laboratory.evaluate(upscaler, *column[1:]) for column in columns]
        cells = [f"{number(result.mean('psnr_y'), 2)} / {number(result.mean('ssim_y'), 4)}" for result in results]
        rows.append([upscaler.name, *cells])
    titles = {laboratory.test_set(*column[1:]).label for column in columns}
    return Table(
        title, ["model", *(column[0] for column in columns)], rows, [f"measured on {', '.join(sorted(titles))}"]
    )


def with_quoted(table: Table, key: str) -> Table:
    """Appends the rows of the paper's tables under the columns of the same name, marked as quoted."""
    titles = [title.partition(" (")[0] for title in table.header[1:]]
    for name in PRINTED.get(key, (key,)):
        printed = quoted_tables().get(name, {"columns": [], "rows": []})
        for label, *cells in printed["rows"]:
            known = dict(zip(printed["columns"], cells, strict=True))
            shown = [known.get(title, "-") for title in titles]
            if set(shown) != {"-"}:
                table.rows.append([f"{label} (quoted)", *shown])
    table.notes.append(f"quoted: {quoted_tables()['source']}")
    return table


@cache
def quoted_tables() -> dict:
    """The paper's tables by number: columns, and rows that begin with the model's name."""
    return json.loads(QUOTED.read_text())


def make_tables(
    laboratory: Laboratory, upscalers: Sequence[Upscaler], keys: Sequence[str], quoted: bool = False
) -> dict[str, Table]:
    """The tables of `TABLES` by their keys; those on CUFED5 alone are left out where it is missing.

    Args:
        quoted: show the paper's figures too.
    """
    tables = {}
    for key in keys:
        if key in NEED_CUFED5 and "cufed5" not in laboratory.paths:
            continue
        table = TABLES[key](laboratory, upscalers)
        tables[key] = with_quoted(table, key) if quoted and key in quoted_tables() else table
    return tables
