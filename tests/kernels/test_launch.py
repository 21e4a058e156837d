"""The code that launches the Triton kernels, on tensors that only claim to be on a GPU: a second one.

The interpreter runs everything on the CPU, where a buffer left there, or a launch on another GPU, would not show.
"""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from frfsr import FRFSR, FRFSRConfig
from frfsr.kernels.deform import Geometry

SECOND = torch.device("cuda:1")


def gpu(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    image = torch.empty(shape, dtype=dtype, device=SECOND)
    return image.to(memory_format=torch.channels_last) if image.dim() == 4 else image


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kernels in place of being run: their names, once their tensors are found on the device they would run on."""
    jit = pytest.importorskip("triton.runtime.jit")
    names, current = [], [torch.device("cuda:0")]

    @contextmanager
    def device_of(tensor: torch.Tensor):
        current.append(tensor.device)
        yield
        current.pop()

    def run(kernel, *args, grid: tuple[int, ...], **_) -> None:
        assert all(number > 0 for number in grid)
        assert {leaf.device for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)} == {current[-1]}
        names.append(kernel.fn.__name__)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(jit.JITFunction, "run", run)
    return names


def match() -> tuple[torch.Tensor, ...]:
    from frfsr.kernels._match_triton import patch_argmax_triton

    return patch_argmax_triton(gpu(2, 24, 9, 7), gpu(2, 24, 5, 11))


def warp() -> tuple[torch.Tensor, ...]:
    from frfsr.kernels._warp_triton import flow_warp_backward_triton, flow_warp_triton

    feature, flow, out = gpu(2, 8, 5, 6), gpu(2, 4, 3, 2, dtype=torch.float32), gpu(2, 8, 4, 3)
    return flow_warp_triton(feature, flow, out), *flow_warp_backward_triton(out, feature, flow, True)


def dynamic_filter() -> tuple[torch.Tensor, ...]:
    from frfsr.kernels._ddf_triton import filter_gradients, filter_pixels

    x, channel, spatial = gpu(2, 8, 5, 6), gpu(2, 8, 3, 3), gpu(2, 9, 5, 6)
    return filter_pixels(x, channel, spatial, gpu(9), gpu(9)), *filter_gradients(x, x, channel, spatial)


def deform_conv() -> tuple[torch.Tensor, ...]:
    from frfsr.kernels._deform_backward_triton import deform_conv_backward_triton
    from frfsr.kernels._deform_triton import deform_conv_triton

    x, weight, flow = gpu(2, 8, 5, 6), gpu(4, 8, 3, 3), gpu(2, 2, 3, 2, dtype=torch.float32)
    geometry = Geometry(gpu(2, 36, 8, 12), gpu(2, 18, 8, 12), flow, 4, "valid")
    out = deform_conv_triton(x, geometry, weight, gpu(4))
    return out, *deform_conv_backward_triton(gpu(2, 4, 8, 12), x, geometry, weight)


def refine_flow() -> tuple[torch.Tensor, ...]:
    from frfsr.kernels._refine_triton import refine_flow_triton

    shapes = (2, 3, 5, 2), (2, 3, 5, 2), (2, 1, 12, 20), (2, 1, 9, 7)
    flow, similarity, *images = (gpu(*shape, dtype=torch.float32) for shape in shapes)
    return (refine_flow_triton(flow, *images, 4, similarity),)


OPERATIONS = [match, warp, dynamic_filter, refine_flow, deform_conv]


@pytest.mark.parametrize(
    ("operation", "kernels"),
    [
        (match, [*2 * ["peak_kernel", "pack_kernel"], "scale_kernel", "match_kernel", "unpack_kernel"]),
        (warp, ["warp_kernel", "warp_backward_kernel"]),
        (dynamic_filter, ["filter_kernel", "filter_gradient_kernel"]),
        (refine_flow, ["refine_kernel"]),
        (deform_conv, ["forward_kernel", "data_gradient_kernel", "weight_gradient_kernel"]),
    ],
)
def test_kernels_run_where_their_tensors_are(
    launches: list[str], operation: Callable[[], tuple[torch.Tensor, ...]], kernels: list[str]
) -> None:
    with FakeTensorMode():
        results = operation()
    assert launches == kernels
    assert {result.device for result in results} == {SECOND}


class NoGPU:
    """A driver of Triton's that says for what is compiled, as if a GPU were there."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.mark.compile_only
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_kernels_compile_for_what_they_are_launched_with(
    operation: Callable[[], tuple[torch.Tensor, ...]], order: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton makes constants of strides of 1 and drops what is None, in tuples too: not every version gets it right."""
    triton = pytest.importorskip("triton")
    compiled, run = [], triton.runtime.jit.JITFunction.run

    def compile_only(kernel, *args, **settings) -> None:
        compiled.append(run(kernel, *args, **settings | {"warmup": True}))

    def image(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        made = torch.empty(shape, dtype=dtype)
        return made.to(memory_format=order) if made.dim() == 4 else made

    monkeypatch.setitem(globals(), "gpu", image)
    monkeypatch.setattr(torch.cuda, "device_of", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", compile_only)
    monkeypatch.setattr(triton.runtime.driver, "_active", NoGPU())
    operation()
    assert compiled
    assert all("ptx" in kernel.asm for kernel in compiled)


@pytest.mark.parametrize("config", [FRFSRConfig.paper(), FRFSRConfig.published(reuse=True)], ids=["paper", "published"])
def test_network_never_waits_for_the_gpu(config: FRFSRConfig) -> None:
    """Fake tensors have no values: reading one back, which a CUDA graph cannot hold, raises. So do mixed devices."""
    with torch.device("meta"):
        model = FRFSR(config).eval()
    with FakeTensorMode(), torch.inference_mode():
        for module in model.modules():
            for own in (module._parameters, module._buffers):
                own.update({name: gpu(*value.shape) for name, value in own.items() if value is not None})
        result = model(gpu(1, 3, 21, 13), gpu(1, 3, 84, 52))
    assert result.image.device == SECOND
    assert result.image.shape == (1, 3, 84, 52)
