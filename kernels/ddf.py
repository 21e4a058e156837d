"""Decoupled dynamic filtering, the inner loop of the paper's DRB (equations 19 and 20).

Every pixel of every channel is filtered by its own k x k filter, the product of one filter per channel and one per
pixel: ``out[b, c, p] = sum_d x[b, c, p + d] * channel[b, c, d] * spatial[b, d, p]``, zeros outside, no flip.
The k*k-fold unfolded input is never stored.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels._ddf_cpu import dynamic_filter_backward_cpu, dynamic_filter_cpu, dynamic_filter_scratch
from frfsr.kernels._dispatch import form_for, operation
from frfsr.kernels._operator import operator
from frfsr.kernels._tensors import accumulator_dtype, memory_format, reference_gradients


class FilterNorm(NamedTuple):
    """Learned scale (gamma) and shift (beta) of the filter normalisation of equation 21.

    ``channel_scale``, ``channel_shift``: (C, k, k); ``spatial_scale``, ``spatial_shift``: (k*k,).
    """

    channel_scale: Tensor
    channel_shift: Tensor
    spatial_scale: Tensor
    spatial_shift: Tensor


def _standardise(filters: Tensor, dim: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Filters of zero mean and unit (unbiased) deviation over the taps ``dim``, and the deviation they had."""
    filters = filters.to(accumulator_dtype(filters))
    mean = filters.mean(dim, keepdim=True)
    centred, taps = filters - mean, filters.numel() // max(1, mean.numel())
    # By hand, since std(dim) is ten times as slow; the bound keeps the gradient of constant filters finite.
    deviation = (centred.square().sum(dim, keepdim=True) / (taps - 1)).clamp_min(1e-30).sqrt() + 1e-10
    return centred / deviation, deviation


