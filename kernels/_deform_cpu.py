"""deform_conv on the CPU: every bilinear sample is a weighted bag of four pixels, in blocks of rows.

With the image as a table (pixels, channels of a group), a sample is a weighted sum of four of its rows. That is what
``embedding_bag`` computes, vectorised over channels and parallel over bags, several times faster than torchvision's
im2col and than ``grid_sample``. Ordered [pixel, group, tap, channel] its output is the column matrix, so that one
matrix product follows. The table's gradient is a product with the transposed sparse matrix of the weights.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

TAPS = 9
# Columns of one block of rows (fp32: 16 MiB) exist at a time.
_BLOCK_ELEMENTS = 1 << 22


class _Bags(NamedTuple):
    """The four pixels of every sample, N samples ordered [pixel, group, tap].

    index: (N, 4) int64, rows of the table; y, x: (N, 2), the factors of the bilinear weight at the upper and lower, the
    left and right pixel, zero outside the image; slope_y, slope_x: (N, 2), their derivatives by the position; mask:
    (N,).
    """

    index: Tensor
    y: Tensor
    x: Tensor
    slope_y: Tensor
    slope_x: Tensor
    mask: Tensor

    def bilinear(self) -> Tensor:
        return _corners(self.y, self.x)

    def weights(self) -> Tensor:
        return self.bilinear() * self.mask[:, None]


def _corners(y: Tensor, x: Tensor) -> Tensor:
    return rearrange(y[:, :, None] * x[:, None], "n y x -> n (y x)")


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (N,) -> the two pixels around (N, 2), clamped, their linear weights and the weights' derivatives."""
    first = position.floor()
    pixels = torch.stack([first, first + 1], -1)
    inside = ((pixels >= 0) & (pixels < size)).to(position.dtype)
    after = position - first
    slope = torch.tensor([-1, 1], dtype=position.dtype)
    return pixels.clamp(0, size - 1).long(), torch.stack([1 - after, after], -1) * inside, slope * inside


