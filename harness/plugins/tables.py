"""The five tables that a plugin may name, read and checked: types, names, signatures. Runs no user function.

MODELS = (Model(...),)          harness.models.entry.Model
TRICKS = (MyTrick,)             classes, harness.tricks.base.Trick
DATASETS = (Entry(...),)        harness.data.entry.Entry
METRICS = {"ece": function}     function(logits (N, K), labels (N,)) -> float
TRAINERS = {"mine": function}   function(spec, run) -> {"top1": percent, ...}
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.data import DATASETS
from harness.data.entry import Entry
from harness.models import MODELS, VARIANTS
from harness.models.entry import Model
from harness.study.reserved import RESULTS, why_not
from harness.tricks import TRICKS
from harness.tricks.base import HOOKS, Trick

Metric = Callable[[Any, Any], float]  # logits (N, K) float, labels (N,) int64, on the CPU -> a finite number
Trainer = Callable[[Any, Any], Any]  # spec, run -> metrics; see harness.training.custom

NAMES = ("MODELS", "TRICKS", "DATASETS", "METRICS", "TRAINERS")
BUILT_IN: Mapping[str, frozenset[str]] = {
    "MODELS": frozenset({*MODELS, *VARIANTS}),
    "TRICKS": frozenset(TRICKS),
    "DATASETS": frozenset(DATASETS),
    "METRICS": frozenset({*RESULTS, "train_loss"}),
    "TRAINERS": frozenset({"harness"}),
}
KINDS = {
    "MODELS": "model",
    "TRICKS": "trick",
    "DATASETS": "data set",
    "METRICS": "metric",
    "TRAINERS": "trainer",
}
GOOD_NAME = re.compile(r"[a-z][a-z0-9_]*")
GOOD_NAME_OF_AN_ARCHITECTURE = re.compile(r"[a-z][a-z0-9_.-]*")


class Breach(ValueError):
    """A table breaks the contract. `anchor` is the name in the source nearest to the mistake."""

    def __init__(self, message: str, anchor: str) -> None:
        super().__init__(message)
        self.anchor = anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a plugin adds: name -> thing, in the order of the file."""

    models: Mapping[str, Model] = field(default_factory=dict)
    tricks: Mapping[str, type[Trick]] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    trainers: Mapping[str, Trainer] = field(default_factory=dict)

    def names(self) -> dict[str, list[str]]:
        """Table -> every name in it that a study may use, variants of models included."""
        models = [name for model in self.models.values() for name in (model.name, *model.variants)]
        others = (self.tricks, self.datasets, self.metrics, self.trainers)
        return {"MODELS": models, **{table: list(own) for table, own in zip(NAMES[1:], others, strict=True)}}


def read_tables(found: Mapping[str, Any]) -> Tables:
    """The tables among the names that a plugin's file defines.

    Raises:
        Breach: a table is not what its line in this module's docstring says, or a name is taken or unusable.
    """
    if not any(name in found for name in NAMES):
        raise Breach(_no_table(found), "")
    tables = Tables(
        models=_things(found, "MODELS", Model),
        tricks=_tricks(found),
        datasets=_things(found, "DATASETS", Entry),
        metrics=_functions(found, "METRICS", "function(logits, labels) -> float"),
        trainers=_functions(found, "TRAINERS", "function(spec, run) -> metrics"),
    )
    for table, names in tables.names().items():
        for name in names:
            _check_name(table, name)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Breach(f"{table} has the name '{twice[0]}' twice", table)
    return tables


def _no_table(found: Mapping[str, Any]) -> str:
    near = [
        f"'{name}' (did you mean {close[0]}?)"
        for name in found
        if name.isupper() and (close := difflib.get_close_matches(name, NAMES, n=1))
    ]
    but = f"; it has {', '.join(near)}" if near else ""
    return f"names nothing a study could use: it needs one of {', '.join(NAMES)}{but}"


