"""How much memory a run may take, and what it takes: estimates from which tiles and references are sized."""

import os
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from frfsr.degrade import SCALE
from frfsr.errors import UserError
from frfsr.network import Network
from frfsr.upscaling.options import SMALLEST_TILE

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
FREE_SHARE = 0.7  # of the free memory that is taken without being asked
SIDES = (SMALLEST_TILE, 48, 64, 96, 128, 192, 256, 384, 512)  # LR pixels: few, so that runs rarely differ by theirs
LIVE = 14  # feature maps of the full size that a network holds at the same time, about
ENCODING = 2.5  # times what remains of an encoded reference that encoding it takes for a moment
LAID_OUT = 3.5  # times what remains of several that they take alone and on their map, as measured


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


def is_exhausted(error: Exception) -> bool:
    """Tell whether an exception says that memory ran out; on a CPU PyTorch has a bare RuntimeError for it.

    Args:
        error: any exception.

    Returns:
        Whether it does.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def tile_bytes(model: Network, side: int) -> int:
    """What a tile of this side in LR pixels takes while it is computed, about."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (1, 1)]
    width = max((min(layer.in_channels, layer.out_channels) for layer in layers), default=3)
    width = min(width, 64)  # wider ones work at a lower resolution
    item = next(model.parameters()).element_size()
    return LIVE * item * width * (SCALE * side) ** 2


def tile_side(model: Network, bytes_free: int, longest: int) -> int:
    """The side of tiles, in LR pixels, that fits into the memory.

    Args:
        model: whose `halo` they see beyond.
        bytes_free: for one tile.
        longest: side of the photo, which no tile needs to exceed.

    Returns:
        LR pixels.

    Raises:
        UserError: not even the smallest tile fits.
    """
    fitting = int(sqrt(bytes_free / tile_bytes(model, 1))) - 2 * model.halo
    if fitting < SMALLEST_TILE:
        needed = tile_bytes(model, SMALLEST_TILE + 2 * model.halo) / 1e6
        raise UserError(f"not enough memory: a tile takes about {needed:.0f} MB; allow more by --max-memory.")
    if longest <= min(fitting, SIDES[-1]):
        return max(SMALLEST_TILE, longest)
    return max(side for side in SIDES if side <= fitting)


def reference_bytes(model: Network) -> int:
    """What remains of each pixel of an encoded reference."""
    side = 64
    encoded = model.encode_reference(torch.zeros(1, 3, side, side).to(next(model.parameters())))
    return sum(tensor.nbytes for tensor in tensors(encoded)) // side**2 + 1


def tensors(encoded: object) -> list[Tensor]:
    """All tensors of nested tuples."""
    if isinstance(encoded, Tensor):
        return [encoded]
    return [tensor for part in encoded for tensor in tensors(part)] if isinstance(encoded, Sequence) else []
