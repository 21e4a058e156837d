"""Modulated 3x3 deformable convolution around a matched position (the paper's FAM, equations 15 and 16).

Tap (i, j) of output pixel p samples ``x`` bilinearly, zeros outside, at ``p + (i, j) - 1 + pre-offset + offset``. The
pre-offset comes from the coarse correspondence flow and is computed per tap on the fly: neither the (B, 9, H, W, 2)
tensor of pre-offsets nor its repeat over groups nor the columns of the whole image are ever stored.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor
from torchvision.ops import deform_conv2d

from frfsr.kernels._dispatch import use_reference

TAPS = 9


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def tap_flows(flow: Tensor, match_padding: str) -> Tensor:
    """Coarse flow (B, h, w, 2) as (x, y) -> the flow that votes for each tap, (B, 9, 2, h, w) as (y, x).

    A pixel is covered by nine patches; tap (i, j) follows the patch that has the pixel in its row i and column j.
    A patch stores its flow at its top-left pixel for ``valid`` (zero outside), at its centre for ``same`` (border repeated).
    """
    height, width = flow.shape[1:3]
    flow = rearrange(flow.flip(-1), "b h w d -> b d h w")
    padded = F.pad(flow, (2, 0, 2, 0)) if match_padding == "valid" else F.pad(flow, (1, 1, 1, 1), mode="replicate")
    shifted = [padded[:, :, 2 - i : 2 - i + height, 2 - j : 2 - j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifted, dim=1)


def deform_conv_reference(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    flow: Tensor | None = None,
    flow_scale: int = 1,
    match_padding: str = "valid",
) -> Tensor:
    """Readable form: torchvision's operator with materialised pre-offsets. Arguments as in :func:`deform_conv`."""
    height, width = offset.shape[-2:]
    if flow is not None:
        pre_offset = tap_flows(flow, match_padding) * flow_scale
        pre_offset = repeat(pre_offset, "b k d h w -> b (k d) (h s) (w t)", s=flow_scale, t=flow_scale)
        groups = offset.shape[1] // (2 * TAPS)
        offset = offset + repeat(pre_offset, "b kd h w -> b (g kd) h w", g=groups)
    dtype = _compute_dtype(x)  # torchvision has no half precision on the CPU
    # torchvision wants the input as large as the output; zeros outside the input change nothing.
    bottom, right = x.shape[-2] - height, x.shape[-1] - width
    x = F.pad(x, (0, max(-right, 0), 0, max(-bottom, 0)))
    offset, mask = (F.pad(tensor, (0, max(right, 0), 0, max(bottom, 0))) for tensor in (offset, mask))
    bias = None if bias is None else bias.to(dtype)
    out = deform_conv2d(x.to(dtype), offset.to(dtype), weight.to(dtype), bias, padding=1, mask=mask.to(dtype))
    return out[..., :height, :width].to(x.dtype)


# Columns of one block of rows (fp32: 16 MiB) exist at a time.
_BLOCK_ELEMENTS = 1 << 22