def _check_name(table: str, name: Any) -> None:
    kind = KINDS[table]
    pattern = GOOD_NAME_OF_AN_ARCHITECTURE if table == "MODELS" else GOOD_NAME
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise Breach(
            f"a {kind} cannot be called {name!r}: lower-case letters, digits and _, a letter first", table
        )
    if name in BUILT_IN[table]:
        raise Breach(f"{kind} '{name}' is one of the harness's own; call yours something else", table)
    if taken := why_not(kind, name):
        raise Breach(f"{taken}; call yours something else", table)


def _sequence(found: Mapping[str, Any], table: str) -> list[Any]:
    value = found.get(table, ())
    if not isinstance(value, list | tuple):
        what = type(value).__name__
        raise Breach(
            f"{table} must be a tuple, with a comma also after a single entry: it is a {what}", table
        )
    return list(value)


def _things(found: Mapping[str, Any], table: str, kind: type[Any]) -> dict[str, Any]:
    things = _sequence(found, table)
    for each in things:
        if not isinstance(each, kind):
            raise Breach(
                f"{table} holds {kind.__module__}.{kind.__name__}(...) only, not {each!r:.80}", table
            )
    names = [each.name for each in things]
    for name in names:
        if names.count(name) > 1:
            raise Breach(f"{table} has the name {name!r} twice", table)
    return dict(zip(names, things, strict=True))


def _tricks(found: Mapping[str, Any]) -> dict[str, type[Trick]]:
    tricks: dict[str, type[Trick]] = {}
    for each in _sequence(found, "TRICKS"):
        if isinstance(each, Trick):
            name = type(each).__name__
            raise Breach(f"TRICKS holds classes: write {name}, not {name}(...)", "TRICKS")
        if not (isinstance(each, type) and issubclass(each, Trick)):
            raise Breach(
                f"TRICKS holds subclasses of harness.tricks.base.Trick only, not {each!r:.80}", "TRICKS"
            )
        _check_trick(each)
        if each.name in tricks:
            raise Breach(f"TRICKS has the name '{each.name}' twice", each.__name__)
        tricks[each.name] = each
    return tricks


def _check_trick(trick: type[Trick]) -> None:
    """What can be said of a trick's class without making one."""
    where = trick.__name__
    if not isinstance(getattr(trick, "name", None), str):
        raise Breach(f'{where} needs a name: name: ClassVar[str] = "..."', where)
    if "__dataclass_params__" not in vars(trick) or not vars(trick)["__dataclass_params__"].frozen:
        raise Breach(
            f"{where} must be a frozen dataclass: @dataclass(frozen=True, kw_only=True) above it", where
        )
    for option in dataclasses.fields(trick):
        if option.default is dataclasses.MISSING:
            raise Breach(f"{where}: option '{option.name}' needs a default", where)
    for name in vars(trick):
        if name.startswith("edit_") and name not in HOOKS:
            close = difflib.get_close_matches(name, HOOKS, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise Breach(f"{where}: {name} is not a hook{hint} Hooks: {', '.join(HOOKS)}", where)
        if name in HOOKS:
            _check_hook(trick, name)


def _check_hook(trick: type[Trick], hook: str) -> None:
    wanted = list(inspect.signature(getattr(Trick, hook)).parameters)[1:]
    if not _takes(getattr(trick, hook), 1 + len(wanted)):
        raise Breach(f"{trick.__name__}.{hook} must take (self, {', '.join(wanted)})", trick.__name__)


def _functions(found: Mapping[str, Any], table: str, signature: str) -> dict[str, Callable[..., Any]]:
    value = found.get(table, {})
    if not isinstance(value, Mapping):
        raise Breach(f"{table} must be a dict, name -> {signature}: it is a {type(value).__name__}", table)
    for name, function in value.items():
        if not callable(function) or not _takes(function, 2):
            raise Breach(f"{table}: '{name}' must be a {signature}", getattr(function, "__name__", table))
    return dict(value)


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say
        return True
    return True
