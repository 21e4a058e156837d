"""State dicts of published checkpoints: out of their wrappers, told by their shapes, into our modules."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from frfsr.errors import UserError
from frfsr.pixels import IMAGENET_MEAN, IMAGENET_STD
from frfsr.settings import shortened

State = Mapping[str, Tensor]
Names = dict[str, str]


def unwrap(checkpoint: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """The tensors of a published checkpoint, without its wrappers and the ImageNet constants that our modules have.

    Args:
        checkpoint: tensors by key; wrapped as checkpoint files are ("params_ema", "params", "state_dict", and
            "module." or "generator." before every key) or not.
        what: its name for messages.

    Returns:
        The tensors by key.

    Raises:
        UserError: something else than tensors remains, they are of no use, or the constants are others.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{what} is not a checkpoint of weights but a {type(checkpoint).__name__}.")
    require_sound(checkpoint, what)
    for wrapper in ("params_ema", "params-ema", "params", "state_dict"):
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
    state = {}
    for key, value in checkpoint.items():
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise UserError(f"{what} is not a checkpoint of weights: {key!r} is a {type(value).__name__}.")
        constant = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}.get(key.rpartition(".")[2])
        if constant is None:
            state[key.removeprefix("module.").removeprefix("generator.")] = value
        elif value.numel() != 3 or not torch.allclose(value.flatten().float().cpu(), torch.tensor(constant), atol=1e-4):
            raise UserError(f"{what}: {key!r} is not ImageNet's, which the encoder needs.")
    return state


def require_sound(checkpoint: Mapping[str, Any], what: str) -> None:
    """Refuse tensors that are no weights, at any depth: loading would convert or enlarge them without a word.

    Args:
        checkpoint: tensors by key, wrapped or not; what has no names, as an optimizer's state, is not looked at.
        what: its name for messages.

    Raises:
        UserError: values are not finite, weights are no fractions, or a tensor claims more values than it stores.
    """
    for key, value in checkpoint.items():
        if isinstance(value, Mapping):
            require_sound(value, what)
        elif isinstance(value, Tensor) and isinstance(key, str):
            dense = value.layout == torch.strided and not (value.is_quantized or value.is_meta)
            fractions = value.dtype.is_floating_point or not f".{key}".endswith((".weight", ".bias"))
            if not dense or value.dtype.is_complex or not fractions:
                kind = str(value.dtype).removeprefix("torch.")
                raise UserError(f"{what}: {shortened(key)} holds no plain fractions ({kind}): take other weights.")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise UserError(f"{what}: {shortened(key)} claims more values than the file holds: take other weights.")
            if value.dtype.is_floating_point and not is_finite(value):
                raise UserError(f"{what}: {shortened(key)} has values that are NaN or infinite: take other weights.")


def is_finite(value: Tensor) -> bool:
    """Whether all values are numbers; floating point of 8 bits has no test of its own."""
    wide = value.float() if value.element_size() == 1 else value
    return bool(torch.isfinite(wide).all())


def unwrap_parts(checkpoints: Mapping[str, Any], parts: Iterable[str], what: str) -> dict[str, State]:
    """Unwrap checkpoints of an architecture that is published in several files.

    Args:
        checkpoints: by part, each wrapped or not.
        parts: that there must be.
        what: the architecture, for messages.

    Returns:
        The tensors by part, in the order of `parts`.

    Raises:
        UserError: other parts are given, or one of them is no checkpoint.
    """
    require_parts(checkpoints, parts, what)
    return {part: unwrap(checkpoints[part], part) for part in parts}


def require_parts(given: Mapping[str, Any], parts: Iterable[str], what: str) -> None:
    """Refuse other parts than those of an architecture.

    Args:
        given: by part.
        parts: that there must be.
        what: the architecture, for messages.

    Raises:
        UserError: parts are missing or unknown.
    """
    names = [str(name) for name in given] if isinstance(given, Mapping) else []
    if set(names) != set(parts):
        raise UserError(f"{what} needs the parts {', '.join(parts)}; got {', '.join(names[:4]) or 'none'}.")


def load_published(module: nn.Module, state: State, names: Names, what: str, unused: tuple[str, ...] = ()) -> None:
    """Copy published weights into our module.

    Args:
        module: takes them.
        state: tensors under the published keys.
        names: path of our module -> path of the published one; for a parameter the longest path that fits counts.
        what: the checkpoint's name for messages.
        unused: beginnings of keys that may be there and are not needed.

    Raises:
        UserError: a key is missing, unknown or of a wrong shape, or its values are of no use; it names the keys.
    """
    ours = module.state_dict()
    expected = {published_key(key, names): key for key in ours}
    wanted = {theirs: list(ours[key].shape) for theirs, key in expected.items()}
    found = {key: list(value.shape) for key, value in state.items() if key in wanted or not key.startswith(unused)}
    require_same_keys(wanted, found, f"not a checkpoint of this architecture ({what})")
    module.load_state_dict({key: as_kept(state[theirs], ours[key], theirs) for theirs, key in expected.items()})


def as_kept(stored: Tensor, kept: Tensor, what: str) -> Tensor:
    """Copy a weight into the type and memory layout in which a module keeps it.

    Args:
        stored: of a file.
        kept: of the module, perhaps without memory.
        what: its name for messages.

    Returns:
        The copy, on the CPU.

    Raises:
        UserError: it is of another kind, such as whole numbers for fractions, or has values that are not finite.
    """
    if stored.dtype.is_floating_point != kept.dtype.is_floating_point or stored.dtype.is_complex:
        kinds = (str(dtype).removeprefix("torch.") for dtype in (stored.dtype, kept.dtype))
        raise UserError("{} is {} instead of {}: take other weights.".format(what, *kinds))
    value = torch.empty_strided(kept.shape, kept.stride(), dtype=kept.dtype).copy_(stored)
    if not is_finite(value):
        raise UserError(f"{what} has values that are NaN or infinite: take other weights.")
    return value


def published_key(key: str, names: Names) -> str:
    """The published name of our parameter `key`."""
    path = key
    while path and path not in names:
        path = path.rpartition(".")[0]
    return names[path] + key[len(path) :] if path else key


def require_same_keys(expected: Mapping[str, list[int]], found: Mapping[str, list[int]], what: str) -> None:
    """Refuse weights of another network: missing, unknown, or of another shape.

    Args:
        expected: shapes by name.
        found: shapes by name.
        what: beginning of the message.

    Raises:
        UserError: the two differ.
    """
    problems = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": [name for name in expected if name in found and list(found[name]) != list(expected[name])],
    }
    for problem, names in problems.items():
        if names:
            listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            raise UserError(f"{what}: {problem}: {listed}.")


def size(state: State, key: str, dimension: int = 0) -> int:
    """Count the output channels of a weight.

    Args:
        state: the weights.
        key: the weight's name.
        dimension: another one than that of the output channels.

    Returns:
        Their number.

    Raises:
        UserError: the weight is missing, or has not so many dimensions.
    """
    if key not in state or state[key].dim() <= dimension:
        raise UserError(f"not a checkpoint of this architecture: it lacks {key!r}.")
    return state[key].shape[dimension]


def count(state: State, prefix: str) -> int:
    """Number of the modules `prefix`0, `prefix`1, ..."""
    return len({key[len(prefix) :].partition(".")[0] for key in state if key.startswith(prefix)})
