"""Settings that do nothing where another one has a certain value: who gives them by hand is told so."""

from collections.abc import Iterable
from typing import Any

from frfsr.errors import UserError

NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "milestones": ("schedule", ("steps",)),
    "decay": ("schedule", ("constant+decay",)),
    "shuffle_share": ("shuffle", ("easy", "medium", "hard")),
    "teacher": ("stage", ("student",)),
    "distill_weight": ("teacher", ()),
    "margin": ("objective", ("triplet",)),
    "safe_radius": ("objective", ("triplet",)),
    **dict.fromkeys(("reference_zoom", "reference_turn", "reference_colour"), ("reference_share", ())),
    **dict.fromkeys(
        ("shuffle", "unrelated_share", "own_share", "reference_share", "base_mix"),
        ("stage", ("rec", "all")),
    ),
    "reconstruction": ("stage", ("sife", "rec")),
    **dict.fromkeys(
        ("loss_weights", "perceptual", "perceptual_weights", "critic", "critic_lr", "gradient_penalty", "fresh"),
        ("stage", ("all",)),
    ),
}
"""Setting -> another one, and the values of that with which it counts; none: any but nothing and 0."""


def require_effect(config: Any, changes: Iterable[str]) -> None:
    """Refuse settings that do nothing.

    Args:
        config: of the run.
        changes: KEY=VALUE as given by hand; what stands in a recipe, which may serve several stages, is none of them.

    Raises:
        UserError: one of them does nothing.
    """
    for name in (change.partition("=")[0] for change in changes):
        other, values = NEEDS.get(name, (name, ()))
        value = getattr(config, other, None)
        if name in NEEDS and not (value in values if values else value):
            condition = f"{other}={' or '.join(values)}" if values else other
            raise UserError(f"{name} changes nothing without {condition}: leave it out.")
