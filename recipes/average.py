"""The averaged weights, which are the ones that are validated and exported."""

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """Exponential moving average of a model's trained weights; the frozen ones are the model's own tensors.

    So frozen networks, several times larger than the trained one, are neither copied nor stored twice. The model must
    already be on its device. In update n the decay is at most (1 + n) / (10 + n): with the full one, a short run would
    export mostly its initial weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        def update(
            averages: tuple[Tensor, ...] | list[Tensor],
            values: tuple[Tensor, ...] | list[Tensor],
            updates: Tensor | int,
        ) -> None:
            n = int(updates)
            get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, values, updates)

        super().__init__(model, multi_avg_fn=update)
        self.requires_grad_(False)
        self.frozen = set()
        for (name, average), own in zip(self.module.named_parameters(), model.parameters(), strict=True):
            if not own.requires_grad:
                average.data = own.data
                self.frozen.add(f"module.{name}")

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Give the averaged weights, without the frozen ones."""
        return {name: value for name, value in super().state_dict(*args, **options).items() if name not in self.frozen}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True, assign: bool = False) -> None:
        """Take what `state_dict` gives; the frozen weights come with the model.

        Raises:
            RuntimeError: they are those of another model.
        """
        missing, surplus = super().load_state_dict(
            {name: value for name, value in state_dict.items() if name not in self.frozen}, strict=False, assign=assign
        )
        if strict and (surplus or set(missing) != self.frozen):
            raise RuntimeError("the averaged weights are those of another model")