def normalise_filter(filters: Tensor, scale: Tensor, shift: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Apply equation 21: zero mean and unit (unbiased) deviation over the taps, then learned scale and shift.

    Args:
        filters: of any shape.
        scale: broadcastable to it.
        shift: broadcastable to it.
        dim: the axis, or axes, of the taps.

    Returns:
        Filters of the same shape.
    """
    return _standardise(filters, dim)[0] * scale + shift


def dynamic_filter_reference(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Readable form: unfold the neighbourhoods, multiply by both filters, sum over the taps."""
    taps = channel.shape[-1]
    height, width = x.shape[-2:]
    neighbours = F.unfold(x, taps, padding=taps // 2)
    neighbours = rearrange(neighbours, "b (c k) (h w) -> b c k h w", c=x.shape[1], h=height, w=width)
    channel = rearrange(channel, "b c i j -> b c (i j) 1 1")
    spatial = rearrange(spatial, "b k h w -> b 1 k h w")
    return (neighbours * channel * spatial).sum(2).to(x.dtype, memory_format=memory_format(x))


def _spatial_filter(spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if scale is None or shift is None:
        return spatial
    return normalise_filter(spatial, rearrange(scale, "k -> k 1 1"), rearrange(shift, "k -> k 1 1"), dim=1)


def _spatial_filter_backward(
    grad: Tensor, spatial: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the raw spatial filter, its scale and its shift from that of the normalised filter."""
    unit, deviation = _standardise(spatial, dim=1)
    grad_unit = grad * rearrange(scale, "k -> k 1 1")
    degrees = spatial.shape[1] - 1
    centred = grad_unit - grad_unit.mean(1, keepdim=True)
    grad_spatial = (centred - unit * (grad_unit * unit).sum(1, keepdim=True) / degrees) / deviation
    grad_scale, grad_shift = (grad * unit).sum((0, 2, 3)), grad.sum((0, 2, 3))
    return grad_spatial.to(spatial.dtype), grad_scale.to(scale.dtype), grad_shift.to(shift.dtype)


@operator("frfsr::dynamic_filter")
def _dynamic_filter(x: Tensor, channel: Tensor, spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    form = form_for("dynamic_filter", x)
    if form == "triton":
        from frfsr.kernels import _ddf_triton

        return _ddf_triton.filter_pixels(x, channel, spatial, scale, shift)
    spatial = _spatial_filter(spatial, scale, shift)
    if form == "reference":
        return dynamic_filter_reference(x, channel, spatial)
    return dynamic_filter_cpu(x, channel, spatial)


@_dynamic_filter.register_fake
def _(x: Tensor, channel: Tensor, spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


@_dynamic_filter.register_scratch
def _(x: Tensor, channel: Tensor, spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor, ...]:
    return dynamic_filter_scratch(x, _spatial_filter(spatial, scale, shift))


@operator("frfsr::dynamic_filter_backward")
def _dynamic_filter_backward(
    grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if form_for("dynamic_filter", x) == "triton":
        from frfsr.kernels import _ddf_triton

        grad = grad.contiguous(memory_format=memory_format(x))
        grad_x = _ddf_triton.filter_pixels(grad, channel, spatial, transposed=True)
        return grad_x, *_ddf_triton.filter_gradients(grad, x, channel, spatial)
    return dynamic_filter_backward_cpu(grad, x, channel, spatial)


@_dynamic_filter_backward.register_fake
def _(grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=memory_format(x))
    grad_channel, grad_spatial = (
        torch.empty_like(f, memory_format=torch.contiguous_format) for f in (channel, spatial)
    )
    return grad_x, grad_channel, grad_spatial


def _save_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, channel, spatial, scale, shift = ctx.saved_tensors
    normalised = _spatial_filter(spatial, scale, shift)
    if form_for("dynamic_filter", x) == "reference":
        gradients = reference_gradients(dynamic_filter_reference, (x, channel, normalised), grad)
    else:
        gradients = _dynamic_filter_backward(grad, x, channel, normalised)
    if scale is None:
        return *gradients, None, None
    grad_x, grad_channel, grad_normalised = gradients
    return grad_x, grad_channel, *_spatial_filter_backward(grad_normalised, spatial, scale, shift)


_dynamic_filter.register_autograd(_backward, setup_context=_save_for_backward)


@operation
def dynamic_filter(x: Tensor, channel: Tensor, spatial: Tensor, norm: FilterNorm | None = None) -> Tensor:
    """Filter ``x`` by the product of one filter per channel and one per pixel (equations 19 to 21).

    Args:
        x: (B, C, H, W) features, float32/64, float16 or bfloat16.
        channel: (B, C, k, k) filter of each channel, k odd.
        spatial: (B, k*k, H, W) filter of each pixel, taps in row-major order.
        norm: learned scale and shift of the filter normalisation; None (the published code) leaves it out.

    Returns:
        (B, C, H, W) in the dtype of ``x``, channels-last if ``x`` is; sums are float32 (float64 for float64).

    Raises:
        ValueError: if the shapes do not fit together.

    Examples:
        >>> import torch
        >>> from frfsr.kernels import dynamic_filter
        >>> x = torch.arange(3.0).reshape(1, 1, 1, 3)
        >>> dynamic_filter(x, torch.ones(1, 1, 3, 3), torch.full((1, 9, 1, 3), 0.5))  # half the sum of the neighbours
        tensor([[[[0.5000, 1.5000, 1.5000]]]])
    """
    batch, channels, height, width = x.shape
    taps = channel.shape[-1]
    if taps % 2 == 0 or channel.shape != (batch, channels, taps, taps):
        raise ValueError(
            f"channel must be (B, C, k, k) = ({batch}, {channels}, k, k), k odd, got {tuple(channel.shape)}"
        )
    if spatial.shape != (batch, taps * taps, height, width):
        expected = (batch, taps * taps, height, width)
        raise ValueError(f"spatial must be (B, k*k, H, W) = {expected}, got {tuple(spatial.shape)}")
    if norm is None:
        return _dynamic_filter(x, channel, spatial, None, None)
    channel = normalise_filter(channel, norm.channel_scale, norm.channel_shift, dim=(-2, -1))
    return _dynamic_filter(x, channel, spatial, norm.spatial_scale, norm.spatial_shift)
