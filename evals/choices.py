"""What an evaluation can be asked for. Nothing heavy is imported, so that the command line answers at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from frfsr.errors import UserError
from frfsr.upscaling.options import Options

ReferenceRule = Literal["true", "all", "lr", "none", "rotated", "easy", "medium", "hard", "cufedr"]
"""Which references an image gets; see `frfsr.evals.benchmarks.TestSet`."""

TableName = Literal["I", "III", "IV", "V", "VI", "VII", "shuffles", "paired"]
"""Our tables, most of them named like the paper's; see `frfsr.evals.paper`."""

BICUBIC = "bicubic"
"""The model that is no network: plain interpolation."""

PUBLISHED = Options(upsampled="8-bit", views="off")
"""How published evaluations feed their networks: the LR that Pillow enlarged, in 8 bits, and references as they are."""


@dataclass(frozen=True)
class Benchmark:
    """A set of the field.

    Attributes:
        title: name in tables.
        count: number of inputs of the complete set.
        names: regular expression that the names of its inputs match.
        source: expected files and where people usually get them, in one line.
    """

    title: str
    count: int
    names: str
    source: str


BENCHMARKS = {
    "cufed5": Benchmark("CUFED5", 126, r"\d{3}_0", "000_0.png ... 125_5.png, from github.com/ZZUTK/SRNTT"),
    "sun80": Benchmark("Sun80", 80, r".+", "input/X.png, ref/X/ with 20 images each, from Sun and Hays, ICCP 2012"),
    "urban100": Benchmark("Urban100", 100, r"img_\d{3}.*", "img_001.png ..., from github.com/jbhuang0604/SelfExSR"),
    "manga109": Benchmark("Manga109", 109, r".+", "one page of each of 109 volumes, from manga109.org"),
    "wrsr": Benchmark("WR-SR", 80, r"\d{3}", "input/, ref/, pairs.txt, from github.com/yumingj/C2-Matching"),
    "set5": Benchmark("Set5", 5, r".+", "five HR images, from github.com/jbhuang0604/SelfExSR"),
}


def read_data(entries: Iterable[str | Path]) -> dict[str, str | Path]:
    """Read what names test sets, on every command line and in Python.

    Args:
        entries: each NAME=PATH (PATH: folder, Parquet pack or Hub id), or a folder or pack that is named like a
            benchmark, or a folder with such ones in it. In names case and punctuation do not matter, and an ending
            ``_sample`` is allowed.

    Returns:
        Path by name: a key of `BENCHMARKS`, or the name that was given.

    Raises:
        UserError: there is no test set, or an entry is none of these.
    """
    found: dict[str, str | Path] = {}
    for entry in entries:
        name, equals, path = str(entry).partition("=")
        if name and equals and path:
            if found.get(name, path) != path:
                raise UserError(f"two test sets are called {name}, {found[name]} and {path}: name one otherwise.")
            found[name] = path
        elif equals:
            raise UserError(f"{entry!r} names no test set: give NAME=PATH, for example wrsr=DIR.")
        elif (key := _benchmark(Path(entry))) and Path(entry).exists():
            found[key] = Path(entry)
        elif Path(entry).is_dir():
            inside = {key: path for path in sorted(Path(entry).iterdir()) if (key := _benchmark(path))}
            if not inside:
                raise UserError(f"{entry} has no subfolder named {', '.join(BENCHMARKS)}: give NAME=PATH.")
            found |= inside
        else:
            raise UserError(f"{str(entry)!r} is no folder of benchmarks: give one, or NAME=PATH, for example wrsr=DIR.")
    if not found:
        raise UserError("no test set: give NAME=PATH, for example wrsr=DIR, or a folder of benchmarks.")
    return found


def read_references(text: str) -> tuple[ReferenceRule, int]:
    """Read a rule for references, or the level of a benchmark's own (1, 2, ...), as (rule, level).

    Raises:
        UserError: it is neither.
    """
    if text.isdigit() and int(text) > 0:
        return "true", int(text)
    for rule in get_args(ReferenceRule):
        if rule == text:
            return rule, 1
    raise UserError(f"unknown rule for references {text!r}: give a level from 1 on, or {', '.join(rules())}.")


def rules() -> tuple[str, ...]:
    """Names of the rules for references."""
    return get_args(ReferenceRule)


def _benchmark(path: Path) -> str | None:
    """The key in `BENCHMARKS` that a folder or pack is named like."""
    name = "".join(filter(str.isalnum, path.stem.lower())).removesuffix("sample")
    return name if name in BENCHMARKS else None
