"""Steps that would spoil the weights: NaN or infinite losses and gradients, and learned offsets that explode."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from frfsr.errors import UserError

SKIPPED_LIMIT = 100


class Guard:
    """Counts the steps that have to be skipped, and stops the run when they are too many."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, offset_limit: float = float("inf")):
        self.accelerator, self.offset_limit = accelerator, offset_limit
        self.offsets: list[Tensor] = []  # mean |offset| in pixels of every alignment since the last step
        self.losses: list[Tensor] = []
        self.skipped = 0
        for name, module in model.named_modules():
            if name.endswith("offset_mask"):
                module.register_forward_hook(self.record)

    def record(self, module: nn.Module, _: tuple, output: Tensor) -> None:
        """The first two thirds of the channels are offsets, the rest masks."""
        if torch.is_grad_enabled():
            self.offsets.append(output.detach()[:, : output.shape[1] * 2 // 3].abs().mean())

    def watch(self, loss: Tensor) -> Tensor:
        """Take note of a loss, a scalar, and give it back: L1 has finite gradients even where it is NaN."""
        self.losses.append(loss.detach())
        return loss

    def sound(self, gradient_norm: Tensor) -> bool:
        """Whether a step may be taken, after the norm of its gradient; every process gets the same answer.

        Raises UserError after `SKIPPED_LIMIT` unsound ones.
        """
        offset = torch.stack(self.offsets).amax() if self.offsets else torch.zeros_like(gradient_norm)
        losses = torch.stack(self.losses)
        self.offsets.clear()
        self.losses.clear()
        finite = torch.isfinite(gradient_norm)
        if self.accelerator.scaler is not None:
            finite = torch.ones_like(finite)  # fp16's scaler meets infinite gradients by design and skips by itself
        sound = finite & torch.isfinite(losses).all() & (offset <= self.offset_limit)
        sound = bool(self.accelerator.reduce(sound.float(), "mean") == 1)
        if not sound:
            self.skipped += 1
            if self.skipped > SKIPPED_LIMIT:
                raise UserError(
                    f"{self.skipped} steps had NaN or infinite losses or gradients, or offsets above offset_limit: "
                    "lower lr, lr_offset or clip_norm."
                )
        return sound
