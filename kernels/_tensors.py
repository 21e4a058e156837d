"""What several operations ask of a tensor."""

from collections.abc import Callable, Sequence

import torch


def accumulator_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Give the precision of sums and sampling positions: float32 for half and single precision, float64 for double."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def memory_format(tensor: torch.Tensor) -> torch.memory_format:
    """Give the layout of a result made from ``tensor``: channels_last if it is laid out so and not also contiguous."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def reference_gradients(
    reference: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], grad: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Differentiate by autograd. Only outside of custom operators: within them autograd records nothing.

    Args:
        reference: of the inputs, differentiable.
        inputs: floating point tensors of any shapes.
        grad: gradient of the result, in its shape.

    Returns:
        The gradients of all inputs, in their shapes and dtypes.
    """
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(reference(*leaves), leaves, grad)
