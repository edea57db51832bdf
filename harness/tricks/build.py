"""From a name and raw option values to a trick, with errors that teach. Imports no torch."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import typing
from collections import ChainMap
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from harness.errors import nearest, unknown
from harness.tricks import TRICKS
from harness.tricks.base import Trick, hooks_of, require

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
    fields = dataclasses.fields(trick_cls)
    plain = {each.__name__: each for each in _WORDS}
    if all(field.type in plain for field in fields):  # without the annotations of every base class
        return {field.name: plain[str(field.type)] for field in fields}
    said = SimpleNamespace(__annotations__={field.name: field.type for field in fields})
    places = [vars(sys.modules[each.__module__]) for each in reversed(trick_cls.__mro__)]
    return typing.get_type_hints(said, dict(ChainMap(*reversed(places))))


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


# The card of a trick, read from its docstring: the docs page and the reports use it.
#
# A card is a summary line, then lines that start with the five labels below; a longer text goes on in
# indented lines. "(memory)" after a section, an equation or a value means that it was not read in the paper
# itself.


LABELS = ("Paper", "Equation", "Acts on", "Defaults", "Differs")


class Card(NamedTuple):
    """What a reader must know about a trick, in one line of text each."""

    summary: str
    paper: str  # bibliography keys, arXiv ids, sections
    equation: str
    acts_on: (
        str  # the hooks without "edit_", each with what it changes there in brackets; none (what it is for)
    )
    defaults: str  # every option with its default and where it comes from
    differs: str  # every deviation from the paper

    @property
    def citations(self) -> tuple[str, ...]:
        """The bibliography keys in `paper`, in the order of mention."""
        return tuple(dict.fromkeys(re.findall(r"\b[a-z]+\d{4}[a-z]+\b", self.paper)))


def parse(docstring: str) -> dict[str, str]:
    """Split a docstring into "Summary" and the five labels, each value on one line.

    Raises:
        ValueError: a label is missing, empty or there twice.

    >>> parse("S\\n\\nPaper: p\\nEquation: e\\n f\\nActs on: loss\\nDefaults: no\\nDiffers: no")["Equation"]
    'e f'
    """
    from inspect import cleandoc  # with all that it imports it takes 5 ms, and plans show no card

    summary, _, body = cleandoc(docstring).partition("\n\n")
    parts = re.split(rf"^({'|'.join(LABELS)}):", body, flags=re.MULTILINE)[1:]
    labels, texts = parts[::2], [" ".join(text.split()) for text in parts[1::2]]
    found = dict(zip(labels, texts, strict=True))
    missing = [label for label in LABELS if not found.get(label)]
    require(not missing, f"the card lacks a text for: {', '.join(missing)}")
    require(len(labels) == len(found), "the card has a label twice")
    return {"Summary": " ".join(summary.split()), **found}


def card_text(trick: type[Trick]) -> str:
    """The docstring that holds the card: of the class where it has a line of one, else of its file."""
    own = trick.__doc__ or ""
    if any(f"{label}:" in own for label in LABELS):
        return own
    return sys.modules[trick.__module__].__doc__ or ""


def card(trick: Trick | type[Trick]) -> Card:
    """The card of a trick.

    Raises:
        ValueError: its docstring is not a complete card.
    """
    cls = trick if isinstance(trick, type) else type(trick)
    try:
        fields = parse(card_text(cls))
    except ValueError as error:
        raise ValueError(f"{cls.name}: {error}") from None
    return Card(
        summary=fields["Summary"],
        paper=fields["Paper"],
        equation=fields["Equation"],
        acts_on=fields["Acts on"],
        defaults=fields["Defaults"],
        differs=fields["Differs"],
    )
