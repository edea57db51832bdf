"""Where a study file names something: every place with what stands there."""

from __future__ import annotations

from collections.abc import Iterator

from harness.study.changes import Changes
from harness.study.problems import Location
from harness.study.schema import StudyFile
from harness.study.uses import Use


def trick_uses(file: StudyFile) -> Iterator[tuple[Location, Use]]:
    """Every trick that an arm, a table or a row switches on."""
    for name, arm in file.arms.items():
        yield from _listed(("arms", name, "add"), arm.add)
    for key, table in file.tables.items():
        at: Location = ("tables", key)
        yield from _listed((*at, "tricks"), table.tricks)
        for index, row in enumerate(table.rows):
            yield from _listed((*at, "rows", index, "add"), row.add)


def model_uses(file: StudyFile) -> Iterator[tuple[Location, Use]]:
    """Every model, those of `set` too."""
    yield ("baseline", "model"), file.baseline.model
    for name, arm in file.arms.items():
        if arm.model:
            yield ("arms", name, "model"), arm.model
    for key, table in file.tables.items():
        for name, column in table.columns.items():
            if column.model:
                yield ("tables", key, "columns", name, "model"), column.model
    for at, changes in all_changes(file):
        if changes.model is not None:
            yield (*at, "model"), changes.model


def all_changes(file: StudyFile) -> Iterator[tuple[Location, Changes]]:
    """Every `set`."""
    yield ("baseline", "set"), file.baseline.set
    for name, size in file.sizes.items():
        yield ("sizes", name, "set"), size.set
    for name, arm in file.arms.items():
        yield ("arms", name, "set"), arm.set
    for key, table in file.tables.items():
        at: Location = ("tables", key)
        for name, column in table.columns.items():
            yield (*at, "columns", name, "set"), column.set
        for index, row in enumerate(table.rows):
            yield (*at, "rows", index, "set"), row.set


def arm_names(file: StudyFile) -> Iterator[tuple[Location, str]]:
    """Every arm that something starts from."""
    for name, arm in file.arms.items():
        yield ("arms", name, "from"), arm.start
    for key, table in file.tables.items():
        at: Location = ("tables", key)
        yield (*at, "start_from"), table.start_from
        for name, column in table.columns.items():
            if column.start_from:
                yield (*at, "columns", name, "start_from"), column.start_from
        for index, row in enumerate(table.rows):
            if row.start_from:
                yield (*at, "rows", index, "start_from"), row.start_from


def recipe_names(file: StudyFile) -> Iterator[tuple[Location, str]]:
    """Every named recipe."""
    yield ("baseline", "recipe"), file.baseline.recipe
    for name, arm in file.arms.items():
        if arm.recipe:
            yield ("arms", name, "recipe"), arm.recipe


def _listed(at: Location, uses: tuple[Use, ...]) -> Iterator[tuple[Location, Use]]:
    for index, use in enumerate(uses):
        yield (*at, index, use.name), use
