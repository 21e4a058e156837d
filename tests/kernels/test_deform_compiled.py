"""deform_conv: what its Triton kernels become for each architecture, without a GPU."""

import pytest
import torch


@pytest.mark.compile_only
@pytest.mark.parametrize("features", [(8, 8, 64), (1, 48, 48)], ids=["paper", "tiny"])
@pytest.mark.parametrize(
    ("dtype", "tf32"),
    [(torch.float32, False), (torch.float32, True), (torch.float16, False), (torch.bfloat16, False)],
)
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_compiles_to_tensor_cores_without_spills(compile_kernel, target, dtype, tf32, features):
    if target == "gfx942" and tf32:
        pytest.skip("this architecture has no TF32")
    forward = pytest.importorskip("frfsr.kernels._deform_triton")
    backward = pytest.importorskip("frfsr.kernels._deform_backward_triton")
    launched = pytest.importorskip("frfsr.kernels._deform_operands_triton")
    groups, group_channels, outputs = features
    tile = launched.choose_tile(*features, dtype, tf32)
    # Offsets come from a channels-last convolution, and Triton makes strides of 1 constants.
    strided = dtype, int, 1, int
    pointers = {
        "operands": launched.Operands(dtype, *strided, *strided, torch.float32, dtype, *[int] * 5),
        **dict.fromkeys(("bias", "out", "grad", "grad_offset", "grad_mask"), dtype),
        **dict.fromkeys(("grad_x", "partial"), torch.float32),
    }
    constants = {"LAYER": launched.Layer(groups, group_channels, outputs, "valid"), "TILE": tile}
    compiled = [
        compile_kernel(kernel, target, pointers, constants, num_warps=tile.num_warps, num_stages=launched.STAGES)
        for kernel in (forward.forward_kernel, backward.data_gradient_kernel, backward.weight_gradient_kernel)
    ]
    if dtype == torch.float32 and not tf32 and target != "gfx942":
        return  # true float32 has no tensor cores there
    instruction = {"sm_80": r"mma\.sync", "sm_90": r"wgmma|mma\.sync", "gfx942": "v_mfma"}[target]
    assert all(kernel.count(instruction) for kernel in compiled)
    if target == "sm_90":
        assert compiled[0].count("wgmma")
