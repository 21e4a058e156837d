"""``frfsr eval speed``: the kernels beside what everybody else does, as a table with everything needed to repeat it."""

import csv
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import torch

from frfsr.errors import UserError, one_line
from frfsr.evals.machine import file_name, machine
from frfsr.evals.runtime import peak_resident, reset_peak_resident, resident
from frfsr.evals.speed_cases import Case, Contest, cases
from frfsr.files import whole_file, write_text

ROUNDS = 3
LONG_ROUND = 5.0  # seconds after which one round has to do
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Times are medians in milliseconds; memory is the peak beyond what the inputs take, in MiB; ratios are stock's over
    ours. `cold_ms` is our cold start, the calls before those that are timed, with what is compiled then.
    """

    device: str
    operation: str
    size: str
    dtype: str
    target: str
    frfsr_ms: float | None = None
    stock_ms: float | None = None
    compiled_ms: float | None = None
    floor_ms: float | None = None
    times_stock: float | None = None
    times_floor: float | None = None
    memory_mib: float | None = None
    stock_memory_mib: float | None = None
    cold_ms: float | None = None


class Start(NamedTuple):
    """Seconds before a function is timed, and MiB in use at a call's peak beyond those in use before, if known."""

    seconds: float
    memory: float | None


def run(out: str | Path = "evals/results", device: str | None = None) -> int:
    """Time all cases, print the table and write it.

    The files are ``speed-<machine>.csv`` and ``.md``, one pair per machine, so that results of several lie together.
    Cases of a device that is not there are listed as not run. A run that was interrupted goes on where it was, if the
    commit and everything else that the figures depend on are the same.

    Args:
        out: the folder that gets the files.
        device: "cpu" or "cuda"; None: all there are.

    Returns:
        The exit code 0.

    Raises:
        UserError: the device is unknown or not there.
    """
    devices, every = measured_devices(device), cases()
    facts = machine(devices)
    rows = unfinished(_file(Path(out), facts, "csv"), facts, len(every))
    for case in every[len(rows) :]:
        rows.append(measure(case) if case.device in devices else _row(case))
        print(" | ".join(_cells(rows[-1])), flush=True)
        files = write(rows, Path(out), facts)  # what is measured stays if a later case fails
    print("wrote", *files)
    return 0


def unfinished(file: Path, facts: dict[str, str], count: int) -> list[Row]:
    """The first rows of the ``count`` that an interrupted run left in ``file``, if measured under the same ``facts``.

    The date may differ. A tree with edits, or one without a commit, is not known to be the same.
    """
    if not file.exists() or not re.fullmatch("[0-9a-f]+", facts["commit"]):
        return []
    with file.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    if len(found) >= count or any(row.get(key) != facts[key] for row in found for key in facts.keys() - {"date"}):
        return []
    print(f"going on after {len(found)} rows of {file}")
    return [_read(row) for row in found]


def _read(line: dict[str, str]) -> Row:
    values: dict[str, Any] = {
        field.name: line[field.name] if field.type is str else float(line[field.name]) if line[field.name] else None
        for field in fields(Row)
    }
    return Row(**values)


def measured_devices(device: str | None) -> list[str]:
    """List the devices to measure.

    Args:
        device: "cpu" or "cuda"; None: all there are.

    Returns:
        "cpu", "cuda" or both.

    Raises:
        UserError: the device is unknown or not there.
    """
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device}: speed is measured on cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here")
    return [device] if device else ["cpu"] + ["cuda"] * torch.cuda.is_available()


def _row(case: Case, **figures: float | None) -> Row:
    dtype = str(case.dtype).removeprefix("torch.")
    return Row(case.device, case.operation, case.size, dtype, case.target, **figures)


def measure(case: Case) -> Row:
    """Time one case in this process, all contestants in turn."""
    contest = case.build()
    if contest.compiled and not compiles(contest.compiled):
        contest = replace(contest, compiled=None)
    first = {name: _start(getattr(contest, name), case.device) for name in ("frfsr", "stock")}
    if case.device == "cuda":
        seconds = _gpu_seconds(contest)
    else:
        seconds = _cpu_seconds(contest, {name: call.seconds for name, call in first.items()})
    ours, stock, floor = seconds["frfsr"], seconds["stock"], seconds.get("floor")
    return _row(
        case,
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        times_stock=stock / ours,
        times_floor=floor / ours if floor else None,
        memory_mib=first["frfsr"].memory,
        stock_memory_mib=first["stock"].memory,
        cold_ms=1e3 * first["frfsr"].seconds,
    )


