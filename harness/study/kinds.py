"""Kinds of values in a study file, the maps that hold them, and what is said of a value that does not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

from harness.errors import Location, unknown

# Kinds of values. Each is a function that returns the value as the plan reads it, or raises ValueError with
# the words that follow its place. By hand: a library took a quarter of the time of `harness plan`
# (docs/decisions/0027).


LARGEST, SMALLEST = 10**9, 1e-12  # of any number in a study: products of a few of them stay finite
LONGEST_NAME = 200  # characters: names and labels stand in tables, figures and file names

Kind = Callable[[Any], Any]


class Mistake(NamedTuple):
    """One thing that does not fit, and where below the value that was read."""

    at: Location
    says: str = ""  # what follows the place
    is_missing: bool = False  # the last key of `at` is needed and not there
    is_key: bool = False  # what is said is said of the last key of `at`, not of what stands there
    among: tuple[str, ...] = ()  # the last key of `at` is none of these


class Misfit(ValueError):
    """Every mistake in a value that has parts."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(f"{len(mistakes)} mistakes")
        self.mistakes = tuple(mistakes)


class _Parts:
    """Reads the parts of a value one by one, and raises what is wrong with all of them."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def read(self, at: str | int, kind: Kind, value: Any) -> Any:
        """The part as `kind` reads it; None where it is wrong."""
        try:
            return kind(value)
        except ValueError as error:
            self.mistakes += [each._replace(at=(at, *each.at)) for each in _mistakes(error)]
        return None

    def read_key(self, at: str | int, kind: Kind, key: Any) -> Any:
        """The key at this place."""
        try:
            return kind(key)
        except ValueError as error:
            self.mistakes += [each._replace(at=(at,), is_key=True) for each in _mistakes(error)]
        return None

    def raise_if_any(self) -> None:
        if self.mistakes:
            raise Misfit(self.mistakes)


def _mistakes(error: ValueError) -> Sequence[Mistake]:
    if isinstance(error, Misfit):
        return error.mistakes
    text = str(error)
    return (Mistake((), text if text.startswith("must") else f"is wrong: {text}"),)


def must(wanted: str, value: Any) -> ValueError:
    """The error that says what a value must be, and what it is.

    >>> must("be a number", "3")
    ValueError("must be a number, got '3'")
    """
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return ValueError(f"must {wanted}, got {shown}")


_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?([kKM])|([0-9]{1,9})\s?/\s?([1-9][0-9]{0,8})")
_TIMES = {"k": 1000, "K": 1000, "M": 1_000_000}


def as_written(value: Any) -> Any:
    """The number of a text that people write for one: a fraction, thousands, millions. Else the value itself.

    >>> [as_written(each) for each in ("1/4", "50k", "1.28M", "6/3", "3", "10km")]
    [0.25, 50000, 1280000, 2, '3', '10km']
    """
    found = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 40 else None
    if found is None:
        return value
    amount, times, above, below = found.groups()
    exact = Fraction(amount) * _TIMES[times] if times else Fraction(int(above), int(below))
    return exact.numerator if exact.denominator == 1 else float(exact)


def number(*, at_least: int = -LARGEST, above: int | None = None, at_most: int = LARGEST) -> Kind:
    """A number of this range, also `as_written`; no other text that looks like one, and not true or false."""

    def read(given: Any) -> float:
        value = as_written(given)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise must("be a number", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise must("be finite", value)
        return float(_in_range(value, at_least, above, at_most))

    return read


def whole(at_least: int = -LARGEST, at_most: int = LARGEST) -> Kind:
    """A whole number of this range, written as one, or as `as_written`."""

    def read(given: Any) -> int:
        value = as_written(given)
        if isinstance(value, bool) or not isinstance(value, int):
            raise must("be a whole number", given)
        _in_range(value, at_least, None, at_most)
        return value

    return read


def _in_range(value: float, at_least: int, above: int | None, at_most: int) -> float:
    if value > at_most:
        raise must(f"be less than or equal to {at_most}", value)
    if above is not None and value <= above:
        raise must(f"be greater than {above}", value)
    if value < at_least:
        raise must(f"be greater than or equal to {at_least}", value)
    return value


def positive(at_most: int = LARGEST) -> Kind:
    above_zero = number(above=0, at_most=at_most)

    def read(value: Any) -> float:
        found: float = above_zero(value)
        if found < SMALLEST:
            raise must(f"be at least {SMALLEST:g}", found)
        return found

    return read


def any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise must("be a text", value)
    return value


def text(value: Any) -> str:
    if any_text(value) == "":
        raise must("not be empty", value)
    return str(value)


def one_line(value: Any) -> str:
    """A name or label."""
    line = text(value)
    if "\n" in line or "\t" in line or len(line) > LONGEST_NAME:
        raise ValueError(f"must be one line of at most {LONGEST_NAME} characters")
    return line


def word(*valid: str) -> Kind:
    """One of these words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in valid:
            raise ValueError(unknown("value", str(value), valid))
        return value

    return read


def true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise must("be true or false", value)
    return value


def switch(value: Any) -> bool:
    """True or false, or a word or number that means it."""
    if isinstance(value, str | int) or (isinstance(value, float) and value in (0, 1)):
        found = _SWITCHES.get(value.lower() if isinstance(value, str) else value)
        if found is None:
            raise must("be a valid boolean, unable to interpret input", value)
        return found
    return true_or_false(value)


