"""What is timed by :mod:`frfsr.evals.speed`: ours and the alternatives, on the same data."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from frfsr import FRFSR, FRFSRConfig, kernels
from frfsr.evals import speed_stock

PRODUCT_ELEMENTS = 2**28  # of the bare product of unfolded patches, held at a time
FEATURE = (1, 64, 320, 480)
GROUPS = 8


@dataclass(frozen=True)
class Contest:
    """Functions that do the same work. ``floor`` is what bounds everybody else, or the hardware."""

    frfsr: Callable[[], object]
    stock: Callable[[], object]
    floor: Callable[[], object] | None = None
    compiled: Callable[[], object] | None = None  # torch.compile of stock


@dataclass(frozen=True)
class Case:
    """A row of the table. ``build`` makes the data, on ``device`` ("cpu" or "cuda")."""

    device: str
    operation: str
    size: str
    dtype: torch.dtype
    target: str
    build: Callable[[], Contest]


def cases() -> list[Case]:
    """Every row, of every device."""
    f32, bf16 = torch.float32, torch.bfloat16
    feature = "64x320x480"
    copy = ">= 80% of a device copy"

    def match(device: str, dtype: torch.dtype, height: int, width: int, target: str) -> Case:
        size = f"{height}x{width}, C=256"
        return Case(device, "patch_argmax", size, dtype, target, lambda: _match(device, dtype, height, width))

    def warp(device: str, target: str) -> Case:
        return Case(device, "flow_warp", feature, f32, target, lambda: _warp(device))

    def ddf(device: str, target: str, backward: bool) -> Case:
        name = "dynamic_filter" + " + backward" * backward
        return Case(device, name, feature, f32, target, lambda: _dynamic_filter(device, backward))

    def deform(device: str, dtype: torch.dtype, target: str, backward: bool) -> Case:
        name = "deform_conv" + " + backward" * backward
        return Case(device, name, f"{feature}, 8 groups", dtype, target, lambda: _deform_conv(device, dtype, backward))

    def model(
        device: str, dtype: torch.dtype, height: int, width: int, target: str = "", compiled: bool = False
    ) -> Case:
        name, size = "model, paper preset" + ", compiled" * compiled, f"LR {height}x{width}"
        return Case(device, name, size, dtype, target, lambda: _model(device, dtype, height, width, compiled))

    return [
        match("cpu", f32, 83, 125, ">= 6x stock"),
        match("cpu", bf16, 83, 125, ">= 8x stock"),
        match("cpu", f32, 170, 255, ">= 6x stock, <= 256 MB"),
        warp("cpu", ""),
        ddf("cpu", "", backward=False),
        ddf("cpu", ">= 5x stock", backward=True),
        deform("cpu", f32, ">= 2x stock", backward=False),
        deform("cpu", f32, ">= 2x stock", backward=True),
        model("cpu", f32, 80, 120, ">= 2.5x stock"),
        model("cpu", bf16, 80, 120, ">= 5x stock in float32"),
        match("cuda", bf16, 83, 125, "<= 0.6x the bare product"),
        match("cuda", bf16, 339, 510, "<= 0.6x the bare product"),
        warp("cuda", copy),
        ddf("cuda", copy, backward=False),
        ddf("cuda", ">= 5x stock", backward=True),
        deform("cuda", bf16, ">= 3x stock", backward=False),
        deform("cuda", bf16, ">= 2x stock", backward=True),
        model("cuda", bf16, 83, 125),
        model("cuda", bf16, 83, 125, "<= 15 ms, >= 8x stock", compiled=True),
    ]


def _match(device: str, dtype: torch.dtype, height: int, width: int) -> Contest:
    torch.manual_seed(0)
    query, key = (F.normalize(torch.randn(1, 256, height, width, device=device), dim=1).to(dtype) for _ in "qk")

    rivals = {} if device == "cpu" and height > 100 else _match_rivals(query, key)
    return Contest(lambda: kernels.patch_argmax(query, key), lambda: speed_stock.patch_argmax(query, key), **rivals)


def _match_rivals(query: Tensor, key: Tensor) -> dict[str, Callable[[], object]]:
    """The compiled stock, and the product alone of unfolded patches; too slow and large for big images on a CPU."""
    rows, patches = (rearrange(F.unfold(image, 3), "1 c n -> n c").contiguous() for image in (query, key))
    # Rows that do not start at multiples of 16 bytes keep a GPU's matrix product from its fast kernels: pad with zeros.
    patches = F.pad(patches, (0, 0, 0, -len(patches) % 64))
    step = min(len(rows), PRODUCT_ELEMENTS // len(patches))
    out = query.new_empty(step, len(patches))

    def bare_product() -> None:
        for part in rows.split(step):
            torch.mm(part, patches.T, out=out[: len(part)])

    return {"floor": bare_product, "compiled": _compiled(speed_stock.patch_argmax, query, key)}


def _compiled(function: Callable, *inputs: Tensor) -> Callable[[], object]:
    compiled = torch.compile(function)
    return lambda: compiled(*inputs)


def _device_copy(*tensors: Tensor) -> Callable[[], object]:
    """Reads and writes half of the tensors' bytes each."""
    source = torch.empty(sum(tensor.nbytes for tensor in tensors) // 2, dtype=torch.uint8, device=tensors[0].device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _warp(device: str) -> Contest:
    torch.manual_seed(0)
    feature = torch.randn(FEATURE, device=device)
    flow = torch.randint(-40, 41, (1, *FEATURE[2:], 2), device=device).float()
    last = feature.contiguous(memory_format=torch.channels_last)
    return Contest(
        lambda: kernels.flow_warp(last, flow),
        lambda: speed_stock.flow_warp(feature, flow),
        _device_copy(feature, flow, feature),
        _compiled(speed_stock.flow_warp, feature, flow),
    )


def _with_backward(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    grad = torch.ones_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, grad)


def _dynamic_filter(device: str, backward: bool) -> Contest:
    torch.manual_seed(0)
    x, spatial = torch.randn(FEATURE, device=device), torch.randn(1, 9, *FEATURE[2:], device=device)
    channel = torch.randn(1, FEATURE[1], 3, 3, device=device)
    last = x.contiguous(memory_format=torch.channels_last)
    if backward:
        compiled = torch.compile(speed_stock.dynamic_filter)
        return Contest(
            _with_backward(kernels.dynamic_filter, [last, channel, spatial]),
            _with_backward(speed_stock.dynamic_filter, [x, channel, spatial]),
            compiled=_with_backward(compiled, [x, channel, spatial]),
        )
    return Contest(
        lambda: kernels.dynamic_filter(last, channel, spatial),
        lambda: speed_stock.dynamic_filter(x, channel, spatial),
        _device_copy(x, spatial, channel, x),
        _compiled(speed_stock.dynamic_filter, x, channel, spatial),
    )


def _deform_conv(device: str, dtype: torch.dtype, backward: bool) -> Contest:
    torch.manual_seed(0)
    batch, channels, height, width = FEATURE
    x = torch.randn(FEATURE, device=device, dtype=dtype)
    offset = torch.randn(batch, 18 * GROUPS, height, width, device=device, dtype=dtype)
    mask = torch.rand(batch, 9 * GROUPS, height, width, device=device, dtype=dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype) / 24
    bias = torch.randn(channels, device=device, dtype=dtype)
    flow = torch.randint(-9, 10, (batch, height // 4, width // 4, 2), device=device).float()
    last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, offset, mask)]

    def ours(*inputs: Tensor) -> Tensor:
        return kernels.deform_conv(*inputs, flow=flow, flow_scale=4, match_padding="valid")

    def stock(*inputs: Tensor) -> Tensor:
        return speed_stock.deform_conv(*inputs, flow=flow, flow_scale=4, match_padding="valid")

    inputs, ours_inputs = [x, offset, mask, weight, bias], [*last, weight, bias]
    if backward:
        return Contest(
            _with_backward(ours, ours_inputs),
            _with_backward(stock, inputs),
            compiled=_with_backward(torch.compile(stock), inputs),
        )
    return Contest(lambda: ours(*ours_inputs), lambda: stock(*inputs), compiled=_compiled(stock, *inputs))


def _model(device: str, dtype: torch.dtype, height: int, width: int, compiled: bool = False) -> Contest:
    """Put the same random weights on our kernels, and in plain PyTorch: contiguous, in float32 (on a GPU in ``dtype``).

    Args:
        device: "cpu" or "cuda".
        dtype: of our network.
        height: of the LR image, in pixels.
        width: of the LR image, in pixels.
        compiled: ours goes through torch.compile, which on a GPU also records a CUDA graph; so does a second stock.

    Returns:
        The two, ready to be timed.
    """
    stock_dtype = torch.float32 if device == "cpu" else dtype
    torch.manual_seed(0)
    model = FRFSR(FRFSRConfig.paper()).eval()
    with speed_stock.plain_pytorch():
        plain = FRFSR(FRFSRConfig.paper()).eval()
    plain.load_state_dict(model.state_dict())
    model, plain = model.to(device, dtype), plain.to(device, stock_dtype)
    lr = torch.rand(1, 3, height, width, device=device)
    reference = torch.rand(1, 3, 4 * height, 4 * width, device=device)

    def run(network: Callable, dtype: torch.dtype) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def call() -> Tensor:
            return network(lr.to(dtype), reference.to(dtype)).image

        return call

    def in_plain_pytorch(network: Callable) -> Callable[[], Tensor]:
        return speed_stock.plain_pytorch()(run(network, stock_dtype))

    if not compiled:
        return Contest(run(model, dtype), in_plain_pytorch(plain))
    return Contest(run(_graph(model), dtype), in_plain_pytorch(plain), compiled=in_plain_pytorch(_graph(plain)))


def _graph(model: FRFSR) -> Callable:
    return torch.compile(model, mode="reduce-overhead", fullgraph=True)
