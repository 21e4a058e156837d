"""Where a kernel test runs, and what the compilers say about a kernel."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("interpret", marks=pytest.mark.interpret),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    """The device of a test: PyTorch forms on the CPU, Triton kernels interpreted there, Triton kernels on a GPU."""
    if request.param == "cuda" and (INTERPRET or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device")
    if (request.param == "interpret") != INTERPRET and request.param != "cuda":
        pytest.skip("runs with TRITON_INTERPRET=1" if request.param == "interpret" else "runs without TRITON_INTERPRET")
    return "cuda" if request.param == "cuda" else "cpu"


@pytest.fixture
def sparse(request: pytest.FixtureRequest, device: str) -> None:
    """The interpreter is slow and has no bfloat16: there every second combination is tried, as on a chess board."""
    chosen = request.node.callspec.params
    if INTERPRET and chosen["dtype"] == torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16")
    half, last = chosen["dtype"] == torch.float16, chosen.get("order") == torch.channels_last
    if INTERPRET and (request.module.SHAPES.index(chosen["shape"]) + half + last) % 2:
        pytest.skip("the interpreter is slow: other shapes have this dtype and order")


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that is allocated without a value holds NaN, so that an element which nobody writes shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@dataclass
class Compiled:
    """What ahead-of-time compilation made of a kernel."""

    assembly: str  # PTX or AMDGCN
    shared: int  # bytes of shared memory
    registers: int  # per thread
    spilled: int  # bytes (CUDA) or registers (HIP) kept in memory

    def count(self, instruction: str) -> int:
        """How many lines of the assembly use an instruction."""
        return len(re.findall(instruction, self.assembly))


SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, "gfx942": 64 * 1024}
TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "gfx942": ("hip", "gfx942", 64)}
TRITON_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
}


@pytest.fixture
def compile_kernel() -> Callable[..., Compiled]:
    """Compile a kernel for one of ``TARGETS`` without a GPU, and check that nothing spills and shared memory suffices.

    ``pointers`` maps the names of pointer arguments to dtypes, ``constants`` holds the ``tl.constexpr`` arguments;
    other arguments are 32-bit integers. An argument that is a tuple stands in ``pointers`` as a tuple of dtypes,
    constants and, for 32-bit integers, ``int``. Pointers are taken to be aligned to 16 bytes, as PyTorch's are.
    """
    if INTERPRET:
        pytest.skip("an interpreted kernel cannot be compiled")
    triton = pytest.importorskip("triton")

    def compile_one(kernel, target: str, pointers: dict, constants: dict, num_warps=4, num_stages=3) -> Compiled:
        values = [(pointers | constants).get(name, int) for name in kernel.arg_names]
        leaves = dict(_leaves(values))
        source = triton.compiler.ASTSource(
            kernel,
            dict(zip(kernel.arg_names, map(_kind, values), strict=True)),
            {path: value for path, value in leaves.items() if _kind(value) == "constexpr"},
            {path: [["tt.divisibility", 16]] for path, value in leaves.items() if isinstance(value, torch.dtype)},
        )
        backend, architecture, warp_size = TARGETS[target]
        built = triton.compile(
            source,
            target=triton.backends.compiler.GPUTarget(backend, architecture, warp_size),
            options={"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True},
        )
        if backend == "cuda":
            assembly = built.asm["ptx"]
            usage = _resource_usage(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump", built.asm["cubin"])
            registers, spilled = int(re.search(r"REG:(\d+)", usage)[1]), int(re.search(r"STACK:(\d+)", usage)[1])
        else:
            assembly = built.asm["amdgcn"]
            registers = int(re.search(r"\.vgpr_count:\s*(\d+)", assembly)[1])
            spilled = sum(int(count) for count in re.findall(r"\.[sv]gpr_spill_count:\s*(\d+)", assembly))
        compiled = Compiled(assembly, built.metadata.shared, registers, spilled)
        assert compiled.spilled == 0
        assert compiled.shared <= SHARED_LIMIT[architecture]
        return compiled

    return compile_one


def _kind(value) -> str | tuple:
    """Name the type of an argument as Triton's signatures do."""
    if isinstance(value, tuple) and any(_kind(part) != "constexpr" for part in value):
        return type(value)(*map(_kind, value)) if hasattr(value, "_fields") else tuple(map(_kind, value))
    return "i32" if value is int else "*" + TRITON_NAMES[value] if isinstance(value, torch.dtype) else "constexpr"


def _leaves(values: list | tuple, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Every argument that is no tuple of others, with its place."""
    for place, value in enumerate(values):
        if isinstance(_kind(value), tuple):
            yield from _leaves(value, (*path, place))
        else:
            yield (*path, place), value


def _resource_usage(cuobjdump: Path, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(cuobjdump), "--dump-resource-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
