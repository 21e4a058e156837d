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

from frfsr.kernels._deform_cpu import TAPS, deform_conv_backward_cpu, deform_conv_cpu
from frfsr.kernels._dispatch import accumulator_dtype, memory_format, reference_gradients, use_plain, use_triton


def tap_flows(flow: Tensor, match_padding: str) -> Tensor:
    """Coarse flow (B, h, w, 2) as (x, y) -> the flow that votes for each tap, (B, 9, 2, h, w) as (y, x).

    A pixel is covered by nine patches; tap (i, j) follows the patch that has the pixel in its row i and column j.
    ``valid``: a patch stores its flow at its top-left pixel, zero outside; ``same``: at its centre, border repeated.
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
    dtype = accumulator_dtype(x)  # torchvision has no half precision on the CPU
    # torchvision wants the input as large as the output; zeros outside the input change nothing.
    bottom, right = x.shape[-2] - height, x.shape[-1] - width
    x = F.pad(x, (0, max(-right, 0), 0, max(-bottom, 0)))
    offset, mask = (F.pad(tensor, (0, max(right, 0), 0, max(bottom, 0))) for tensor in (offset, mask))
    bias = None if bias is None else bias.to(dtype)
    out = deform_conv2d(x.to(dtype), offset.to(dtype), weight.to(dtype), bias, padding=1, mask=mask.to(dtype))
    return out[..., :height, :width].to(x.dtype)


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
    if use_triton(x):
        from frfsr.kernels._deform_triton import deform_conv_triton

        out = deform_conv_triton(x, offset, mask, weight, bias, flow, flow_scale, match_padding)
        return out.contiguous(memory_format=memory_format(x))
    if use_plain(x):
        out = deform_conv_reference(x, offset, mask, weight, bias, flow, flow_scale, match_padding)
        return out.contiguous(memory_format=memory_format(x))
    flows = None if flow is None else tap_flows(flow.to(accumulator_dtype(x)), match_padding)
    return deform_conv_cpu(x, offset, mask, weight, bias, flows, flow_scale)


@_deform_conv.register_fake
def _(x, offset, mask, weight, bias, flow, flow_scale, match_padding):
    shape = (x.shape[0], weight.shape[0], *offset.shape[-2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


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
    if use_triton(x):
        from frfsr.kernels._deform_backward_triton import deform_conv_backward_triton

        gradients = deform_conv_backward_triton(grad, x, offset, mask, weight, flow, flow_scale, match_padding)
    else:
        flows = None if flow is None else tap_flows(flow.to(accumulator_dtype(x)), match_padding)
        gradients = deform_conv_backward_cpu(grad, x, offset, mask, weight, flows, flow_scale)
    inputs = (x, offset, mask, weight)
    return tuple(g.contiguous(memory_format=memory_format(t)) for g, t in zip(gradients, inputs, strict=True))


@_deform_conv_backward.register_fake
def _(grad, x, offset, mask, weight, flow, flow_scale, match_padding):
    return tuple(torch.empty_like(t, memory_format=memory_format(t)) for t in (x, offset, mask, weight))


def _save_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    x, offset, mask, weight, bias, flow, ctx.flow_scale, ctx.match_padding = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, offset, mask, weight, flow)


def _backward(ctx, grad: Tensor) -> tuple:
    x, offset, mask, weight, flow = ctx.saved_tensors
    settings = flow, ctx.flow_scale, ctx.match_padding
    if use_plain(x):
        gradients = reference_gradients(
            lambda *inputs: deform_conv_reference(*inputs, None, *settings), (x, offset, mask, weight), grad
        )
    else:
        gradients = _deform_conv_backward(grad, x, offset, mask, weight, *settings)
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
        offset: (B, G*9*2, H, W) learned offsets in pixels as [group, tap, (y, x)], finite.
        mask: (B, G*9, H, W) modulation as [group, tap], usually in [0, 1].
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        flow: (B, h, w, 2) coarse correspondence flow as (x, y) in coarse pixels, (H, W) = flow_scale * (h, w);
            no gradient flows into it. None: no pre-offset.
        flow_scale: pixels of the output per coarse pixel (1, 2 or 4 at relu3_1, relu2_1 and relu1_1).
        match_padding: where a patch's flow is stored: ``valid`` at its top-left pixel, ``same`` at its centre.

    Returns:
        (B, O, H, W) in the dtype and layout (contiguous or channels-last) of ``x``; positions and interpolation are
        computed in float32 (float64 for float64). A NaN in ``x`` reaches the outputs that sample it.

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
    if flow is not None:
        coarse = (batch, height // flow_scale, width // flow_scale, 2)
        if flow.shape != coarse or height % flow_scale or width % flow_scale:
            raise ValueError(
                f"flow must be (B, H/{flow_scale}, W/{flow_scale}, 2) for an offset of {height}x{width}, "
                f"got {tuple(flow.shape)}"
            )
    if match_padding not in ("valid", "same"):
        raise ValueError(f"match_padding must be 'valid' or 'same', got {match_padding!r}")
    return _deform_conv(x, offset, mask, weight, bias, flow, flow_scale, match_padding)
