"""What a computation holds in memory at the same time, found without computing anything."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from frfsr.kernels._operator import Dry

HALF = (torch.bfloat16, torch.float16)
BLOCK = 16  # channels that lie together in a convolution's own order
CONVOLUTION = torch.ops.aten.convolution.default


class Held(Dry):
    """Counts the bytes of all tensors that are alive.

    Attributes:
        now: bytes that are alive.
        peak: the most that were alive at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing here is compiled: telling the compiler so would load it, 150 MB."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch and count what it makes; weights lose their values for it."""
        args, kwargs = tree_map_only(Tensor, without_values, (args, kwargs or {}))
        made = function(*args, **kwargs)
        scratch = convolution_scratch(args[0], made) if function is CONVOLUTION else []
        for tensor in (*tree_leaves(made), *scratch):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return made

    def count(self, storage: torch.UntypedStorage) -> None:
        """Count memory until it is given back."""
        if storage._cdata not in self.alive:
            size = storage.nbytes()
            self.alive.add(storage._cdata)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage._cdata, size)

    def forget(self, number: int, size: int) -> None:
        """Take back what was counted."""
        self.alive.discard(number)
        self.now -= size


def without_values(tensor: Tensor) -> Tensor:
    """A tensor of the same shape, type and strides that holds nothing."""
    return tensor if tensor.is_meta else tensor.to("meta")


def convolution_scratch(image: Tensor, result: Tensor) -> list[Tensor]:
    """Make tensors like those that a convolution on a CPU holds for itself: copies in its own order and precision."""
    copies = 3 if result.dtype in HALF else int(not image.is_contiguous(memory_format=torch.channels_last))
    sizes = [(*tensor.shape[2:], tensor.shape[0], BLOCK * -(-tensor.shape[1] // BLOCK)) for tensor in (image, result)]
    # Half precision is computed in float32 where the processor has no units for it; three copies, as measured.
    return [image.new_empty(size, dtype=torch.float32) for size in sizes for _ in range(copies)]


class Usage(NamedTuple):
    """Bytes of all tensors that a computation makes: at its peak, and of what it returns."""

    peak: int
    left: int


def usage(compute: Callable[[], Any]) -> Usage:
    """Find how much a computation holds.

    Args:
        compute: called once. It makes its inputs by itself, on the device "meta", where tensors have sizes only.

    Returns:
        What its tensors hold, without weights; operations of `frfsr.kernels` as on a CPU.
    """
    with torch.inference_mode(mode=False), torch.no_grad(), Held() as held:
        result = compute()
        left = held.now
        del result
    return Usage(held.peak, left)