def _bags(offset: Tensor, mask: Tensor, flow: Tensor | None, scale: int, rows: slice, size: tuple[int, int]) -> _Bags:
    """Bags of the output rows ``rows``. offset (G*18, H, W), mask (G*9, H, W); flow (9, 2, h, w); size of the image."""
    width = offset.shape[-1]
    groups = mask.shape[0] // TAPS
    dtype = offset.dtype if offset.dtype == torch.float64 else torch.float32
    position = rearrange(offset[:, rows], "(g k d) h w -> h w g k d", g=groups, d=2).to(dtype)
    tap = torch.arange(TAPS)
    position = position + torch.stack([tap // 3 - 1, tap % 3 - 1], -1)
    y, x = torch.meshgrid(torch.arange(rows.start, rows.stop), torch.arange(width), indexing="ij")
    position = position + rearrange(torch.stack([y, x], -1), "h w d -> h w 1 1 d")
    if flow is not None:
        coarse = flow[:, :, rows.start // scale : rows.stop // scale].to(dtype) * scale
        position = position + repeat(coarse, "k d h w -> (h s) (w t) 1 k d", s=scale, t=scale)
    row, y, slope_y = _neighbours(position[..., 0].flatten(), size[0])
    column, x, slope_x = _neighbours(position[..., 1].flatten(), size[1])
    # The tables of the groups lie one behind the other.
    table = repeat(
        torch.arange(groups) * (size[0] * size[1]), "g -> (p g k) 1 1", p=len(row) // (groups * TAPS), k=TAPS
    )
    index = rearrange(table + row[:, :, None] * size[1] + column[:, None], "n y x -> n (y x)")
    flat_mask = rearrange(mask[:, rows].to(dtype), "(g k) h w -> (h w g k)", g=groups)
    return _Bags(index, y, x, slope_y, slope_x, flat_mask)


def _table(image: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    return rearrange(image, "(g c) h w -> (g h w) c", g=groups).to(dtype)


def _kernel(weight: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    return rearrange(weight, "o (g c) i j -> o (g i j c)", g=groups).to(dtype)


def _row_blocks(columns_per_row: int, height: int, scale: int) -> Iterator[slice]:
    """Slices of whole coarse rows, as many as the size of a block allows."""
    step = max(1, _BLOCK_ELEMENTS // (columns_per_row * scale)) * scale
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def deform_conv_cpu(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, flow: Tensor | None, scale: int
) -> Tensor:
    """Forward pass; ``flow`` (B, 9, 2, h, w) holds each tap's pre-offset (y, x) in coarse pixels."""
    groups = mask.shape[1] // TAPS
    channels, (height, width) = x.shape[1], offset.shape[-2:]
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    kernel = _kernel(weight, groups, x.dtype)
    shape = (x.shape[0], weight.shape[0], height, width)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    for b, image in enumerate(x):
        table = _table(image, groups, dtype)
        for rows in _row_blocks(channels * TAPS * width, height, scale):
            bags = _bags(offset[b], mask[b], None if flow is None else flow[b], scale, rows, image.shape[-2:])
            samples = F.embedding_bag(bags.index, table, mode="sum", per_sample_weights=bags.weights())
            columns = samples.view(-1, kernel.shape[1]).to(x.dtype)
            product = F.linear(columns, kernel, None if bias is None else bias.to(x.dtype))
            out[b, :, rows] = rearrange(product, "(h w) o -> o h w", w=width)
    return out


def deform_conv_backward_cpu(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    flow: Tensor | None,
    scale: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, mask and weight, in the blocks of the forward pass; the samples are taken again."""
    groups = mask.shape[1] // TAPS
    channels, (height, width) = x.shape[1], offset.shape[-2:]
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    kernel = _kernel(weight, groups, dtype)
    grad_x, grad_offset, grad_mask = (torch.empty_like(tensor) for tensor in (x, offset, mask))
    grad_kernel = torch.zeros_like(kernel)
    for b, image in enumerate(x):
        table = _table(image, groups, dtype)
        grad_table = torch.zeros_like(table)
        for rows in _row_blocks(channels * TAPS * width, height, scale):
            bags = _bags(offset[b], mask[b], None if flow is None else flow[b], scale, rows, image.shape[-2:])
            weights = bags.weights()
            samples = F.embedding_bag(bags.index, table, mode="sum", per_sample_weights=weights)
            grad_rows = rearrange(grad[b, :, rows], "o h w -> (h w) o").to(dtype)
            grad_kernel.addmm_(grad_rows.t(), samples.view(-1, kernel.shape[1]))
            grad_samples = (grad_rows @ kernel).view_as(samples)
            grad_weights = _weight_gradients(grad_samples, table, bags.index)
            grad_table += _scatter(bags.index, weights, grad_samples, len(table))
            by_y = (grad_weights * _corners(bags.slope_y, bags.x)).sum(1) * bags.mask
            by_x = (grad_weights * _corners(bags.y, bags.slope_x)).sum(1) * bags.mask
            by_mask = (grad_weights * bags.bilinear()).sum(1)
            grad_offset[b, :, rows] = rearrange(
                torch.stack([by_y, by_x], -1), "(h w gk) d -> (gk d) h w", w=width, gk=groups * TAPS
            )
            grad_mask[b, :, rows] = rearrange(by_mask, "(h w gk) -> gk h w", w=width, gk=groups * TAPS)
        grad_x[b] = rearrange(grad_table, "(g h w) c -> (g c) h w", g=groups, w=image.shape[-1])
    grad_weight = rearrange(grad_kernel, "o (g i j c) -> o (g c) i j", g=groups, i=3, j=3)
    return grad_x, grad_offset, grad_mask, grad_weight.to(weight.dtype).contiguous()


def _weight_gradients(grad_samples: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """(N, 4): inner products of every sample's gradient with its four pixels."""
    sample = repeat(torch.arange(len(index)), "n -> (n corner)", corner=4)
    bag_starts = torch.arange(0, index.numel(), 4)
    # The operator behind embedding_bag's own backward pass: there is no autograd inside a custom operator.
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad_samples, table, index.flatten(), bag_starts, sample, 0
    )
    return products.view_as(index)


def _scatter(index: Tensor, weights: Tensor, grad_samples: Tensor, size: int) -> Tensor:
    """(size, C): every sample's gradient, weighted, added to its four pixels."""
    sample = repeat(torch.arange(len(index)), "n -> (n corner)", corner=4)
    transposed = torch.sparse_coo_tensor(
        torch.stack([index.flatten(), sample]), weights.flatten(), (size, len(index)), check_invariants=False
    )
    return torch.sparse.mm(transposed, grad_samples)
