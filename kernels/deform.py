"""Modulated 3x3 deformable convolution around a matched position (the paper's FAM, equations 15 and 16).

Tap (i, j) of output pixel p samples ``x`` bilinearly, zeros outside, at ``p + (i, j) - 1 + pre-offset + offset``. The
pre-offset comes from the coarse correspondence flow and is computed per tap on the fly: neither the (B, 9, H, W, 2)
tensor of pre-offsets nor its repeat over groups nor the columns of the whole image are ever stored.
"""

from typing import cast, get_args, overload

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from frfsr.kernels._constants import TAPS
from frfsr.kernels._deform_cpu import deform_conv_backward_cpu, deform_conv_cpu, deform_scratch
from frfsr.kernels._deform_geometry import Geometry, MatchPadding, tap_flows
from frfsr.kernels._dispatch import form_for, operation
from frfsr.kernels._operator import operator
from frfsr.kernels._tensors import accumulator_dtype, memory_format, reference_gradients


def deform_conv_reference(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    flow: Tensor | None = None,
    flow_scale: int = 1,
    match_padding: MatchPadding | None = None,
) -> Tensor:
    """The definition: torchvision's operator with materialised pre-offsets. Arguments as in :func:`deform_conv`."""
    from torchvision.ops import deform_conv2d  # takes longer to import than to enlarge a small photo

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
    out = deform_conv2d(x.to(dtype), offset.to(dtype), weight.to(dtype), bias, padding=(1, 1), mask=mask.to(dtype))
    return out[..., :height, :width].to(x.dtype)


@operator("frfsr::deform_conv")
def _deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    flow: Tensor | None,
    flow_scale: int,
    match_padding: str | None,
) -> Tensor:
    geometry = Geometry(offset, mask, flow, flow_scale, cast("MatchPadding | None", match_padding))
    form = form_for("deform_conv", x)
    if form == "cpu":
        return deform_conv_cpu(x, geometry, weight, bias)
    if form == "triton":
        from frfsr.kernels._deform_triton import deform_conv_triton

        out = deform_conv_triton(x, geometry, weight, bias)
    else:
        out = deform_conv_reference(x, offset, mask, weight, bias, *geometry[2:])
    return out.contiguous(memory_format=memory_format(x))


@_deform_conv.register_fake
def _(x, offset, mask, weight, bias, flow, flow_scale, match_padding):
    shape = (x.shape[0], weight.shape[0], *offset.shape[-2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


@_deform_conv.register_scratch
def _(x, offset, mask, weight, bias, flow, flow_scale, match_padding):
    return deform_scratch(x, Geometry(offset, mask, flow, flow_scale, match_padding))


@operator("frfsr::deform_conv_backward")
def _deform_conv_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    flow: Tensor | None,
    flow_scale: int,
    match_padding: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    geometry = Geometry(offset, mask, flow, flow_scale, cast("MatchPadding | None", match_padding))
    if form_for("deform_conv", x) == "triton":
        from frfsr.kernels._deform_backward_triton import deform_conv_backward_triton

        gradients = deform_conv_backward_triton(grad, x, geometry, weight)
    else:
        gradients = deform_conv_backward_cpu(grad, x, geometry, weight)
    pairs = zip(gradients, (x, offset, mask, weight), strict=True)
    by_x, by_offset, by_mask, by_weight = (part.contiguous(memory_format=memory_format(like)) for part, like in pairs)
    return by_x, by_offset, by_mask, by_weight


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
    if form_for("deform_conv", x) == "reference":
        gradients = reference_gradients(
            lambda x, offset, mask, weight: deform_conv_reference(x, offset, mask, weight, None, *settings),
            (x, offset, mask, weight),
            grad,
        )
    else:
        gradients = _deform_conv_backward(grad, x, offset, mask, weight, *settings)
    grad_bias = grad.sum((0, 2, 3)) if ctx.has_bias else None
    return *gradients, grad_bias, None, None, None


_deform_conv.register_autograd(_backward, setup_context=_save_for_backward)


# A flow comes with its padding: neither has a default that could be the wrong one.
@overload
def deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...


@overload
def deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    flow: Tensor,
    flow_scale: int = 1,
    match_padding: MatchPadding,
) -> Tensor: ...


@operation
def deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    flow: Tensor | None = None,
    flow_scale: int = 1,
    match_padding: MatchPadding | None = None,
) -> Tensor:
    """Convolve around the matched position: modulated, deformable, 3x3, stride 1, padding 1 (equations 15 and 16).

    Args:
        x: (B, C, Hk, Wk) reference features; their size may differ from the output's.
        offset: (B, G*9*2, H, W) learned offsets in pixels as [group, tap, (y, x)], finite.
        mask: (B, G*9, H, W) modulation as [group, tap], usually in [0, 1].
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        flow: (B, h, w, 2) coarse correspondence flow as (x, y) in coarse pixels, (H, W) = flow_scale * (h, w);
            no gradient flows into it. None: no pre-offset.
        flow_scale: pixels of the output per coarse pixel (1, 2 or 4 at relu3_1, relu2_1 and relu1_1).
        match_padding: where a patch's flow is stored, needed with a flow: "valid" at its top-left pixel, "same" at
            its centre.

    Returns:
        (B, O, H, W) in the dtype and layout (contiguous or channels-last) of ``x``; positions and interpolation are
        computed in float32 (float64 for float64). A NaN in ``x`` reaches the outputs that sample it.

    Raises:
        ValueError: if the shapes do not fit together or a flow comes without a known ``match_padding``.

    Examples:
        >>> import torch
        >>> from frfsr.kernels import deform_conv
        >>> x, weight = torch.rand(1, 4, 5, 6), torch.rand(2, 4, 3, 3)
        >>> offset, mask = torch.zeros(1, 18, 5, 6), torch.ones(1, 9, 5, 6)
        >>> plain = torch.nn.functional.conv2d(x, weight, padding=1)
        >>> torch.allclose(deform_conv(x, offset, mask, weight), plain, atol=1e-5)
        True
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
    if match_padding not in get_args(MatchPadding) and (flow is not None or match_padding is not None):
        raise ValueError(f"with a flow match_padding must be 'same' or 'valid', not {match_padding!r}")
    return _deform_conv(x, offset, mask, weight, bias, flow, flow_scale, match_padding)
