"""`frfsr plot`: the curves of several training runs in one picture."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from frfsr.errors import UserError
from frfsr.files import whole_file

NO_CURVES = {"step", "lr", "skipped", "samples_per_s", "data_wait", "peak_memory"}  # shown only if asked for
Curve = dict[int, float]


def plot(runs: Sequence[str], output: str, quantities: Sequence[str] = ()) -> None:
    """Draw each quantity of the runs' metrics.jsonl over the steps, a panel a quantity, a line a run.

    Args:
        runs: folders of runs.
        output: the picture's path; its ending is the format.
        quantities: names in the log, for example l1 and psnr; by default all losses and scores.

    Raises:
        UserError: a folder without a log, a quantity that no run has, or an unknown picture format.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("frfsr plot needs matplotlib: pip install 'frfsr[eval]'") from error
    logs = {Path(run).name: read_log(Path(run)) for run in runs}
    if len(logs) < len(runs):
        raise UserError("two runs have the same folder name: the lines could not be told apart.")
    known = list(dict.fromkeys(name for log in logs.values() for name in log))
    quantities = quantities or [name for name in known if name not in NO_CURVES]
    for name in quantities:
        if name not in known:
            raise UserError(f"no run has logged {name!r}; there are {', '.join(known)}.")

    figure = Figure(figsize=(8, 2.6 * len(quantities)), layout="constrained")
    for axes, quantity in zip(figure.subplots(len(quantities), squeeze=False)[:, 0], quantities, strict=True):
        for run, log in logs.items():
            curve = sorted(log.get(quantity, {}).items())
            marker = "o" if len(curve) == 1 else None  # a line of one point would not show
            axes.plot(*zip(*curve, strict=True) if curve else ([], []), label=run, linewidth=1, marker=marker)
        axes.set(xlabel="step", ylabel=quantity)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    FigureCanvasAgg(figure)
    with whole_file(output) as partial:
        try:
            figure.savefig(partial)
        except ValueError as error:
            raise UserError(f"cannot write {output}: {error}") from error


def read_log(run: Path) -> dict[str, Curve]:
    """metrics.jsonl of a run folder: quantity -> {step: value}. Of steps repeated after a resume the last counts.

    A part of a line, which a killed run leaves, is passed over.

    Raises:
        UserError: there is no metrics.jsonl that can be read.
    """
    try:
        text = (run / "metrics.jsonl").read_text("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{run} is no run folder: it has no readable metrics.jsonl.") from error
    log: dict[str, Curve] = {}
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            values = json.loads(line)
            if isinstance(values, dict) and isinstance(values.get("step"), int):
                for name, value in values.items():
                    if name != "step" and isinstance(value, int | float):
                        log.setdefault(name, {})[values["step"]] = value
    if not log:
        raise UserError(f"{run} is no run folder: its metrics.jsonl has no line that can be read.")
    return log