def _power_of_two_canvas(image: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """(C, Hk, Wk) -> (G, C/G, 2^m, 2^n), zeros outside.

    With such sizes the normalisation of ``grid_sample`` only scales by powers of two: whole-pixel positions stay exact,
    and with them the side on which the gradient of the bilinear interpolation is taken.
    """
    height, width = (1 << (size - 1).bit_length() for size in image.shape[-2:])
    canvas = F.pad(image.to(dtype), (0, width - image.shape[-1], 0, height - image.shape[-2]))
    return rearrange(canvas, "(g c) h w -> g c h w", g=groups)


def _sampling_grid(offset: Tensor, flow: Tensor | None, scale: int, top: int, canvas: Tensor) -> Tensor:
    """Normalised sampling positions of the rows from ``top``: (G, 9, 2, h, w) offsets -> (G, 2, 9, h, w) as (x, y).

    ``flow``: (9, 2, h/scale, w/scale) pre-offsets of these rows, in coarse pixels.
    """
    groups, _, _, height, width = offset.shape
    grid = canvas.new_empty(groups, 2, TAPS, height, width)
    extents = (torch.arange(top, top + height, dtype=canvas.dtype)[:, None], torch.arange(width, dtype=canvas.dtype))
    for axis, (size, pixels) in enumerate(zip(canvas.shape[-2:], extents, strict=True)):
        tap = torch.arange(TAPS) // 3 if axis == 0 else torch.arange(TAPS) % 3
        base = pixels + rearrange(tap - 1, "k -> k 1 1")
        if flow is not None:
            shift = repeat(flow[:, axis] * scale, "k h w -> k (h s) (w t)", s=scale, t=scale)
            base = base + shift
        torch.add((2 * base + 1) / size - 1, offset[:, :, axis], alpha=2 / size, out=grid[:, 1 - axis])
    return grid


def _row_blocks(x: Tensor, offset: Tensor, scale: int) -> list[tuple[int, slice]]:
    """All (image, rows) blocks; the rows of a block are whole coarse rows."""
    height, width = offset.shape[-2:]
    step = max(1, _BLOCK_ELEMENTS // (x.shape[1] * TAPS * width * scale)) * scale
    return [(b, slice(top, min(top + step, height))) for b in range(x.shape[0]) for top in range(0, height, step)]


class _Block:
    """Samples and mask of one block of rows, shared by the forward and the backward pass on the CPU."""

    def __init__(self, canvas: Tensor, offset: Tensor, mask: Tensor, flow: Tensor | None, scale: int, rows: slice):
        groups = canvas.shape[0]
        offset = rearrange(offset[:, rows].to(canvas.dtype), "(g k d) h w -> g k d h w", g=groups, d=2)
        if flow is not None:
            flow = flow[:, :, rows.start // scale : rows.stop // scale]
        self.canvas = canvas
        self.mask = rearrange(mask[:, rows].to(canvas.dtype), "(g k) h w -> g 1 k h w", g=groups)
        grid = _sampling_grid(offset, flow, scale, rows.start, canvas)
        self.grid = rearrange(grid, "g d k h w -> g (k h) w d")
        samples = F.grid_sample(canvas, self.grid, align_corners=False)
        self.samples = rearrange(samples, "g c (k h) w -> g c k h w", k=TAPS)

    def columns(self) -> Tensor:
        return rearrange(self.samples * self.mask, "g c k h w -> (g c k) (h w)")

    def gradients(self, grad_columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of canvas (G, C/G, h, w), offset (G, 9, 2, h, w) and mask (G, 9, h, w)."""
        grad_columns = grad_columns.view(self.samples.shape)
        grad_mask = (grad_columns * self.samples).sum(1)
        grad_samples = rearrange(grad_columns * self.mask, "g c k h w -> g c (k h) w")
        grad_canvas, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad_samples, self.canvas, self.grid, 0, 0, False, [True, True]
        )
        grad_offset = rearrange(grad_grid.flip(-1), "g (k h) w d -> g k d h w", k=TAPS)
        height, width = self.canvas.shape[-2:]
        scale = torch.tensor([2 / height, 2 / width], dtype=grad_offset.dtype)
        return grad_canvas, grad_offset * rearrange(scale, "d -> d 1 1"), grad_mask


def _deform_conv_cpu(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, flow: Tensor | None, flow_scale: int
) -> Tensor:
    """Sample the columns of a block of rows with the parallel ``grid_sample``, then one matrix product per block."""
    groups = mask.shape[1] // TAPS
    kernel = weight.to(x.dtype).flatten(1)
    out = x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])
    canvases = [_power_of_two_canvas(image, groups, _compute_dtype(x)) for image in x]
    for b, rows in _row_blocks(x, offset, flow_scale):
        block = _Block(canvases[b], offset[b], mask[b], None if flow is None else flow[b], flow_scale, rows)
        product = kernel @ block.columns().to(x.dtype)
        out[b, :, rows] = rearrange(product, "o (h w) -> o h w", w=out.shape[-1])
    return out if bias is None else out.add_(rearrange(bias.to(x.dtype), "o -> o 1 1"))


def _deform_conv_backward_cpu(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, flow: Tensor | None, flow_scale: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, mask and weight, in the blocks of the forward pass; the samples are taken again."""
    groups = mask.shape[1] // TAPS
    kernel = weight.to(_compute_dtype(x)).flatten(1)
    height, width = x.shape[-2:]
    grad_x, grad_offset, grad_mask = (torch.empty_like(tensor) for tensor in (x, offset, mask))
    grad_kernel = torch.zeros_like(kernel)
    canvases = [_power_of_two_canvas(image, groups, kernel.dtype) for image in x]
    grad_canvases = [torch.zeros_like(canvas) for canvas in canvases]
    for b, rows in _row_blocks(x, offset, flow_scale):
        block = _Block(canvases[b], offset[b], mask[b], None if flow is None else flow[b], flow_scale, rows)
        grad_rows = rearrange(grad[b, :, rows].to(kernel.dtype), "o h w -> o (h w)")
        grad_kernel.addmm_(grad_rows, block.columns().t())
        canvas_part, offset_part, mask_part = block.gradients(kernel.t() @ grad_rows)
        grad_canvases[b] += canvas_part
        grad_offset[b, :, rows] = rearrange(offset_part, "g k d h w -> (g k d) h w")
        grad_mask[b, :, rows] = rearrange(mask_part, "g k h w -> (g k) h w")
    for b, canvas in enumerate(grad_canvases):
        grad_x[b] = rearrange(canvas[..., :height, :width], "g c h w -> (g c) h w")
    return grad_x, grad_offset, grad_mask, grad_kernel.view_as(weight).to(weight.dtype)


@torch.library.custom_op("frfsr::deform_conv", mutates_args=())
def _deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    flow: Tensor | None,
    flow_scale: int,
    match_padding: str,
) -> Tensor:
    if use_reference() or x.device.type != "cpu":
        return deform_conv_reference(x, offset, mask, weight, bias, flow, flow_scale, match_padding).contiguous()
    flows = None if flow is None else tap_flows(flow.to(_compute_dtype(x)), match_padding)
    return _deform_conv_cpu(x, offset, mask, weight, bias, flows, flow_scale)


@_deform_conv.register_fake
def _(x, offset, mask, weight, bias, flow, flow_scale, match_padding):
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])


@torch.library.custom_op("frfsr::deform_conv_backward", mutates_args=())
def _deform_conv_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    flow: Tensor | None,
    flow_scale: int,
    match_padding: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if use_reference() or x.device.type != "cpu":
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (x, offset, mask, weight)]
            out = deform_conv_reference(*leaves, None, flow, flow_scale, match_padding)
            return tuple(gradient.contiguous() for gradient in torch.autograd.grad(out, leaves, grad))
    flows = None if flow is None else tap_flows(flow.to(_compute_dtype(x)), match_padding)
    return _deform_conv_backward_cpu(grad, x, offset, mask, weight, flows, flow_scale)


