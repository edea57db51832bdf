"""From a name and raw option values to a trick, with errors that teach. Imports no torch."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from harness.errors import nearest, unknown
from harness.tricks import TRICKS
from harness.tricks.base import Trick, hooks_of

_WORDS = {float: "a number", int: "an integer", bool: "true or false", str: "a text"}


def describe(trick_cls: type[Trick]) -> dict[str, Any]:
    """What a plan must know about a trick, as plain data.

    Keys: name; options (name -> default); conflicts; arms (options in which the study must name an arm);
    observes (True: it changes only how a trained network is evaluated); hooks (those it defines);
    acts_in_training (False: everything it does is in the edited recipe).
    """
    hooks = hooks_of(trick_cls)
    return {
        "name": trick_cls.name,
        "options": {field.name: field.default for field in dataclasses.fields(trick_cls)},
        "conflicts": trick_cls.conflicts,
        "arms": trick_cls.arms,
        "observes": trick_cls.observes,
        "acts_in_training": any(hook != "edit_recipe" for hook in hooks),
        "hooks": hooks,
    }


def validate(trick_cls: type[Trick], options: Mapping[str, Any]) -> None:
    """Check options (those not given have their defaults).

    Raises:
        ValueError: an unknown option, a value of the wrong type or out of range.
    """
    instantiate(trick_cls, options)


def make(name: str, options: Mapping[str, Any], *, tricks: Mapping[str, type[Trick]] = TRICKS) -> Trick:
    """The trick called `name`. Its `.options()` are the options in full, whole numbers for floats as floats.

    Raises:
        ValueError: an unknown trick or option, a value of the wrong type or out of range.
    """
    if name not in tricks:
        raise ValueError(unknown("trick", name, tricks))
    return instantiate(tricks[name], options)


def instantiate(trick_cls: type[Trick], options: Mapping[str, Any]) -> Trick:
    """A trick from its class: types are checked here, ranges by the trick itself.

    Raises:
        ValueError: an unknown option, a value of the wrong type or out of range.
    """
    types = _option_types(trick_cls)  # type: ignore[arg-type]  # mypy asks whether instances are hashable
    for key in options:
        if key not in types:
            raise ValueError(f"{trick_cls.name}: {unknown('option', key, types)}")
    return trick_cls(**{key: _typed(trick_cls, key, types[key], value) for key, value in options.items()})


@functools.cache
def _option_types(trick_cls: type[Trick]) -> dict[str, Any]:
    hints = typing.get_type_hints(trick_cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(trick_cls)}


def _typed(trick_cls: type[Trick], key: str, expected: Any, value: Any) -> Any:
    where = f"{trick_cls.name}: {key}"
    if typing.get_origin(expected) is Literal:
        choices = typing.get_args(expected)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            near = nearest(value, map(str, choices)) if isinstance(value, str) else None
            hint = f"; did you mean {near!r}?" if near else ""
            raise ValueError(f"{where} must be one of {', '.join(map(str, choices))}, got {value!r}{hint}")
        return value
    if expected is float and type(value) is int:
        return float(value)  # 1 and 1.0 are one option value, hence one arm
    if type(value) is not expected or (expected is float and not math.isfinite(value)):
        raise ValueError(f"{where} must be {_WORDS[expected]}, got {value!r}")
    return value