def _contestants(contest: Contest) -> dict[str, Callable[[], object]]:
    every = {field.name: getattr(contest, field.name) for field in fields(contest)}
    return {name: function for name, function in every.items() if function}


def _gpu_seconds(contest: Contest) -> dict[str, float]:
    from triton.testing import do_bench

    milliseconds = {name: do_bench(call, return_mode="median") for name, call in _contestants(contest).items()}
    return {name: cast(float, value) / 1e3 for name, value in milliseconds.items()}  # one quantile: no list


def compiles(rival: Callable[[], object]) -> bool:
    """Call the compiled stock once; one that PyTorch cannot compile leaves its cell empty, and says why."""
    try:
        rival()
    except Exception as error:  # a compiler fails in any way
        print(f"stock does not compile: {type(error).__name__}: {one_line(error)[:200]}", flush=True)
        return False
    return True


def _cpu_seconds(contest: Contest, first: dict[str, float]) -> dict[str, float]:
    """In rounds of one call each, so that other work on the machine touches all contestants alike.

    Where the first calls took long there is one round, in which the first call counts for stock.
    """
    contestants = _contestants(contest)
    if sum(first.values()) > LONG_ROUND:
        ours = {name: _call(function) for name, function in contestants.items() if name != "stock"}
        return {"stock": first["stock"], **ours}
    rounds = [{name: _call(function) for name, function in contestants.items()} for _ in range(ROUNDS)]
    return {name: median(times[name] for times in rounds) for name in contestants}


def _call(function: Callable[[], object]) -> float:
    """Processor time of all threads, which a busy machine falsifies less than the time on the wall."""
    start = time.process_time()
    function()
    return time.process_time() - start


def _start(function: Callable[[], object], device: str) -> Start:
    if device == "cuda":
        start = time.perf_counter()
        for _ in range(2):  # torch.compile records a CUDA graph in the second call
            function()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()  # once more: what compilation took is not the operation's memory
        return Start(seconds, (torch.cuda.max_memory_allocated() - before) / MEBIBYTE)
    if not reset_peak_resident():
        return Start(_call(function), None)
    before = resident("VmRSS")
    return Start(_call(function), peak_resident() - before)


def _cells(row: Row) -> list[str]:
    values = asdict(row)
    words = [values.pop(name) for name in ("device", "operation", "size", "dtype", "target")]
    if row.frfsr_ms is None:
        return [*words, "not run", *[""] * (len(values) - 1)]
    return [*words, *("" if value is None else f"{value:.4g}" for value in values.values())]


HEADINGS = [
    *("device", "operation", "size", "dtype", "must reach", "frfsr ms", "stock ms", "compiled stock ms", "floor ms"),
    *("x stock", "x floor", "frfsr MiB", "stock MiB", "cold start ms"),
]


def write(rows: list[Row], out: Path, facts: dict[str, str]) -> tuple[Path, Path]:
    """Write the rows, each file replaced as a whole.

    Args:
        rows: of the table.
        out: the folder that gets the files.
        facts: on what and with what it was measured.

    Returns:
        The paths of ``speed-<machine>.md`` and ``.csv``.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = [HEADINGS, ["---"] * len(HEADINGS), *map(_cells, rows)]
    lines = [
        "# Speed",
        "",
        "Written by `frfsr eval speed`. Median times of one call. *Stock* is what RefSR code does in plain PyTorch,",
        "for the model the same network on those operations, contiguous (NCHW), on a CPU in float32.",
        "*Floor* is the bare product of the unfolded patches for patch_argmax, for the others a copy of as many bytes",
        "as go in and out.",
        "CPU rows are processor time, summed over threads. Memory is the peak beyond what was in use before the call.",
        "Cold start: our first call (on a GPU the first two), with the compilation that no cache on the disk saves it.",
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
        "",
        *("| " + " | ".join(cells) + " |" for cells in table),
    ]
    markdown, spreadsheet = (_file(out, facts, suffix) for suffix in ("md", "csv"))
    write_text(markdown, "\n".join(lines) + "\n")
    with whole_file(spreadsheet) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(field.name for field in fields(Row)), *facts])
        writer.writerows([*asdict(row).values(), *facts.values()] for row in rows)
    return markdown, spreadsheet


def _file(out: Path, facts: dict[str, str], suffix: str) -> Path:
    return out / f"speed-{file_name(facts)}.{suffix}"