@_deform_conv_backward.register_fake
def _(grad, x, offset, mask, weight, flow, flow_scale, match_padding):
    return tuple(torch.empty_like(tensor) for tensor in (x, offset, mask, weight))


def _save_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    x, offset, mask, weight, bias, flow, ctx.flow_scale, ctx.match_padding = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, offset, mask, weight, flow)


def _backward(ctx, grad: Tensor) -> tuple:
    x, offset, mask, weight, flow = ctx.saved_tensors
    gradients = _deform_conv_backward(grad, x, offset, mask, weight, flow, ctx.flow_scale, ctx.match_padding)
    grad_bias = grad.sum((0, 2, 3)) if ctx.has_bias else None
    return *gradients, grad_bias, None, None, None


_deform_conv.register_autograd(_backward, setup_context=_save_for_backward)


def deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    flow: Tensor | None = None,
    flow_scale: int = 1,
    match_padding: str = "valid",
) -> Tensor:
    """Modulated deformable 3x3 convolution, stride 1, padding 1, around the matched position (equations 15 and 16).

    Args:
        x: (B, C, Hk, Wk) reference features; their size may differ from the output's.
        offset: (B, G*9*2, H, W) learned offsets in pixels as [group, tap, (y, x)].
        mask: (B, G*9, H, W) modulation as [group, tap], usually in [0, 1].
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        flow: (B, h, w, 2) coarse correspondence flow as (x, y) in coarse pixels, (H, W) = flow_scale * (h, w);
            no gradient flows into it. None: no pre-offset.
        flow_scale: pixels of the output per coarse pixel (1, 2 or 4 at relu3_1, relu2_1 and relu1_1).
        match_padding: where a patch's flow is stored: ``valid`` at its top-left pixel, ``same`` at its centre.

    Returns:
        (B, O, H, W) in the dtype of ``x``; positions and interpolation are computed in float32 (float64 for float64).

    Raises:
        ValueError: if the shapes do not fit together or ``match_padding`` is unknown.
    """
    batch, channels = x.shape[:2]
    height, width = offset.shape[-2:]
    groups = mask.shape[1] // TAPS
    if weight.shape[1:] != (channels, 3, 3) or channels % max(groups, 1):
        raise ValueError(f"weight must be (O, {channels}, 3, 3) and {groups} groups must divide {channels} channels")
    if offset.shape != (batch, groups * TAPS * 2, height, width) or mask.shape != (batch, groups * TAPS, height, width):
        raise ValueError(
            f"offset must be (B, G*18, H, W) and mask (B, G*9, H, W), got {tuple(offset.shape)} and {tuple(mask.shape)}"
        )
    if flow is not None and flow.shape != (batch, height // flow_scale, width // flow_scale, 2):
        raise ValueError(f"flow must be (B, H/{flow_scale}, W/{flow_scale}, 2), got {tuple(flow.shape)}")
    if match_padding not in ("valid", "same"):
        raise ValueError(f"match_padding must be 'valid' or 'same', got {match_padding!r}")
    return _deform_conv(x, offset, mask, weight, bias, flow, flow_scale, match_padding)
