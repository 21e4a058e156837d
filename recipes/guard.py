"""Steps that would spoil the weights: NaN or infinite losses and gradients, and learned offsets that explode."""

from collections.abc import Iterable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.amp import GradScaler

from frfsr.errors import UserError

SKIPPED_LIMIT = 100


class Guard:
    """Takes one network's steps, skips and counts the unsound ones, and stops the run when they are too many."""

    def __init__(self, accelerator: Accelerator, watched: Iterable[nn.Module] = (), offset_limit: float = float("inf")):
        self.accelerator, self.offset_limit = accelerator, offset_limit
        self.offsets: list[Tensor] = []  # mean |offset| in pixels of every alignment since the last step
        self.losses: list[Tensor] = []
        self.skipped = 0  # steps that were not taken
        self.unsound = 0  # those of them that fp16's search for its loss scale does not explain
        for module in watched:
            module.register_forward_hook(self.record)

    def record(self, module: nn.Module, _: tuple, output: Tensor) -> None:
        """The first two thirds of the channels are offsets, the rest masks."""
        if torch.is_grad_enabled():
            self.offsets.append(output.detach()[:, : output.shape[1] * 2 // 3].abs().mean())

    def watch(self, loss: Tensor) -> Tensor:
        """Take note of a loss, a scalar, and give it back: L1 has finite gradients even where it is NaN."""
        self.losses.append(loss.detach())
        return loss

    def clip(self, parameters: Iterable[nn.Parameter], limit: float = float("inf")) -> Tensor:
        """Scale all gradients down together where their norm is above a limit.

        Args:
            parameters: whose gradients.
            limit: of the norm.

        Returns:
            The norm before, a scalar.
        """
        return cast(Tensor, self.accelerator.clip_grad_norm_(parameters, limit))

    def step(self, optimizer: AcceleratedOptimizer, gradient_norm: Tensor) -> bool:
        """Take the optimizer's step unless it would spoil the weights, and clear the gradient.

        Args:
            optimizer: takes the step.
            gradient_norm: a scalar, without fp16's loss scale.

        Returns:
            Whether the step was taken, the same to every process.

        Raises:
            UserError: more than `SKIPPED_LIMIT` steps were unsound.
        """
        sound = self.sound(gradient_norm, optimizer.scaler)
        if not sound:
            optimizer.zero_grad()  # without gradients the optimizer's step changes nothing
        optimizer.step()
        optimizer.zero_grad()
        taken = sound and not optimizer.step_was_skipped  # the latter by fp16's scaler
        self.skipped += not taken
        return taken

    def sound(self, gradient_norm: Tensor, scaler: GradScaler | None) -> bool:
        """Check losses, gradient and offsets on every process, and count a step in which they are not in order.

        Args:
            gradient_norm: a scalar, without fp16's loss scale.
            scaler: fp16's, if there is one.

        Returns:
            Whether they are in order.

        Raises:
            UserError: more than `SKIPPED_LIMIT` steps were unsound.
        """
        offset = torch.stack(self.offsets).amax() if self.offsets else torch.zeros_like(gradient_norm)
        losses = torch.stack(self.losses)
        self.offsets.clear()
        self.losses.clear()
        finite = torch.isfinite(gradient_norm)
        if scaler is not None and scaler.get_scale() > 1:
            finite = torch.ones_like(finite)  # the scale overshoots by design: the scaler lowers it and skips by itself
        sound = finite & torch.isfinite(losses).all() & (offset <= self.offset_limit)
        sound = bool(self.accelerator.reduce(sound.float(), "mean") == 1)
        if not sound:
            self.unsound += 1
            if self.unsound > SKIPPED_LIMIT:
                raise UserError(
                    f"{self.unsound} steps had NaN or infinite losses or gradients, or offsets above offset_limit: "
                    "lower lr, lr_offset or clip_norm."
                )
        return sound
