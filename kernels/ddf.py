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

from frfsr.kernels._dispatch import accumulator_dtype, memory_format, reference_gradients, use_plain, use_triton


class FilterNorm(NamedTuple):
    """Learned scale (gamma) and shift (beta) of the filter normalisation of equation 21.

    ``channel_scale``, ``channel_shift``: (C, k, k); ``spatial_scale``, ``spatial_shift``: (k*k,).
    """

    channel_scale: Tensor
    channel_shift: Tensor
    spatial_scale: Tensor
    spatial_shift: Tensor


def normalise_filter(filters: Tensor, scale: Tensor, shift: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Equation 21: zero mean and unit (unbiased) deviation over the taps ``dim``, then learned scale and shift."""
    filters = filters.to(accumulator_dtype(filters))
    mean = filters.mean(dim, keepdim=True)
    deviation = filters.std(dim, keepdim=True) + 1e-10
    return (filters - mean) / deviation * scale + shift


def dynamic_filter_reference(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Readable form: unfold the neighbourhoods, multiply by both filters, sum over the taps."""
    taps = channel.shape[-1]
    height, width = x.shape[-2:]
    neighbours = F.unfold(x, taps, padding=taps // 2)
    neighbours = rearrange(neighbours, "b (c k) (h w) -> b c k h w", c=x.shape[1], h=height, w=width)
    channel = rearrange(channel, "b c i j -> b c (i j) 1 1")
    spatial = rearrange(spatial, "b k h w -> b 1 k h w")
    return (neighbours * channel * spatial).sum(2).to(x.dtype, memory_format=memory_format(x))


# What is worked on at a time (fp32: 512 KiB) and its temporaries stay in a core's cache.
_BLOCK_ELEMENTS = 1 << 17


def _row_blocks(x: Tensor) -> list[tuple[int, slice]]:
    """Image and rows of the parts that are worked on at a time."""
    batch, channels, height, width = x.shape
    step = max(1, _BLOCK_ELEMENTS // max(1, channels * width))
    return [(b, slice(y, min(y + step, height))) for b in range(batch) for y in range(0, height, step)]


def _windows(side: int, rows: slice, width: int) -> list[tuple[slice, slice, slice]]:
    """For every tap the part of a padded image (C, H + side - 1, W + side - 1) that it reads for some rows."""
    taps = [divmod(k, side) for k in range(side * side)]
    return [(slice(None), slice(rows.start + i, rows.stop + i), slice(j, j + width)) for i, j in taps]


def _dynamic_filter_cpu(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Nine fused multiply-adds over shifted views, in blocks that fit the cache."""
    x = x.contiguous(memory_format=memory_format(x))
    side, dtype = channel.shape[-1], accumulator_dtype(x)
    channel, spatial = rearrange(channel.to(dtype), "b c i j -> b (i j) c 1 1"), spatial.to(dtype)
    padded = F.pad(x.to(dtype), (side // 2,) * 4)
    out = torch.empty_like(x)
    for b, rows in _row_blocks(x):
        total = torch.zeros_like(x[b, :, rows], dtype=dtype)
        product = torch.empty_like(total)
        for k, window in enumerate(_windows(side, rows, x.shape[3])):
            torch.mul(padded[b][window], spatial[b, k, rows], out=product)
            total.addcmul_(product, channel[b, k])
        out[b, :, rows] = total
    return out


def _dynamic_filter_backward_cpu(grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, channel and spatial, tap by tap in the same blocks."""
    x = x.contiguous(memory_format=memory_format(x))
    side, dtype = channel.shape[-1], accumulator_dtype(x)
    margin = side // 2
    grad = grad.to(dtype).contiguous(memory_format=memory_format(x))
    channels, spatials = rearrange(channel.to(dtype), "b c i j -> b (i j) c"), spatial.to(dtype).contiguous()
    padded = F.pad(x.to(dtype), (margin,) * 4)
    grad_padded = torch.zeros_like(padded)
    grad_channel, grad_spatial = torch.zeros_like(channels), torch.zeros_like(spatials)
    for b, rows in _row_blocks(x):
        grad_block = grad[b, :, rows]
        product = torch.empty_like(grad_block)
        for k, window in enumerate(_windows(side, rows, x.shape[3])):
            torch.mul(grad_block, padded[b][window], out=product)
            flat = rearrange(product, "c h w -> c (h w)")
            grad_channel[b, k].addmv_(flat, spatials[b, k, rows].flatten())
            grad_spatial[b, k, rows].view(-1).addmv_(flat.t(), channels[b, k])
            torch.mul(grad_block, spatials[b, k, rows], out=product)
            grad_padded[b][window].addcmul_(product, channels[b, k, :, None, None])
    grad_x = grad_padded[:, :, margin : margin + x.shape[2], margin : margin + x.shape[3]].to(x.dtype)
    grad_channel = rearrange(grad_channel, "b (i j) c -> b c i j", i=side).to(channel.dtype).contiguous()
    return grad_x.contiguous(memory_format=memory_format(x)), grad_channel, grad_spatial.to(spatial.dtype)


def _spatial_filter(spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if scale is None:
        return spatial
    return normalise_filter(spatial, rearrange(scale, "k -> k 1 1"), rearrange(shift, "k -> k 1 1"), dim=1)


def _spatial_filter_backward(
    grad: Tensor, spatial: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the raw spatial filter, its scale and its shift from that of the normalised filter."""
    ones, zeros = torch.ones_like(scale), torch.zeros_like(shift)
    unit = _spatial_filter(spatial, ones, zeros)
    deviation = spatial.to(unit.dtype).std(1, keepdim=True) + 1e-10
    grad_unit = grad * rearrange(scale, "k -> k 1 1")
    degrees = spatial.shape[1] - 1
    centred = grad_unit - grad_unit.mean(1, keepdim=True)
    grad_spatial = (centred - unit * (grad_unit * unit).sum(1, keepdim=True) / degrees) / deviation
    grad_scale, grad_shift = (grad * unit).sum((0, 2, 3)), grad.sum((0, 2, 3))
    return grad_spatial.to(spatial.dtype), grad_scale.to(scale.dtype), grad_shift.to(shift.dtype)


@torch.library.custom_op("frfsr::dynamic_filter", mutates_args=())
def _dynamic_filter(x: Tensor, channel: Tensor, spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if use_triton(x):
        from frfsr.kernels import _ddf_triton

        return _ddf_triton.filter_pixels(x, channel, spatial, scale, shift)
    spatial = _spatial_filter(spatial, scale, shift)
    if use_plain(x):
        return dynamic_filter_reference(x, channel, spatial)
    return _dynamic_filter_cpu(x, channel, spatial)


@_dynamic_filter.register_fake
def _(x: Tensor, channel: Tensor, spatial: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


@torch.library.custom_op("frfsr::dynamic_filter_backward", mutates_args=())
def _dynamic_filter_backward(
    grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if use_triton(x):
        from frfsr.kernels import _ddf_triton

        grad = grad.contiguous(memory_format=memory_format(x))
        grad_x = _ddf_triton.filter_pixels(grad, channel, spatial, transposed=True)
        return grad_x, *_ddf_triton.filter_gradients(grad, x, channel, spatial)
    return _dynamic_filter_backward_cpu(grad, x, channel, spatial)


@_dynamic_filter_backward.register_fake
def _(grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=memory_format(x))
    return grad_x, *(torch.empty_like(f, memory_format=torch.contiguous_format) for f in (channel, spatial))


def _save_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, channel, spatial, scale, shift = ctx.saved_tensors
    normalised = _spatial_filter(spatial, scale, shift)
    if use_plain(x):
        gradients = reference_gradients(dynamic_filter_reference, (x, channel, normalised), grad)
    else:
        gradients = _dynamic_filter_backward(grad, x, channel, normalised)
    if scale is None:
        return *gradients, None, None
    grad_x, grad_channel, grad_normalised = gradients
    return grad_x, grad_channel, *_spatial_filter_backward(grad_normalised, spatial, scale, shift)


_dynamic_filter.register_autograd(_backward, setup_context=_save_for_backward)


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
