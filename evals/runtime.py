"""How long an upscaler takes and how much memory (paper, table V)."""

import ctypes
import gc
import platform
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from frfsr.evals.upscalers import Upscaler

CUFED5_LR = (83, 125)
REPEATS = 5
MEBIBYTE = 2**20
WEIGHT_BYTES = 4  # of a parameter: evaluations compute in float32
STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Runtime:
    """What a model takes.

    Attributes:
        seconds: median of `REPEATS` calls after one to warm up.
        memory: MiB that the model adds: its weights, and what its calls take at their peak beyond what the process
            (on a GPU: PyTorch) held before; None where nothing tells (on a CPU: not Linux).
        device: in words.
    """

    seconds: float
    memory: float | None
    device: str


def measure_runtime(upscaler: Upscaler, size: tuple[int, int] = CUFED5_LR) -> Runtime:
    """Time an upscaler.

    Args:
        upscaler: what is timed.
        size: (height, width) of the LR image, by default CUFED5's usual one; the reference is four times as large.

    Returns:
        Time and peak memory.
    """
    rng = np.random.default_rng(0)
    height, width = size
    lr = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    reference = rng.integers(0, 256, (4 * height, 4 * width, 3), dtype=np.uint8)
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MEBIBYTE
    else:
        before = start_of_peak()
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        upscaler(lr, [reference])  # ends with a copy to the CPU, which waits for the GPU
        seconds.append(time.perf_counter() - start)
    weights = WEIGHT_BYTES * sum(upscaler.parameters.values()) / MEBIBYTE
    if on_gpu:
        peak, device = torch.cuda.max_memory_allocated() / MEBIBYTE, torch.cuda.get_device_name()
    else:
        peak = peak_resident()
        device = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return Runtime(median(seconds[1:]), None if before is None else weights + peak - before, device)


def start_of_peak() -> float | None:
    """Give back what is free, and reset the peak.

    Returns:
        MiB that the process holds; None where nothing tells.
    """
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)
    return resident("VmRSS") if reset_peak_resident() else None


def reset_peak_resident() -> bool:
    """Set the process's largest resident memory back to the present; false where that cannot be done (not Linux)."""
    if RESET_PEAK.exists():
        RESET_PEAK.write_text("5")
    return RESET_PEAK.exists()


def peak_resident() -> float:
    """Read the largest resident memory in MiB: since `reset_peak_resident` on Linux, since the start elsewhere."""
    if RESET_PEAK.exists():
        return resident("VmHWM")
    import resource  # not on Windows, where the rest of this module works

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def resident(field: str) -> float:
    """Read how much memory the process holds.

    Args:
        field: of Linux's /proc/self/status: VmRSS (now) or VmHWM (peak).

    Returns:
        MiB.
    """
    found = re.search(rf"{field}:\s*(\d+) kB", STATUS.read_text())
    return int(found[1]) / 2**10 if found else 0.0
