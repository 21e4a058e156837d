"""patch_argmax compiled for other machines' GPUs: nothing spills, and the products run on tensor cores."""

import pytest
import torch

from frfsr.kernels._constants import EPSILON, EXPONENT_LIMIT

match = pytest.importorskip("frfsr.kernels._match_triton")
prepare = pytest.importorskip("frfsr.kernels._match_prepare_triton")

pytestmark = pytest.mark.compile_only

CONFIGURATIONS = [  # target, dtype, TF32
    ("sm_80", torch.float16, False),
    ("sm_80", torch.bfloat16, False),
    ("sm_80", torch.float32, False),
    ("sm_80", torch.float32, True),
    ("sm_90", torch.float16, False),
    ("sm_90", torch.bfloat16, False),
    ("sm_90", torch.float32, False),
    ("sm_90", torch.float32, True),
    ("gfx942", torch.float16, False),
    ("gfx942", torch.bfloat16, False),
    ("gfx942", torch.float32, False),
]


@pytest.mark.parametrize(("target", "dtype", "tf32"), CONFIGURATIONS)
def test_compiles_without_spills_onto_tensor_cores(compile_kernel, target, dtype, tf32):
    tile = match.tile_for(dtype, tf32, hopper=target == "sm_90")
    compiled = compile_kernel(
        match.match_kernel,
        target,
        {"query": dtype, "key": dtype, "key_scale": torch.float32, "best": torch.int64},
        {
            "CHANNELS": 256,
            "QUERIES": tile.queries,
            "KEYS": tile.keys,
            "STEP": tile.channels,
            "COPY": match.copy_length(dtype, hip=target == "gfx942"),
            "PRECISION": "tf32" if tf32 else "ieee",
        },
        tile.num_warps,
        tile.num_stages,
    )
    exact = dtype == torch.float32 and not tf32
    instruction = {"sm_80": r"mma\.sync", "sm_90": r"wgmma\.mma_async", "gfx942": r"v_mfma"}[target]
    assert (compiled.count(instruction) > 0) == (not exact or target == "gfx942")
    if target != "gfx942":
        assert compiled.count(r"cp\.async\.ca") > 0  # through L1
        assert compiled.count(r"cp\.async\.cg") == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_preparation_compiles_without_spills(compile_kernel, target, dtype):
    images = {"feature": dtype, "energy": torch.float32, "peak": torch.int32}
    sizes = {"CHANNELS": 256, "STEP": prepare.MOST_CHANNELS, "PIXELS": prepare.PIXELS}
    limit = {"LIMIT": EXPONENT_LIMIT}
    compile_kernel(prepare.peak_kernel, target, images, sizes)
    packed = images | {"packed": dtype}
    compile_kernel(prepare.pack_kernel, target, packed, sizes | limit | {"PACKED_CHANNELS": 256})
    scalars = limit | {"EPS": EPSILON, "BLOCK": prepare.BLOCK}
    patches = {"energy": torch.float32, "peak": torch.int32}
    compile_kernel(prepare.scale_kernel, target, patches | {"scale": torch.float32}, scalars)
    results = {"best": torch.int64, "score": torch.float32, "index": torch.int64}
    compile_kernel(prepare.unpack_kernel, target, patches | results, scalars | {"LOWEST": prepare.LOWEST})
