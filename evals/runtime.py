"""How long an upscaler takes and how much memory (paper, table V)."""

import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from frfsr.evals.upscalers import Upscaler

CUFED5_LR = (83, 125)
REPEATS = 5
STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Runtime:
    """Median seconds of `REPEATS` calls after one to warm up; peak memory in MiB; the device in words.

    The memory is the GPU's where one is used, else the largest resident memory of the process: during the calls on
    Linux, since its start elsewhere.
    """

    seconds: float
    memory: float
    device: str


def measure_runtime(upscaler: Upscaler, size: tuple[int, int] = CUFED5_LR) -> Runtime:
    """Times an LR image of ``size`` (height, width), by default CUFED5's usual one, and a reference x4 as large."""
    rng = np.random.default_rng(0)
    height, width = size
    lr = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    reference = rng.integers(0, 256, (4 * height, 4 * width, 3), dtype=np.uint8)
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_resident()
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        upscaler(lr, [reference])  # ends with a copy to the CPU, which waits for the GPU
        seconds.append(time.perf_counter() - start)
    if on_gpu:
        return Runtime(median(seconds[1:]), torch.cuda.max_memory_allocated() / 2**20, torch.cuda.get_device_name())
    device = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return Runtime(median(seconds[1:]), peak_resident(), device)


def reset_peak_resident() -> bool:
    """Set the process's largest resident memory back to the present; false where only its start counts (not Linux)."""
    if RESET_PEAK.exists():
        RESET_PEAK.write_text("5")
    return RESET_PEAK.exists()


def peak_resident() -> float:
    """Largest resident memory in MiB: since `reset_peak_resident` on Linux, since the process's start elsewhere."""
    if RESET_PEAK.exists():
        return resident("VmHWM")
    import resource  # not on Windows, where the rest of this module works

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def resident(field: str) -> float:
    """MiB of a field of Linux's /proc/self/status: VmRSS (now) or VmHWM (peak)."""
    return int(re.search(rf"{field}:\s*(\d+) kB", STATUS.read_text())[1]) / 2**10
