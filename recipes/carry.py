"""One small file from which a run goes on in another folder, on another machine: a checkpoint with rounded moments.

Weights and averages are exact; Adam's moments are in bfloat16, a relative error of at most 0.4 %. What an exact resume
needs beside them (random numbers, a loss scale) is left out: samples are functions of their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from frfsr.stored import write_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Carried:
    """What a run takes along: its trained networks without wrappers, averages among them, and their optimizers."""

    networks: Sequence[nn.Module]
    optimizers: Sequence[Optimizer]

    def save(self, file: Path, step: int) -> None:
        """Write everything at `step` into one .safetensors file."""
        tensors: dict[str, Tensor] = {}
        for n, network in enumerate(self.networks):
            tensors |= {f"network{n}.{name}": value for name, value in network.state_dict().items()}
        for n, optimizer in enumerate(self.optimizers):
            for parameter, state in optimizer.state_dict()["state"].items():
                for name, value in state.items():
                    rounded = value.bfloat16() if name in MOMENTS else value
                    tensors[f"optimizer{n}.{parameter}.{name}"] = rounded
        here = {name: value.contiguous().cpu() for name, value in tensors.items()}
        write_tensors(file, here, {"step": str(step)})

    def load(self, file: Path) -> int:
        """Read what `save` wrote.

        Args:
            file: that it wrote.

        Returns:
            The step after which it was written.

        Raises:
            RuntimeError: it is of another network.
        """
        with safe_open(file, "pt") as content:
            step = int(content.metadata()["step"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
        for n, network in enumerate(self.networks):
            network.load_state_dict(below(tensors, f"network{n}."))
        for n, optimizer in enumerate(self.optimizers):
            states: dict[int, dict[str, Tensor]] = {}
            for place, value in below(tensors, f"optimizer{n}.").items():
                parameter, _, name = place.partition(".")
                states.setdefault(int(parameter), {})[name] = value.float()
            optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
        return step


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
