"""Bilinear warp of a feature map by a flow field (equations 10-13)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def _sampling_grid(flow: Tensor, height: int, width: int) -> Tensor:
    """Positions (x, y) + flow in the units of ``grid_sample(align_corners=False)``, which unlike its sibling allows one-pixel sides."""
    y = torch.arange(flow.shape[1], dtype=flow.dtype, device=flow.device)
    x = torch.arange(flow.shape[2], dtype=flow.dtype, device=flow.device)
    position = flow + torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return (2 * position + 1) / flow.new_tensor([width, height]) - 1


def flow_warp_reference(feature: Tensor, flow: Tensor) -> Tensor:
    """The warp as everyone writes it; the yardstick of the tests. Shapes as in :func:`flow_warp`."""
    grid = _sampling_grid(flow, *feature.shape[-2:])
    warped = F.grid_sample(feature.to(flow.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.to(feature.dtype)


@torch.library.custom_op("frfsr::flow_warp", mutates_args=())
def _flow_warp(feature: Tensor, flow: Tensor) -> Tensor:
    return flow_warp_reference(feature, flow)


@_flow_warp.register_fake
def _(feature: Tensor, flow: Tensor) -> Tensor:
    return feature.new_empty(feature.shape[0], feature.shape[1], flow.shape[1], flow.shape[2])


@torch.library.custom_op("frfsr::flow_warp_backward", mutates_args=())
def _flow_warp_backward(
    grad: Tensor, feature: Tensor, flow: Tensor, needs_feature: bool, needs_flow: bool
) -> tuple[Tensor, Tensor]:
    height, width = feature.shape[-2:]
    grid = _sampling_grid(flow, height, width)
    grad_feature, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad.to(flow.dtype), feature.to(flow.dtype), grid, 0, 0, False, [needs_feature, True]
    )
    grad_feature = grad_feature.to(feature.dtype) if needs_feature else feature.new_empty(0)
    grad_flow = grad_grid * (2 / flow.new_tensor([width, height])) if needs_flow else flow.new_empty(0)
    return grad_feature, grad_flow


@_flow_warp_backward.register_fake
def _(grad: Tensor, feature: Tensor, flow: Tensor, needs_feature: bool, needs_flow: bool) -> tuple[Tensor, Tensor]:
    grad_feature = feature.new_empty(feature.shape if needs_feature else (0,))
    return grad_feature, flow.new_empty(flow.shape if needs_flow else (0,))


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    needs_feature, needs_flow = ctx.needs_input_grad
    grad_feature, grad_flow = _flow_warp_backward(grad, *ctx.saved_tensors, needs_feature, needs_flow)
    return grad_feature if needs_feature else None, grad_flow if needs_flow else None


_flow_warp.register_autograd(_backward, setup_context=_setup_context)


def flow_warp(feature: Tensor, flow: Tensor) -> Tensor:
    """Sample ``feature`` at every output pixel's own position plus its flow, bilinearly, with zeros outside.

    | argument | shape        | meaning                                                              |
    |----------|--------------|----------------------------------------------------------------------|
    | feature  | (B, C, h, w) | floating point                                                       |
    | flow     | (B, H, W, 2) | displacements (x, y) in pixels of ``feature``; any finite value      |
    | returns  | (B, C, H, W) | the dtype of ``feature``                                             |

    Pixel centres have whole-number coordinates (``align_corners=True`` in ``grid_sample``'s words), so that a flow of whole
    numbers copies pixels. Differentiable in both arguments. Half-precision flow is widened to float32, because a half number
    cannot address the pixels of a large image.

    Raises ``ValueError`` if the shapes do not fit each other.
    """
    if feature.ndim != 4 or flow.ndim != 4 or flow.shape[-1] != 2 or feature.shape[0] != flow.shape[0]:
        raise ValueError(
            f"flow_warp needs feature (B, C, h, w) and flow (B, H, W, 2), not {tuple(feature.shape)} and {tuple(flow.shape)}"
        )
    return _flow_warp(feature, flow if flow.dtype == torch.float64 else flow.float())
