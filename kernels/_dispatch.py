"""Which form of an operation serves a call: one table, asked by :func:`form_for`, and :func:`use` to overrule it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from importlib.util import find_spec
from typing import Literal, NamedTuple, ParamSpec, TypeVar

import torch

Form = Literal["reference", "cpu", "triton"]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Rule(NamedTuple):
    """A row of the table. None in ``devices``, ``dtypes`` or ``operations`` stands for all of them."""

    form: Form
    devices: tuple[str, ...] | None
    dtypes: tuple[torch.dtype, ...] | None
    operations: tuple[str, ...] | None
    why: str


HALF_AND_SINGLE = (torch.float32, torch.float16, torch.bfloat16)
TABLE = (  # the first row that holds serves the call
    Rule("triton", ("cuda",), HALF_AND_SINGLE, None, "one launch, nothing unfolded; its sums are float32"),
    Rule("cpu", ("cpu",), None, None, "PyTorch operators over blocks that stay in a core's cache"),
    Rule("cpu", None, None, ("patch_argmax", "refine_flow"), "float64 on a GPU, other devices: memory stays linear"),
    Rule("reference", None, None, None, "float64 on a GPU, other devices: PyTorch's operators and autograd"),
)

_selected: Literal["reference"] | Mapping[str, Callable] | None = None  # by `use`


@contextmanager
def use(forms: Literal["reference"] | Mapping[str, Callable]) -> Iterator[None]:
    """Overrule the table, in the whole process, until the context ends.

    Args:
        forms: "reference" for the readable references, as ``FRFSR_KERNELS=reference`` has it for the whole run; or
            functions that take the place of operations, by the operations' names ("flow_warp": ...), called with the
            same arguments. Operations that are not named keep to the table.

    Yields:
        Nothing: what is called inside of the context is overruled.

    Raises:
        ValueError: if ``forms`` is another word.

    Examples:
        >>> import torch
        >>> from frfsr import kernels
        >>> key = torch.rand(1, 8, 6, 7)
        >>> with kernels.use("reference"):
        ...     score, index = kernels.patch_argmax(key, key)
        >>> torch.equal(index, kernels.patch_argmax(key, key)[1])
        True
    """
    global _selected
    if isinstance(forms, str) and forms != "reference":
        raise ValueError(f"kernels.use takes 'reference' or functions by the operations' names, not {forms!r}")
    before, _selected = _selected, forms
    try:
        yield
    finally:
        _selected = before


def form_for(operation: str, tensor: torch.Tensor) -> Form:
    """Say which form serves a call.

    Args:
        operation: its public name, such as "flow_warp".
        tensor: the argument whose device and dtype decide.

    Returns:
        "reference" if it was asked for, else the form of the first row of ``TABLE`` that holds. Triton counts only
        where it is installed; ``TRITON_INTERPRET=1`` lets it serve CPU tensors too, so that the kernels themselves can
        be tested without a GPU.

    Raises:
        LookupError: no row holds.
    """
    if _selected == "reference" or os.environ.get("FRFSR_KERNELS") == "reference":
        return "reference"
    for form, devices, dtypes, operations, _ in TABLE:
        device = tensor.device.type
        if form == "triton":
            if not _triton_is_installed():
                continue
            device = "cuda" if os.environ.get("TRITON_INTERPRET") == "1" else device
        if (
            (devices is None or device in devices)
            and (dtypes is None or tensor.dtype in dtypes)
            and (operations is None or operation in operations)
        ):
            return form
    raise LookupError(f"no form of {operation} for {tensor.dtype} on {tensor.device}")


@cache
def _triton_is_installed() -> bool:
    return find_spec("triton") is not None


def operation(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let :func:`use` put another function in the place of a public operation."""

    @wraps(function)
    def selected(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if isinstance(_selected, Mapping) and function.__name__ in _selected:
            return _selected[function.__name__](*args, **kwargs)
        return function(*args, **kwargs)

    return selected


def on_device_of_first(launch: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make the device of the first argument, a tensor, the current one while ``launch`` runs.

    Triton launches on the current device, which would hand the tensors of a second GPU to the first.
    """

    @wraps(launch)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.cuda.device_of(args[0]):  # does nothing for a tensor on the CPU
            return launch(*args, **kwargs)

    return guarded
