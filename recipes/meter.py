"""What a run's log says about its speed."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

try:
    import resource
except ImportError:  # Windows
    resource = None


class Meter:
    """Means between two log lines and, in `summary`, over the run: losses, samples per second, waiting for data."""

    def __init__(self, samples_per_step: int):
        self.samples_per_step = samples_per_step
        self.total_samples, self.total_seconds, self.total_waited = 0, 0.0, 0.0
        self.restart()

    def restart(self) -> None:
        """Begin the next means."""
        self.mark, self.waited, self.steps = time.perf_counter(), 0.0, 0
        self.terms: dict[str, list[Tensor]] = defaultdict(list)

    def batches(self, loader: Iterable) -> Iterator[Any]:
        """The loader's batches; the time until each comes counts as waiting."""
        asked = time.perf_counter()
        for batch in loader:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Validation and checkpoints do not count."""
        start = time.perf_counter()
        yield
        self.mark += time.perf_counter() - start

    def add(self, terms: dict[str, Tensor]) -> None:
        """Scalars of one batch, kept on their device until `read`."""
        for name, value in terms.items():
            self.terms[name].append(value.detach())

    def read(self) -> dict[str, float]:
        """Means since the last call, samples_per_s, data_wait (share of the time) and peak_memory in MiB."""
        means = {name: torch.stack(values).float().mean().item() for name, values in self.terms.items()}
        seconds, samples, waited = time.perf_counter() - self.mark, self.steps * self.samples_per_step, self.waited
        self.total_seconds += seconds
        self.total_samples += samples
        self.total_waited += waited
        self.restart()
        speed = {"samples_per_s": samples / seconds, "data_wait": waited / seconds, "peak_memory": peak_memory()}
        return means | speed

    def summary(self) -> str:
        """One line about the run's speed, over all that was read."""
        seconds = max(self.total_seconds, 1e-9)
        return (
            f"{self.total_samples / seconds:.2f} samples/s, {self.total_waited / seconds:.1%} of the time waiting for "
            f"data, {peak_memory():.0f} MiB peak memory"
        )


def peak_memory() -> float:
    """MiB: of the GPU where there is one, else of this process; 0 where the system does not say."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 if resource else 0.0
