"""The CPU path of :mod:`frfsr.kernels.deform`: the vectorised ``grid_sample`` and one matrix product per block."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from frfsr.kernels._constants import TAPS
from frfsr.kernels._deform_geometry import Geometry
from frfsr.kernels._tensors import accumulator_dtype, memory_format

_BLOCK_ELEMENTS = 1 << 20  # columns of a block (fp32: 4 MiB), few enough to stay in the cache


class _Image(NamedTuple):
    """The geometry of one image: offset (G*18, H, W), mask (G*9, H, W), flow of its taps (9, 2, h, w) or None."""

    offset: Tensor
    mask: Tensor
    flow: Tensor | None
    flow_scale: int


def _images(geometry: Geometry, dtype: torch.dtype) -> Iterator[_Image]:
    flows = geometry.tap_flows(dtype)
    for b, (offset, mask) in enumerate(zip(geometry.offset, geometry.mask, strict=True)):
        yield _Image(offset, mask, None if flows is None else flows[b], geometry.flow_scale)


class _Block(NamedTuple):
    """Some output rows: positions (G, 9*h, w, 2), samples (G, C/G, 9, h, w) and masks (G, 1, 9, h, w)."""

    rows: slice
    grid: Tensor
    samples: Tensor
    mask: Tensor

    def columns(self) -> Tensor:
        """Masked samples (C*9, h*w), taking the place of the samples."""
        return rearrange(self.samples.mul_(self.mask), "g c k h w -> (g c k) (h w)")


def _canvas(image: Tensor, groups: int) -> Tensor:
    """(C, Hk, Wk) -> (G, C/G, Hk, Wk)."""
    return rearrange(image, "(g c) h w -> g c h w", g=groups)


def _power_of_two_canvas(image: Tensor, groups: int) -> Tensor:
    """(C, Hk, Wk) -> (G, C/G, 2^m, 2^n), zeros outside: for the gradients.

    With such sizes the normalisation of ``grid_sample`` only scales by powers of two: whole-pixel positions stay exact,
    and with them the side on which the gradient of the bilinear interpolation is taken. The samples themselves do not
    jump there.
    """
    height, width = (1 << (size - 1).bit_length() for size in image.shape[-2:])
    return _canvas(F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2])), groups)


def _sampling_grid(canvas: Tensor, offset: Tensor, flow: Tensor | None, scale: int, top: int) -> Tensor:
    """Normalised sampling positions of the rows from ``top``: (G, 9, 2, h, w) offsets -> (G, 9*h, w, 2) as (x, y).

    ``flow``: (9, 2, h/scale, w/scale) pre-offsets of these rows, in coarse pixels.
    """
    groups, _, _, height, width = offset.shape
    grid = canvas.new_empty(groups, 2, TAPS, height, width)
    pixels = (torch.arange(top, top + height, dtype=canvas.dtype)[:, None], torch.arange(width, dtype=canvas.dtype))
    taps = (torch.arange(TAPS) // 3 - 1, torch.arange(TAPS) % 3 - 1)
    for axis, size in enumerate(canvas.shape[-2:]):
        position = pixels[axis] + rearrange(taps[axis], "k -> k 1 1")
        if flow is not None:
            position = position + repeat(flow[:, axis] * scale, "k h w -> k (h s) (w t)", s=scale, t=scale)
        torch.add((2 * position + 1) / size - 1, offset[:, :, axis], alpha=2 / size, out=grid[:, 1 - axis])
    return rearrange(grid, "g d k h w -> g (k h) w d")


def _blocks(canvas: Tensor, image: _Image, elements: int) -> Iterator[_Block]:
    """Cut an image into blocks of whole coarse rows and about ``elements`` samples."""
    groups, channels = canvas.shape[:2]
    height, width = image.offset.shape[-2:]
    scale = image.flow_scale
    step = max(1, elements // (groups * channels * TAPS * width * scale)) * scale
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        part = rearrange(image.offset[:, rows].to(canvas.dtype), "(g k d) h w -> g k d h w", g=groups, d=2)
        flow = None if image.flow is None else image.flow[:, :, rows.start // scale : rows.stop // scale]
        grid = _sampling_grid(canvas, part, flow, scale, top)
        samples = rearrange(F.grid_sample(canvas, grid, align_corners=False), "g c (k h) w -> g c k h w", k=TAPS)
        mask = rearrange(image.mask[:, rows].to(canvas.dtype), "(g k) h w -> g 1 k h w", g=groups)
        yield _Block(rows, grid, samples, mask)


@torch.autocast("cpu", enabled=False)  # an operator's dtypes are those of its arguments
def deform_conv_cpu(x: Tensor, geometry: Geometry, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute the forward pass.

    Args:
        x: (B, C, Hk, Wk).
        geometry: where it is sampled.
        weight: (O, C, 3, 3).
        bias: (O,) or None.

    Returns:
        (B, O, H, W).
    """
    kernel = weight.to(x.dtype).flatten(1)
    shape = (x.shape[0], weight.shape[0], *geometry.offset.shape[-2:])
    out = torch.empty(shape, dtype=x.dtype, memory_format=memory_format(x))
    for b, image in enumerate(_images(geometry, accumulator_dtype(x))):
        canvas = _canvas(x[b].to(accumulator_dtype(x)), geometry.groups)
        for block in _blocks(canvas, image, _BLOCK_ELEMENTS):
            product = kernel @ block.columns().to(x.dtype)
            out[b, :, block.rows] = rearrange(product, "o (h w) -> o h w", w=shape[-1])
    return out if bias is None else out.add_(rearrange(bias.to(x.dtype), "o -> o 1 1"))


