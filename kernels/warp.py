"""Bilinear warp of a feature map by a flow field (equations 10-13)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from frfsr.kernels._dispatch import form_for, operation
from frfsr.kernels._operator import operator
from frfsr.kernels._tensors import accumulator_dtype, memory_format
from frfsr.kernels._warp_cpu import empty_warped, flow_gather_cpu, flow_scatter_cpu


def _sampling_grid(flow: Tensor, height: int, width: int) -> Tensor:
    """Positions plus flow in the units of ``grid_sample(align_corners=False)``, which allows sides of one pixel."""
    y = torch.arange(flow.shape[1], dtype=flow.dtype, device=flow.device)
    x = torch.arange(flow.shape[2], dtype=flow.dtype, device=flow.device)
    position = flow + torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    size = flow.new_tensor([width, height])
    position = position.clamp(min=-2).minimum(size + 1)  # outside stays outside, and nothing overflows
    return (2 * position + 1) / size - 1


def flow_warp_reference(feature: Tensor, flow: Tensor) -> Tensor:
    """The warp as everyone writes it, the yardstick of the tests. Arguments as in :func:`flow_warp`."""
    grid = _sampling_grid(flow, *feature.shape[-2:])
    warped = F.grid_sample(feature.to(flow.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.to(feature.dtype)


def flow_warp_reference_backward(grad: Tensor, feature: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`flow_warp_reference` by feature and flow."""
    height, width = feature.shape[-2:]
    grad_feature, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad.to(flow.dtype), feature.to(flow.dtype), _sampling_grid(flow, height, width), 0, 0, False, [True, True]
    )
    return grad_feature.to(feature.dtype), grad_grid * (2 / flow.new_tensor([width, height]))


@operator("frfsr::flow_warp")
def _flow_warp(feature: Tensor, flow: Tensor) -> Tensor:
    form = form_for("flow_warp", feature)
    if form == "triton":
        from frfsr.kernels._warp_triton import flow_warp_triton

        return flow_warp_triton(feature, flow, empty_warped(feature, flow))
    if form == "cpu" and torch.equal(flow, flow.round()):
        return flow_gather_cpu(feature, flow)
    return flow_warp_reference(feature, flow).contiguous(memory_format=memory_format(feature))


@_flow_warp.register_fake
def _(feature: Tensor, flow: Tensor) -> Tensor:
    return empty_warped(feature, flow)


@operator("frfsr::flow_warp_backward")
def _flow_warp_backward(grad: Tensor, feature: Tensor, flow: Tensor, needs_flow: bool) -> tuple[Tensor, Tensor]:
    form = form_for("flow_warp", feature)
    if form == "triton":
        from frfsr.kernels._warp_triton import flow_warp_backward_triton

        return flow_warp_backward_triton(grad, feature, flow, needs_flow)
    if form == "cpu" and not needs_flow and torch.equal(flow, flow.round()):
        return flow_scatter_cpu(grad, feature, flow).contiguous(memory_format=memory_format(feature)), flow.new_empty(0)
    grad_feature, grad_flow = flow_warp_reference_backward(grad, feature, flow)
    grad_feature = grad_feature.contiguous(memory_format=memory_format(feature))
    return grad_feature, grad_flow if needs_flow else flow.new_empty(0)


@_flow_warp_backward.register_fake
def _(grad: Tensor, feature: Tensor, flow: Tensor, needs_flow: bool) -> tuple[Tensor, Tensor]:
    grad_feature = torch.empty_like(feature, memory_format=memory_format(feature))
    return grad_feature, torch.empty_like(
        flow, memory_format=torch.contiguous_format
    ) if needs_flow else flow.new_empty(0)


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    needs_feature, needs_flow = ctx.needs_input_grad
    grad_feature, grad_flow = _flow_warp_backward(grad, *ctx.saved_tensors, needs_flow)
    return grad_feature if needs_feature else None, grad_flow if needs_flow else None


_flow_warp.register_autograd(_backward, setup_context=_setup_context)


@operation
def flow_warp(feature: Tensor, flow: Tensor) -> Tensor:
    """Sample ``feature`` at every output pixel's own position plus its flow, bilinearly, with zeros outside.

    Pixel centres have whole-number coordinates (``align_corners=True`` in ``grid_sample``'s words), so that a flow of
    whole numbers copies pixels. Differentiable in both arguments; at a whole coordinate, a kink of the interpolation,
    the derivative by the flow is a one-sided one. Half-precision flow is widened to float32: a half number cannot
    address the pixels of a large image. On a GPU the gradient by the feature is summed with atomics: its last bits vary
    between runs.

    Args:
        feature: (B, C, h, w), floating point; contiguous or channels-last, and so will the result be.
        flow: (B, H, W, 2), displacements (x, y) in pixels of ``feature``, finite, of any magnitude.

    Returns:
        (B, C, H, W) in the dtype of ``feature``, interpolated in the precision of the flow.

    Raises:
        ValueError: if the shapes do not fit each other.

    Examples:
        >>> import torch
        >>> from frfsr.kernels import flow_warp
        >>> feature = torch.arange(4.0).reshape(1, 1, 1, 4)
        >>> flow_warp(feature, torch.tensor([1.0, 0.0]).expand(1, 1, 4, 2))  # what lies one pixel to the right
        tensor([[[[1., 2., 3., 0.]]]])
    """
    if feature.ndim != 4 or flow.ndim != 4 or flow.shape[-1] != 2 or feature.shape[0] != flow.shape[0]:
        raise ValueError(
            "flow_warp needs feature (B, C, h, w) and flow (B, H, W, 2), "
            f"not {tuple(feature.shape)} and {tuple(flow.shape)}"
        )
    return _flow_warp(feature, flow.to(accumulator_dtype(feature)))
