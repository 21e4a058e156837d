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
    tile = forward.choose_tile(*features, dtype, tf32)
    constants = {
        "ALL_GROUPS": features[0],
        "GROUP_CHANNELS": features[1],
        "ALL_OUTPUTS": features[2],
        "HAS_FLOW": True,
        "SAME": False,
        "PRECISION": "tf32" if tf32 else "ieee",
        "PIXELS": tile.pixels,
        "GROUPS": tile.groups,
        "CHANNELS": tile.channels,
        "OUTPUTS": tile.outputs,
        "offset_channel": 1,  # offsets come from a channels-last convolution, and Triton makes strides of 1 constants
        "mask_channel": 1,
    }
    launch = {"num_warps": tile.num_warps, "num_stages": forward.STAGES}
    pointers = dict.fromkeys(("x", "offset", "mask"), dtype) | {"flow": torch.float32}
    forward_pointers = pointers | dict.fromkeys(("weight", "bias", "out"), dtype)
    data_pointers = pointers | dict.fromkeys(("grad", "weight", "grad_offset", "grad_mask"), dtype)
    data_pointers["grad_x"] = torch.float32
    weight_pointers = pointers | {"grad": dtype, "partial": torch.float32}
    compiled = [
        compile_kernel(forward.forward_kernel, target, forward_pointers, constants | {"HAS_BIAS": True}, **launch),
        compile_kernel(backward.data_gradient_kernel, target, data_pointers, constants, **launch),
        compile_kernel(backward.weight_gradient_kernel, target, weight_pointers, constants, **launch),
    ]
    if dtype == torch.float32 and not tf32 and target != "gfx942":
        return  # true float32 has no tensor cores there
    instruction = {"sm_80": r"mma\.sync", "sm_90": r"wgmma|mma\.sync", "gfx942": "v_mfma"}[target]
    assert all(kernel.count(instruction) for kernel in compiled)
    if target == "sm_90":
        assert compiled[0].count("wgmma")