_SWITCHES: Mapping[Any, bool] = {
    **dict.fromkeys((True, "true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys((False, "false", "f", "no", "n", "off", "0"), False),
}


def list_of(kind: Kind, *, at_least: int = 0) -> Kind:
    """A list of values of one kind."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise must("be a list", value)
        if len(value) < at_least:
            raise must(f"have at least {at_least} item after validation, not {len(value)}", value)
        parts = _Parts()
        found = [parts.read(index, kind, item) for index, item in enumerate(value)]
        parts.raise_if_any()
        return tuple(found)

    return read


def pair_of(kind: Kind) -> Kind:
    """A list of two."""
    listed = list_of(kind)

    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, list | tuple) and len(value) > 2:
            raise must(f"have at most 2 items after validation, not {len(value)}", value)
        found: tuple[Any, ...] = listed(value)
        if len(found) < 2:
            raise Misfit([Mistake((index,), is_missing=True) for index in range(len(found), 2)])
        return found

    return read


def map_of(key_kind: Kind, kind: Kind) -> Kind:
    """A map whose keys are of one kind and whose values are of another."""

    def read(value: Any) -> dict[Any, Any]:
        parts = _Parts()
        found = {}
        for key, item in _as_map(value).items():
            at = _place(key)
            found[parts.read_key(at, key_kind, key)] = parts.read(at, kind, item)
        parts.raise_if_any()
        return found

    return read


def _as_map(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise must("be a map (key: value)", value)
    return value


def _place(key: Any) -> str | int:
    return key if isinstance(key, str | int) else str(key)


def anything(value: Any) -> Any:
    return value


def any_of(*kinds: Kind) -> Kind:
    """What one of these kinds reads; else what each of them says."""

    def read(value: Any) -> Any:
        mistakes: list[Mistake] = []
        for kind in kinds:
            try:
                return kind(value)
            except ValueError as error:
                mistakes += [each._replace(at=()) for each in _mistakes(error)]
        raise Misfit(mistakes)

    return read


def rising(kind: Kind) -> Kind:
    def read(value: Any) -> tuple[float, ...]:
        values: tuple[float, ...] = kind(value)
        if any(later <= earlier for earlier, later in pairwise(values)):
            raise ValueError(f"must rise from left to right, got {list(values)}")
        return values

    return read


def not_falling(kind: Kind) -> Kind:
    """A range, whose ends may be one value."""

    def read(value: Any) -> tuple[float, ...]:
        values: tuple[float, ...] = kind(value)
        if any(later < earlier for earlier, later in pairwise(values)):
            raise ValueError(f"must not fall from left to right, got {list(values)}")
        return values

    return read


def one_of(*valid: int) -> Kind:
    """One of these whole numbers."""
    any_whole = whole()

    def read(value: Any) -> int:
        found: int = any_whole(value)
        if found not in valid:
            raise ValueError(f"must be one of {', '.join(map(str, valid))}, got {found}")
        return found

    return read


class _Key(NamedTuple):
    """What stands at a key of the study file."""

    kind: Kind
    default: Any = ...  # ...: the key is needed
    named: str = ""  # as the file says it, where that is no name of Python's


def key(kind: Kind, default: Any = ..., *, named: str = "") -> Any:
    """An attribute of a `Closed` map, in its class: how it is read, and what it is where it is not given.

    named: the key in the file, where that is no name of Python's.
    """
    return _Key(kind, default, named)


class Closed:
    """A map of the study file. Unknown keys are mistakes; values do not change after reading.

    What a key is not given has its default; a default of None may be written out as null.
    """

    _keys: ClassVar[Mapping[str, tuple[str, Kind]]]  # key -> its attribute, and how it is read
    _defaults: ClassVar[Mapping[str, Any]]
    _needed: ClassVar[tuple[str, ...]]
    given: frozenset[str]  # the attributes that the file says

    def __init_subclass__(cls) -> None:
        own = {name: each for name, each in vars(cls).items() if isinstance(each, _Key)}
        cls._keys = {
            each.named or name: (name, cls._or_null(each.kind) if each.default is None else each.kind)
            for name, each in own.items()
        }
        cls._defaults = {name: each.default for name, each in own.items() if each.default is not ...}
        cls._needed = tuple(each.named or name for name, each in own.items() if each.default is ...)

    def __init__(self, **given: Any) -> None:
        """These values as they are, and the defaults."""
        vars(self).update(type(self)._defaults, **given, given=frozenset(given))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name, _ in self._keys.values())
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def read(cls, value: Any) -> Self:
        """Raises:
        Misfit: everything that is wrong with it.
        """
        given = _as_map(cls._written_out(value))
        parts = _Parts()
        found = {}
        for key, part in given.items():
            if key in cls._keys:
                name, kind = cls._keys[key]
                found[name] = parts.read(key, kind, part)
            else:
                parts.mistakes.append(Mistake((_place(key),), among=tuple(cls._keys)))
        parts.mistakes += [Mistake((key,), is_missing=True) for key in cls._needed if key not in given]
        parts.raise_if_any()
        made = cls(**found)
        made._check()
        return made

    @classmethod
    def fields(cls) -> frozenset[str]:
        """The attributes that a file may give."""
        return frozenset(name for name, _ in cls._keys.values())

    def values(self) -> dict[str, Any]:
        """What was given, in the order of the keys above."""
        return {name: getattr(self, name) for name, _ in self._keys.values() if name in self.given}

    def but(self, **changes: Any) -> Self:
        """The same with these values."""
        return type(self)(**{**self.values(), **changes})

    @staticmethod
    def _or_null(kind: Kind) -> Kind:
        return lambda value: None if value is None else kind(value)

    @classmethod
    def _written_out(cls, value: Any) -> Any:
        """The map that a short form stands for."""
        return value

    def _check(self) -> None:
        """Raises:
        ValueError: keys that do not go together.
        """
