"""The CPU path of :mod:`frfsr.kernels.ddf`: fused multiply-adds over shifted windows, in blocks that stay in the cache.

A block is a padded, flattened part of the image, channels first. In it a tap is a constant shift, so that every
operation runs over long contiguous lines whatever the layout of the image. The last columns of a line, as many as the
padding is wide, mix two rows; they are computed and dropped.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from frfsr.kernels._tensors import accumulator_dtype, memory_format

BLOCK_ELEMENTS = 1 << 18  # fp32: 1 MiB, few enough for the cache and enough to hide what a call costs
BLOCK_CHANNELS = 64


class _Block(NamedTuple):
    """Some rows and channels of image ``b``, with zeros around the image; and memory to use.

    Attributes:
        b: number of the image in the batch.
        pixels: (c, (h + k - 1) * (w + k - 1) + k - 1), the padded image.
        more_pixels: memory of the same size.
        lines: span in :func:`_lines`.
        term: (c, h * (w + k - 1)), memory.
        total: (c, h * (w + k - 1)), memory.
    """

    b: int
    channels: slice
    rows: slice
    lines: slice
    pixels: Tensor
    more_pixels: Tensor
    term: Tensor
    total: Tensor


def _blocks(x: Tensor, side: int) -> Iterator[_Block]:
    """All blocks of x (B, C, H, W), one after the other in the same memory."""
    batch, channels, height, width = x.shape
    margin, line = side // 2, width + side - 1
    c_step = min(channels, BLOCK_CHANNELS)
    y_step = min(height, max(1, BLOCK_ELEMENTS // (c_step * line)))
    dtype = accumulator_dtype(x)
    padded = x.new_zeros(2, c_step, (y_step + side - 1) * line + side - 1, dtype=dtype)
    scratch = x.new_empty(2, c_step, y_step * line, dtype=dtype)
    for b, c, y in product(range(batch), range(0, channels, c_step), range(0, height, y_step)):
        part, rows = slice(c, min(c + c_step, channels)), slice(y, min(y + y_step, height))
        pixels = padded[:, : part.stop - c, : (rows.stop - y + side - 1) * line + side - 1]
        image = _image(pixels[0], side, line)
        first, last = max(0, y - margin), min(height, rows.stop + margin)
        image[:, : first - y + margin] = 0
        image[:, last - y + margin :] = 0
        image[:, first - y + margin : last - y + margin, margin : margin + width] = x[b, part, first:last]
        lines = slice(y * line, rows.stop * line)
        yield _Block(b, part, rows, lines, *pixels, *scratch[:, : part.stop - c, : lines.stop - lines.start])


def _image(pixels: Tensor, side: int, line: int) -> Tensor:
    """The pixels of a block as (c, h + k - 1, w + k - 1)."""
    return rearrange(pixels[:, : 1 - side or None], "c (h w) -> c h w", w=line)


def _lines(filters: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """Spatial filters (B, k*k, H, W) as lines of the blocks, (B, k*k, H * (W + k - 1))."""
    return F.pad(filters.to(dtype, memory_format=torch.contiguous_format), (0, side - 1)).flatten(2)


def _shifts(side: int, line: int) -> list[int]:
    """The place in a flattened block of every tap, in row-major order."""
    return [i * line + j for i, j in product(range(side), repeat=2)]


def dynamic_filter_cpu(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Forward pass. Arguments as in :func:`frfsr.kernels.dynamic_filter`."""
    side, line, dtype = channel.shape[-1], x.shape[3] + channel.shape[-1] - 1, accumulator_dtype(x)
    channels, lines = rearrange(channel.to(dtype), "b c i j -> b (i j) c 1"), _lines(spatial, side, dtype)
    out = torch.empty_like(x, memory_format=memory_format(x))
    for b, part, rows, span, pixels, _, term, total in _blocks(x, side):
        filters = lines[b, :, span]
        for k, shift in enumerate(_shifts(side, line)):
            torch.mul(pixels[:, shift : shift + term.shape[1]], filters[k], out=term)
            if k == 0:
                torch.mul(term, channels[b, k, part], out=total)
            else:
                total.addcmul_(term, channels[b, k, part])
        out[b, part, rows] = rearrange(total, "c (h w) -> c h w", w=line)[..., : x.shape[3]]
    return out


def dynamic_filter_scratch(x: Tensor, spatial: Tensor) -> tuple[Tensor, ...]:
    """Make tensors like those that the forward pass holds beside its arguments and result."""
    dtype = accumulator_dtype(x)
    blocks = [x.new_empty(BLOCK_ELEMENTS, dtype=dtype) for _ in range(4)]
    return _lines(spatial, round(spatial.shape[1] ** 0.5), dtype), *blocks


def dynamic_filter_backward_cpu(
    grad: Tensor, x: Tensor, channel: Tensor, spatial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, channel and spatial, tap by tap in the same blocks.

    Args:
        grad: (B, C, H, W) of the output.
        x: as for :func:`frfsr.kernels.dynamic_filter`.
        channel: likewise.
        spatial: likewise, normalised.

    Returns:
        The three gradients.
    """
    batch, depth, height, width = x.shape
    side, line, dtype = channel.shape[-1], width + channel.shape[-1] - 1, accumulator_dtype(x)
    channels, lines = rearrange(channel.to(dtype), "b c i j -> b (i j) c"), _lines(spatial, side, dtype)
    shape = (batch, depth, height + side - 1, width + side - 1)
    padded = torch.empty(shape, dtype=dtype, memory_format=memory_format(x)).zero_()
    grad_channels, grad_lines = torch.zeros_like(channels), torch.zeros_like(lines)
    for b, part, rows, span, pixels, grad_pixels, term, grad_block in _blocks(x, side):
        filters, grad_filters = lines[b, :, span], grad_lines[b, :, span]
        block = rearrange(grad_block, "c (h w) -> c h w", w=line)
        block[..., width:] = 0  # the columns that are dropped have no gradient
        block[..., :width] = grad[b, part, rows]
        grad_pixels.zero_()
        for k, shift in enumerate(_shifts(side, line)):
            window = slice(shift, shift + term.shape[1])
            torch.mul(grad_block, pixels[:, window], out=term)
            grad_channels[b, k, part].addmv_(term, filters[k])
            grad_filters[k].addmv_(term.t(), channels[b, k, part])
            torch.mul(grad_block, filters[k], out=term)
            grad_pixels[:, window].addcmul_(term, channels[b, k, part, None])
        padded[b, part, rows.start : rows.stop + side - 1] += _image(grad_pixels, side, line)
    margin = side // 2
    grad_x = padded[..., margin : margin + height, margin : margin + width].to(x.dtype)
    grad_channel = rearrange(grad_channels, "b (i j) c -> b c i j", i=side).to(channel.dtype)
    grad_spatial = rearrange(grad_lines, "b k (h w) -> b k h w", w=line)[..., :width].to(spatial.dtype)
    return grad_x.contiguous(memory_format=memory_format(x)), grad_channel.contiguous(), grad_spatial.contiguous()
