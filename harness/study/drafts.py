"""What the rows of a study ask for, in names, before any number of a size is worked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.study.catalogue import Catalogue
from harness.study.problems import Location, ProblemList
from harness.study.schema import NamedArm, StudyFile
from harness.study.source import Source
from harness.study.uses import Use

BASELINE = "baseline"  # the name of the arm that changes nothing


class Draft(NamedTuple):
    """A model, changed recipe fields (paper's units) and tricks in order, relative to the baseline."""

    model: Use | None = None  # None: the baseline's
    changes: Mapping[str, Any] = {}
    tricks: tuple[Use, ...] = ()
    recipe: str | None = None  # a named recipe in place of the baseline's and of what the baseline sets

    def then(self, top: Draft) -> Draft:
        """This draft with another one on top: its model and values win, its tricks come last.

        Another recipe replaces every number that was set below it.
        """
        if self == _NOTHING:
            return top
        keeps = bool(self.changes) and top.recipe is None
        return Draft(
            top.model or self.model,
            {**self.changes, **top.changes} if keeps else top.changes,
            self.tricks + top.tricks,
            top.recipe or self.recipe,
        )


_NOTHING = Draft()


class Row(NamedTuple):
    """One row of a table, whatever design made it. `draft` is relative to `start_from`."""

    label: str
    location: Location
    draft: Draft = Draft()
    start_from: str | None = None  # None: the column's or the table's
    versus: str | None = None  # None: a reference row
    paper: Mapping[str, Any] = {}
    paper_versus: str | None = None
    cite: bool = False
    note: str | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A checked study file: its named arms and the rows of its tables, and where each stands in the file."""

    file: StudyFile
    source: Source
    arms: Mapping[str, Draft]
    rows: Mapping[str, tuple[Row, ...]]  # table key -> rows

    @property
    def name(self) -> str:
        return self.file.study


def draft(model: Use | None, changes: Mapping[str, Any], tricks: tuple[Use, ...]) -> Draft:
    """A draft from the parts of the file; `set: {model: ...}` is a change of the model."""
    if "model" in changes:
        model = changes["model"]
        changes = {name: value for name, value in changes.items() if name != "model"}
    return Draft(model, changes, tricks)


def named_arms(arms: Mapping[str, NamedArm], catalogue: Catalogue, problems: ProblemList) -> dict[str, Draft]:
    """Every named arm on top of the one it starts from; arms in a circle are left out and reported."""
    for name in _in_circles(arms, catalogue, problems):
        arms = {other: arm for other, arm in arms.items() if other != name}
    found: dict[str, Draft] = {BASELINE: Draft()}
    waiting = dict(arms)
    while waiting:
        ready = [name for name, arm in waiting.items() if arm.start in found]
        if not ready:  # they start from arms that do not exist, which the check of names reports
            break
        for name in ready:
            arm = waiting.pop(name)
            own = draft(arm.model, arm.set.values(), arm.add)._replace(recipe=arm.recipe)
            found[name] = found[arm.start].then(own)
    return found


def _needed(tricks: tuple[Use, ...], catalogue: Catalogue) -> list[str]:
    """The arms that tricks name: a teacher, a source, a partner."""
    named = []
    for use in tricks:
        entry = catalogue.tricks.get(use.name)
        named += [str(value) for option, value in use.options if entry and option in entry.arms]
    return named


def _in_circles(arms: Mapping[str, NamedArm], catalogue: Catalogue, problems: ProblemList) -> set[str]:
    """Arms that need themselves, through `from` or through a trick that names an arm."""
    needs = {name: [arm.start, *_needed(arm.add, catalogue)] for name, arm in arms.items()}
    circular: set[str] = set()
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circle = path[path.index(name) :]
            if not circular.intersection(circle):
                problems.add(
                    ("arms", circle[0]), f"arms need each other in a circle: {' -> '.join([*circle, name])}"
                )
            circular.update(circle)
            return
        if name in done:
            return
        for other in needs.get(name, []):
            visit(other, [*path, name])
        done.add(name)

    for name in arms:
        visit(name, [])
    return circular