def deform_scratch(x: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
    """Make tensors like those that the forward pass holds beside its arguments and result."""
    dtype = accumulator_dtype(x)
    (image, *_) = _images(geometry, dtype)
    flows = () if image.flow is None else (image.flow,)
    blocks = [x.new_empty(_BLOCK_ELEMENTS, dtype=dtype) for _ in range(3)]  # grid, samples, product
    return _canvas(x[0].to(dtype), geometry.groups), *flows, *blocks


@torch.autocast("cpu", enabled=False)
def deform_conv_backward_cpu(
    grad: Tensor, x: Tensor, geometry: Geometry, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients; samples are taken again instead of kept by the forward.

    Args:
        grad: (B, O, H, W) of the output.
        x: (B, C, Hk, Wk).
        geometry: where it is sampled.
        weight: (O, C, 3, 3).

    Returns:
        The gradients of x, offset, mask and weight.
    """
    inputs = x, geometry.offset, geometry.mask, weight
    kernel = weight.to(accumulator_dtype(x)).flatten(1)
    grad_x, grad_offset, grad_mask, grad_weight = (
        torch.empty_like(tensor, memory_format=memory_format(tensor)) for tensor in inputs
    )
    grad_kernel = torch.zeros_like(kernel)
    for b, image in enumerate(_images(geometry, kernel.dtype)):
        canvas = _power_of_two_canvas(x[b].to(kernel.dtype), geometry.groups)
        grad_canvas = torch.zeros_like(canvas)
        to_pixels = torch.tensor([2 / size for size in canvas.shape[-2:]], dtype=canvas.dtype)
        elements = max(_BLOCK_ELEMENTS, canvas.numel())  # each block clears a canvas: few blocks for large images
        for block in _blocks(canvas, image, elements):
            grad_rows = rearrange(grad[b, :, block.rows].to(kernel.dtype), "o h w -> o (h w)")
            grad_samples = (kernel.t() @ grad_rows).view_as(block.samples)
            mask_part = (grad_samples * block.samples).sum(1)
            grad_mask[b, :, block.rows] = rearrange(mask_part, "g k h w -> (g k) h w")
            grad_kernel.addmm_(grad_rows, block.columns().t())
            canvas_part, grid_part = torch.ops.aten.grid_sampler_2d_backward(
                rearrange(grad_samples.mul_(block.mask), "g c k h w -> g c (k h) w"),
                canvas,
                block.grid,
                interpolation_mode=0,  # bilinear
                padding_mode=0,  # zeros
                align_corners=False,
                output_mask=[True, True],
            )
            grad_canvas += canvas_part
            grid_part = grid_part.flip(-1).mul_(to_pixels)
            grad_offset[b, :, block.rows] = rearrange(grid_part, "g (k h) w d -> (g k d) h w", k=TAPS)
        height, width = x.shape[-2:]
        grad_x[b] = rearrange(grad_canvas[..., :height, :width], "g c h w -> (g c) h w")
    grad_weight.copy_(grad_kernel.view_as(weight))
    return grad_x, grad_offset, grad_mask, grad_weight
