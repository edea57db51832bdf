"""The design `grid`: every combination of the levels of its factors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from harness.study.changes import CHANGE_FIELDS, Changes
from harness.study.drafts import Row, draft
from harness.study.problems import Location, ProblemList, unknown
from harness.study.schema import Table
from harness.study.schema_problems import add_problems
from harness.study.uses import Use, plain

_OFF = object()  # the value of the level `off`; a trick's option may itself be False
_SWITCH = {"off": _OFF, "on": True, False: _OFF, True: True}  # YAML 1.2 reads `off` as a text


@dataclass(slots=True)
class _Factor:
    """One factor: the text and the effect of each of its levels."""

    name: str
    texts: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    @property
    def is_field(self) -> bool:
        return self.name in CHANGE_FIELDS


def grid_rows(table: Table, at: Location, problems: ProblemList) -> Iterator[Row]:
    """A field of the recipe takes each value; a trick is `off` or `on`; `trick.option` switches its trick on
    with that value, unless the level is `off` or a factor with the trick's own name says so."""
    before = len(problems)
    factors = [_read(name, levels, at, problems) for name, levels in table.factors.items()]
    excluded = [_excluded(index, part, factors, at, problems) for index, part in enumerate(table.exclude)]
    if len(problems) > before:
        return
    here = (*at, "factors")
    first: str | None = None
    texts = [[f"{factor.name}={text}" for text in factor.texts] for factor in factors]
    fields = [(place, factor.name, factor.values) for place, factor in enumerate(factors) if factor.is_field]
    switches = [(place, factor) for place, factor in enumerate(factors) if not factor.is_field]
    tricks: dict[tuple[int, ...], tuple[Use, ...]] = {}
    for levels in itertools.product(*(range(len(factor.values)) for factor in factors)):
        if excluded and any(_matches(levels, part) for part in excluded):
            continue
        chosen = tuple([levels[place] for place, _ in switches])
        if chosen not in tricks:
            tricks[chosen] = _tricks([factor for _, factor in switches], chosen)
        changes = {name: values[levels[place]] for place, name, values in fields}
        label = ", ".join([names[level] for names, level in zip(texts, levels, strict=True)])
        change = draft(None, changes, tricks[chosen])
        yield Row(label, here, change, None, first)
        first = first or label


def _read(name: str, levels: list[Any], at: Location, problems: ProblemList) -> _Factor:
    factor = _Factor(name)
    here = (*at, "factors", name)
    if not levels:
        problems.add(here, f"factor '{name}' has no levels")
    for index, level in enumerate(levels):
        try:
            text, value = _level(name, level)
        except ValidationError as error:
            add_problems(error, here, problems, Changes)
            continue
        except ValueError as error:
            problems.add((*here, index), str(error))
            continue
        if text in factor.texts:
            problems.add((*here, index), f"duplicate level '{text}' of factor '{name}'")
        factor.texts.append(text)
        factor.values.append(value)
    return factor


def _level(name: str, level: Any) -> tuple[str, Any]:
    if name in CHANGE_FIELDS:
        value = Changes.model_validate({name: level}).values()[name]
        return str(value if name == "model" else level), value
    if "." in name:
        return str(level), _OFF if level == "off" else plain(level)
    if isinstance(level, bool | str) and level in _SWITCH:
        value = _SWITCH[level]
        return ("off" if value is _OFF else "on"), value
    raise ValueError(f"factor '{name}' is a trick; its levels are off and on, got {level!r}")


def _excluded(
    index: int, part: Mapping[str, Any], factors: list[_Factor], at: Location, problems: ProblemList
) -> list[tuple[int, int]]:
    """(factor, level) pairs that together are left out."""
    names = [factor.name for factor in factors]
    pairs = []
    for name, level in part.items():
        here = (*at, "exclude", index, name)
        if name not in names:
            problems.add(here, unknown("factor", name, names))
            continue
        place = names.index(name)
        switched = isinstance(level, bool) and "." not in name and not factors[names.index(name)].is_field
        text = ("on" if level else "off") if switched else str(level)
        if text not in factors[place].texts:
            problems.add(here, unknown(f"level of factor '{name}'", text, factors[place].texts))
            continue
        pairs.append((place, factors[place].texts.index(text)))
    if not part:
        problems.add((*at, "exclude", index), "an empty exclusion would leave nothing")
    return pairs


def _matches(levels: tuple[int, ...], excluded: list[tuple[int, int]]) -> bool:
    return all(levels[place] == level for place, level in excluded)


def _tricks(factors: list[_Factor], levels: tuple[int, ...]) -> tuple[Use, ...]:
    """The tricks that are on at these levels, in the order in which the factors name them."""
    options: dict[str, list[tuple[str, Any]]] = {}
    off: set[str] = set()
    for factor, level in zip(factors, levels, strict=True):
        trick, _, option = factor.name.partition(".")
        value = factor.values[level]
        if value is _OFF:
            off.add(trick)
            continue
        given = options.setdefault(trick, [])
        if option:
            given.append((option, value))
    return tuple(Use(trick, tuple(given)) for trick, given in options.items() if trick not in off)
