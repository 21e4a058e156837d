"""How much memory a run may take."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from frfsr.degrade import SCALE

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
FREE_SHARE = 0.7  # of the free memory that is taken without being asked
MATCH = 14  # bytes of `Matches` for each LR pixel
PILLOW = 4  # bytes of a pixel in Pillow, which writes most formats from a copy
MMAP_THRESHOLD, AT_ONCE = -3, 2**20  # of glibc's mallopt: blocks of 1 MiB and more go back when they are freed


class Output(NamedTuple):
    """What a result takes.

    Attributes:
        held: bytes of the result and of what is remembered of it, until the end.
        writing: bytes that are taken beside these while it is written.
    """

    held: int = 0
    writing: int = 0

    @classmethod
    def of(cls, pixels: np.ndarray) -> Self:
        """What the result of a photo's pixels (h, w, C) takes."""
        height, width, channels = pixels.shape
        each = channels * pixels.itemsize
        area = SCALE**2 * height * width
        return cls(each * area + MATCH * height * width, max(PILLOW, each) * area)


def budget(limit: int | None, device: torch.device, held: int = 0) -> int:
    """Bytes that the run may take from here on.

    Args:
        limit: of the whole process, or None for what is free.
        device: whose memory counts.
        held: bytes that the process holds there and that are not counted as taken.

    Returns:
        Bytes.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + held
        return int(FREE_SHARE * free) if limit is None else min(limit, free)
    if limit is None:
        return int(FREE_SHARE * (free_memory() + held))
    return max(0, limit - resident() + held)


def free_memory() -> int:
    """Bytes that the machine, or the container that we are in, can still give; 4 GB where nothing tells."""
    free = [4 * 10**9]
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = [1024 * int(lines["MemAvailable"].split()[0])]
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit.isdigit():
            free.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, KeyError, ValueError):
        pass
    return max(0, min(free))


def resident() -> int:
    """Bytes that this process holds now; 0 where nothing tells."""
    try:
        return PAGE * int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0


def give_back() -> None:
    """Let freed memory go back to the system, where the C library can: a limit holds for what the process has."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.mallopt(MMAP_THRESHOLD, AT_ONCE)
        library.malloc_trim(0)


def is_exhausted(error: Exception) -> bool:
    """Tell whether an exception says that memory ran out; on a CPU PyTorch has a bare RuntimeError for it.

    Args:
        error: any exception.

    Returns:
        Whether it does.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def tensors(encoded: object) -> list[Tensor]:
    """All tensors of nested tuples."""
    if isinstance(encoded, Tensor):
        return [encoded]
    return [tensor for part in encoded for tensor in tensors(part)] if isinstance(encoded, Sequence) else []
