"""What every training does around its step: resume, batches, rates, log, validation, checkpoints, and a good end."""

import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from frfsr.errors import UserError
from frfsr.recipes.guard import Guard
from frfsr.recipes.meter import Meter
from frfsr.recipes.optim import rate_factor
from frfsr.recipes.run import Run
from frfsr.stored import StoredModule

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEATED = 2  # seconds in which a second signal is the first one again, passed on by a launcher


class Loop:
    """Gives the batches of a run, one after the other, and does between them what is due.

        for batch in loop.over(samples):
            ...                              # forward, backward, step
        return loop.exit_code

    Args:
        run: the run's folder.
        optimizer: whose rates follow the schedule.
        guards: what takes the steps, the network's own first.
        validate: gives scores and rows of pictures, as `Run.validated` takes them.
        network: what is exported after each validation.
    """

    def __init__(
        self,
        run: Run,
        optimizer: AcceleratedOptimizer,
        guards: list[Guard],
        validate: Callable[[], tuple[dict[str, float], list[list[Tensor]]]],
        network: StoredModule,
    ):
        self.run, self.config, self.accelerator = run, run.config, run.accelerator
        self.optimizer, self.guards, self.validate, self.network = optimizer, guards, validate, network
        self.meter = Meter(self.config.batch)
        self.bad = 0  # photos that could not be read and were skipped, on this process
        self.exit_code = 0

    def over(self, samples: Dataset) -> Iterator[dict[str, Tensor]]:
        """The batches of the steps that remain; `samples` are those of the whole run."""
        config, accelerator = self.config, self.accelerator
        first = step = self.run.resume()
        loader = DataLoader(
            Subset(samples, range(step * config.batch, config.steps * config.batch)),
            batch_size=config.batch // config.accumulate,
            num_workers=config.workers,
            pin_memory=accelerator.device.type == "cuda",
            worker_init_fn=leave_signals_to_the_run,
        )
        loader = accelerator.prepare(loader)
        self.progress = tqdm(initial=step, total=config.steps, unit="step", disable=not accelerator.is_main_process)
        if step >= config.steps:
            self.say(f"all {config.steps} steps are done: give more steps= to go on")
            if not self.run.is_exported:
                self.measure(step)
        elif step == 0:
            self.measure(0, export=False)
        with Stop(self.run.started + 60 * config.minutes if config.minutes else float("inf")) as stop:
            for batch in self.meter.batches(loader):
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * rate_factor(step, config)
                bad = batch.pop("bad", None)
                self.bad += 0 if bad is None else int(bad.sum())
                yield batch
                if not accelerator.sync_gradients:
                    continue
                step += 1
                self.after(step)
                if stop.due:
                    accelerator.set_trigger()
                if step < config.steps and accelerator.check_trigger():  # one process asks, all stop
                    self.stop(step, stop.signal)
                    break
        self.progress.close()
        self.run.finish()
        if accelerator.is_main_process and step > first:
            print(self.meter.summary())
        self.complain(step - first)

    def after(self, step: int) -> None:
        """What is due when `step` is done."""
        config = self.config
        self.meter.steps += 1
        self.progress.update()
        if step % config.log_every == 0:
            values = self.meter.read()
            main = "l1" if "l1" in values else "loss"
            self.progress.set_postfix({name: f"{values[name]:.4g}" for name in (main, "samples_per_s")})
            skipped = sum(guard.skipped for guard in self.guards)
            bad = {"bad_photos": self.bad} if config.skip_bad else {}
            self.run.log(step, lr=self.optimizer.param_groups[0]["lr"], skipped=skipped, **bad, **values)
        with self.meter.paused():
            if step % config.validate_every == 0 or step == config.steps:
                self.measure(step)
            if step % config.checkpoint_every == 0 or step == config.steps:
                self.run.save(step)

    def measure(self, step: int, export: bool = True) -> None:
        """Validate and export, on the main process."""
        if self.accelerator.is_main_process:
            scores, pictures = self.validate()
            self.say(self.run.validated(step, scores, pictures))
            if export:
                self.run.export(self.network, step, scores)

    def stop(self, step: int, number: int | None) -> None:
        """End before the last step: by a signal at once, at the end of its minutes with a validation."""
        if step % self.config.checkpoint_every:
            self.run.save(step)
        if number is not None:
            self.exit_code = 128 + number
        elif step % self.config.validate_every:
            self.measure(step)
        reason = f"after {self.config.minutes:g} minutes" if number is None else f"by {signal.Signals(number).name}"
        self.say(f"stopped {reason} at step {step} of {self.config.steps}: the same command goes on from there")

    def complain(self, steps: int) -> None:
        """Refuse to end well where most steps were unsound.

        Args:
            steps: of this session.

        Raises:
            UserError: more than half of them were unsound.
        """
        unsound = max(guard.unsound for guard in self.guards)
        if 2 * unsound > steps:
            raise UserError(f"{unsound} of {steps} steps were skipped, the weights are of no use: lower lr.")

    def say(self, line: str) -> None:
        """Print a line above the progress bar, on the main process."""
        if self.accelerator.is_main_process:
            self.progress.write(line)


class Stop:
    """Whether a run is to end now: its time is over, or SIGINT or SIGTERM came. A second signal ends it at once."""

    def __init__(self, deadline: float):
        self.deadline, self.signal, self.noted = deadline, None, 0.0
        self.previous: dict[int, Any] = {}

    @property
    def due(self) -> bool:
        """Whether the run is to end."""
        return self.signal is not None or time.monotonic() > self.deadline

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal; a second one has its usual effect."""
        if self.signal is None:
            self.signal, self.noted = number, time.monotonic()
        elif time.monotonic() - self.noted > REPEATED:
            signal.signal(number, self.previous[number])
            signal.raise_signal(number)

    def __enter__(self) -> "Stop":
        self.previous = {number: signal.signal(number, self.note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def leave_signals_to_the_run(worker: int) -> None:
    """A signal to the whole process group must not end the workers: the run still waits for their samples."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
