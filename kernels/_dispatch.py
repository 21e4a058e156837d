"""Which implementation serves a call: the one place where that is decided."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import wraps

import torch

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def use_reference() -> bool:
    """Whether ``FRFSR_KERNELS=reference`` asks for the readable reference implementations."""
    return os.environ.get("FRFSR_KERNELS") == "reference"


def use_triton(tensor: torch.Tensor) -> bool:
    """Whether a Triton kernel serves this tensor.

    True for float32, float16 and bfloat16 tensors on a GPU. ``TRITON_INTERPRET=1`` lets CPU tensors through as well, so
    that the kernels themselves can be tested without a GPU; ``FRFSR_KERNELS=reference`` turns Triton off.
    """
    if use_reference() or tensor.dtype not in TRITON_DTYPES or importlib.util.find_spec("triton") is None:
        return False
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def use_plain(tensor: torch.Tensor) -> bool:
    """Whether the readable reference serves this tensor: it is asked for, or the device has nothing better."""
    return use_reference() or not (use_triton(tensor) or tensor.device.type == "cpu")


def on_device_of_first(launch: Callable) -> Callable:
    """Make the device of the first argument, a tensor, the current one while ``launch`` runs.

    Triton launches on the current device, which would hand the tensors of a second GPU to the first.
    """

    @wraps(launch)
    def guarded(tensor: torch.Tensor, *args, **kwargs):
        with torch.cuda.device_of(tensor):  # does nothing for a tensor on the CPU
            return launch(tensor, *args, **kwargs)

    return guarded


def reference_gradients(
    reference: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], grad: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Gradients by autograd. Only outside of custom operators: within them autograd records nothing."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(reference(*leaves), leaves, grad)


def accumulator_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The precision of sums and sampling positions: float32 for half and single precision, float64 for double."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def memory_format(tensor: torch.Tensor) -> torch.memory_format:
    """The layout of a result made from ``tensor``: channels_last if it is laid out so and not also contiguous."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
