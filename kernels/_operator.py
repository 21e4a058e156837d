"""Custom operators whose machinery is paid for only where something needs it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode


class Dry(TorchDispatchMode):
    """A mode under which operators give empty results, of the right shapes: for who asks what a call would hold.

    Beside its result an operator then makes the tensors that its CPU form holds at the same time.
    """


class Operator:
    """A custom operator of PyTorch, whose implementation is called directly where only the result is wanted.

    The first call of a custom operator imports ``torch._dynamo``, which takes as long as enlarging a small photo, and
    every call has its overhead. Autograd, ``torch.compile``, export, fake tensors and other modes, ``vmap`` and the
    like need it; plain inference does not.
    """

    def __init__(self, name: str, implementation: Callable[..., Any]):
        """Register ``implementation`` under ``name``; its annotations give the schema, it changes no argument."""
        self.implementation = implementation
        self.registered = torch.library.custom_op(name, implementation, mutates_args=())
        self.register_autograd = self.registered.register_autograd
        self.empty: Callable[..., Any] = implementation
        self.scratch: Callable[..., Any] = lambda *_: None

    def register_fake(self, empty: Callable[..., Any]) -> None:
        """Say of which shapes and types the results are, by a function of the same arguments that makes empty ones."""
        self.empty = empty
        self.registered.register_fake(empty)

    def register_scratch(self, scratch: Callable[..., Any]) -> None:
        """Say what the CPU form holds beside its arguments and results, by a function that makes such tensors."""
        self.scratch = scratch

    def __call__(self, *arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.registered(*arguments)
        if not _is_observed(arguments):
            return self.implementation(*arguments)
        if isinstance(_get_current_dispatch_mode(), Dry):
            held = self.scratch(*arguments)
            results = self.empty(*arguments)
            del held
            return results
        return self.registered(*arguments)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make an :class:`Operator` of the function below, called ``name`` ("frfsr::flow_warp")."""
    return lambda implementation: Operator(name, implementation)


def _is_observed(arguments: tuple) -> bool:
    """Tell whether anything but the caller takes part in a call: autograd, a transform, a mode, a tensor subclass."""
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    return (
        any(type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta for tensor in tensors)
        or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )
