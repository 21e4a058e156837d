"""Configurations: dataclasses whose values are checked, with one line for what is wrong.

Typed by pydantic, so that a field's annotation is its check: `Literal`, bounds by `Annotated[int, Field(ge=1)]`,
tuples of a fixed length. Numbers that YAML reads as text (1e-4) are converted.
"""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import pydantic.dataclasses
from pydantic import ConfigDict, Field, ValidationError

from frfsr.errors import UserError

Settings = TypeVar("Settings")

SHOWN = 60  # characters of a wrong value in a message
Count = Annotated[int, Field(ge=0, le=100_000_000)]
Positive = Annotated[int, Field(ge=1, le=100_000_000)]
Width = Annotated[int, Field(ge=1, le=2048)]
"""Channels of a layer: what config.json of a stranger may ask for."""
Depth = Annotated[int, Field(ge=0, le=128)]
"""Blocks in a row."""
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass_transform(field_specifiers=(Field,))
def settings(config_class: type[Settings]) -> type[Settings]:
    """Make a class a dataclass whose values are checked when it is made.

    Args:
        config_class: annotated fields, as of a dataclass.

    Returns:
        The class. Where one is made with a wrong value or an unknown field, a UserError names in one line the field and
        what it may be, or the nearest field that there is.
    """
    options = ConfigDict(extra="forbid")
    checked: Any = pydantic.dataclasses.dataclass(config=options)(config_class)
    initialise = checked.__init__

    @wraps(initialise)
    def one_line(self: Any, *args: Any, **values: Any) -> None:
        require_known(checked, values)
        try:
            initialise(self, *args, **values)
        except ValidationError as error:
            raise UserError(_explain(checked, error)) from None

    checked.__init__ = one_line
    return checked


def from_mapping(config_class: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Make a configuration of what a file says.

    Args:
        config_class: a class made by `settings`.
        values: field -> value, as JSON and YAML give them.

    Returns:
        The configuration.

    Raises:
        UserError: a field is unknown or a value is not allowed.
    """
    require_known(config_class, values)
    return config_class(**{str(key): value for key, value in values.items()})


def require_known(config_class: type, values: Mapping[str, Any]) -> None:
    """Refuse a key that is no field of the dataclass.

    Args:
        config_class: the dataclass.
        values: by key.

    Raises:
        UserError: a key is none; it names the nearest one that is.
    """
    known = [field.name for field in fields(config_class)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:SHOWN], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
            raise UserError(f"unknown key {shortened(key)} in the configuration; {hint}")


def require_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Refuse a setting that another one does not divide.

    Args:
        name: of the setting.
        value: of the setting.
        divisor_name: of the other one.
        divisor: its value.

    Raises:
        UserError: a remainder is left.
    """
    if value % divisor:
        raise UserError(f"{divisor_name} ({divisor}) must divide {name} ({value}).")


def _explain(config_class: type, error: ValidationError) -> str:
    """The first fault in one line: which field, what it may be, what was given."""
    fault = error.errors()[0]
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return str(cause)
    name = str(fault["loc"][0])
    given = "another value" if isinstance(fault["input"], dict) else shortened(fault["input"])
    annotation = next((field.type for field in fields(config_class) if field.name == name), None)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return f"{name} must be one of {', '.join(map(str, get_args(annotation)))}, got {given}."
    place = f"{name}[{fault['loc'][1]}]" if len(fault["loc"]) > 1 and isinstance(fault["loc"][1], int) else name
    reason = fault["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{place}: {reason}, got {given}."


def shortened(value: Any) -> str:
    """How a message shows what a file says, which can be of any length."""
    text = repr(value[:SHOWN]) if isinstance(value, str | list | tuple) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
