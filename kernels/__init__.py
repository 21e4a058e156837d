"""The five operations that reference-based super-resolution spends its time in, for every device.

Each is a PyTorch custom operator: Triton on GPUs, a tuned PyTorch form elsewhere, differentiable where that makes
sense, usable under ``torch.compile`` and autocast. ``FRFSR_KERNELS=reference``, or ``use("reference")`` around a part
of a program, selects the readable reference of each.
"""

# The checkout's folder is called `kernels`, and an unrelated package on PyPI has that name too.
if __name__ != "frfsr.kernels":
    raise ImportError(f"this folder is the package frfsr.kernels, not {__name__}: install the project and import that")

from frfsr.kernels._dispatch import use
from frfsr.kernels.ddf import dynamic_filter
from frfsr.kernels.deform import deform_conv
from frfsr.kernels.match import patch_argmax
from frfsr.kernels.refine import refine_flow
from frfsr.kernels.warp import flow_warp

__all__ = ["deform_conv", "dynamic_filter", "flow_warp", "patch_argmax", "refine_flow", "use"]
