"""One name of a study file against the catalogue: a trick, a model, a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from harness.study.catalogue import Catalogue, TrickEntry
from harness.study.problems import Location, ProblemList, unknown
from harness.study.uses import Use, fill_options


class Mode(NamedTuple):
    """What a study is resolved for."""

    names_are_wrong: bool = False  # some were reported as mistakes, so that lookups may fail
    priced: bool = True  # False: only to find mistakes


class Unusable(Exception):
    """A draft uses something that is already reported as a mistake."""


def guarded(what: str, call: Callable[..., Any], *values: Any) -> Any:
    """Call what a plugin may have written.

    Raises:
        ValueError: the call's own, or in words whatever else it raised: a study never ends in a traceback.
    """
    try:
        return call(*values)
    except ValueError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(f"{what} failed: {type(error).__name__}: {first}") from error


def trick_options(use: Use, catalogue: Catalogue) -> tuple[TrickEntry, dict[str, Any]]:
    """A trick's entry, and every option of it but those that name an arm, in full.

    Raises:
        ValueError: the trick or an option does not exist, or a value is out of its range.
    """
    entry = catalogue.tricks.get(use.name)
    if entry is None:
        raise ValueError(unknown("trick", use.name, catalogue.tricks))
    if entry.arms:
        use = Use(use.name, tuple(pair for pair in use.options if pair[0] not in entry.arms))
    options = fill_options("trick", use, entry.options)
    guarded(f"checking the options of trick '{use.name}'", entry.validate, options)
    return entry, options


def needs_arm(trick: str, option: str) -> str:
    """The mistake of a trick that is not told which arm it needs, in words."""
    return f"trick '{trick}' needs a {option}: {{{trick}: {{{option}: NAME OF AN ARM}}}}"


def check_model(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the model or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.models.get(use.name)
    if entry is None:
        raise ValueError(unknown("model", use.name, catalogue.models))
    args = fill_options("model", use, entry.args)
    guarded(f"checking the arguments of model '{use.name}'", entry.validate, args)


def check_data(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the data set or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.data.get(use.name)
    if entry is None:
        raise ValueError(unknown("data set", use.name, catalogue.data))
    args = fill_options("data set", use, entry.args)
    guarded(f"checking the arguments of data set '{use.name}'", entry.validate, args)


def attempt(at: Location, problems: ProblemList, check: Callable[..., Any], *values: Any) -> None:
    """Call a check; a ValueError of it becomes a problem at this place."""
    try:
        check(*values)
    except ValueError as error:
        problems.add(at, str(error))
