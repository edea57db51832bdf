"""Checks every name in a study file: tricks, options, models, data sets, arms, recipes, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.study.catalogue import Catalogue, TrickEntry
from harness.study.changes import CHANGE_FIELDS, Changes
from harness.study.drafts import BASELINE
from harness.study.problems import Location, ProblemList, unknown
from harness.study.recipes import RECIPES
from harness.study.schema import Size, StudyFile, Table
from harness.study.uses import Use, fill_options

NEEDED_SIZES = ("mini", "gpu", "paper")


def check_sizes_exist(data: Any, problems: ProblemList) -> None:
    """Add the sizes that a study file, as read from YAML, does not have but must."""
    sizes = data.get("sizes") if isinstance(data, dict) else None
    if isinstance(sizes, dict):
        for size in NEEDED_SIZES:
            if size not in sizes:
                problems.add(("sizes",), f"missing size '{size}'; every study has {', '.join(NEEDED_SIZES)}")


def check_names(file: StudyFile, catalogue: Catalogue, problems: ProblemList) -> None:
    """Add every name that does not exist, and every option that its owner refuses, to `problems`."""
    if file.baseline.recipe not in RECIPES:
        problems.add(("baseline", "recipe"), unknown("recipe", file.baseline.recipe, RECIPES))
    if not file.tables:
        problems.add(("tables",), "the study has no tables")
    for name, size in file.sizes.items():
        _check_size(size, ("sizes", name), catalogue, problems)
    arms = {BASELINE, *file.arms}
    if BASELINE in file.arms:
        problems.add(("arms", BASELINE), f"'{BASELINE}' is the study's own baseline; choose another name")
    for at, arm in _arm_names(file):
        if arm not in arms:
            problems.add(at, unknown("arm", arm, arms))
    for at, use in _models(file):
        _attempt(at, problems, check_model, use, catalogue)
    for at, use in _tricks(file):
        _attempt(at, problems, trick_options, use, catalogue)
        _check_teacher(use, at, arms, catalogue, problems)
    for key, table in file.tables.items():
        _check_factors(table, ("tables", key, "factors"), catalogue, problems)


def trick_options(use: Use, catalogue: Catalogue) -> tuple[TrickEntry, dict[str, Any]]:
    """A trick's entry, and every option of it but `teacher`, in full.

    Raises:
        ValueError: the trick or an option does not exist, or a value is out of its range.
    """
    entry = catalogue.tricks.get(use.name)
    if entry is None:
        raise ValueError(unknown("trick", use.name, catalogue.tricks))
    if entry.needs_teacher:
        use = Use(use.name, tuple(pair for pair in use.options if pair[0] != "teacher"))
    options = fill_options("trick", use, entry.options)
    entry.validate(options)
    return entry, options


def needs_teacher(trick: str) -> str:
    """The mistake of a trick without its teacher, in words."""
    return f"trick '{trick}' needs a teacher: {{{trick}: {{teacher: NAME OF AN ARM}}}}"


def check_model(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the model or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.models.get(use.name)
    if entry is None:
        raise ValueError(unknown("model", use.name, catalogue.models))
    entry.validate(fill_options("model", use, entry.args))


def _check_size(size: Size, at: Location, catalogue: Catalogue, problems: ProblemList) -> None:
    data = catalogue.data.get(size.data.name)
    if data is None:
        problems.add((*at, "data"), unknown("data set", size.data.name, catalogue.data))
    else:
        _attempt((*at, "data"), problems, fill_options, "data set", size.data, data.args)
        for key, has in (("train_images", data.train_images), ("test_images", data.test_images)):
            asked = getattr(size, key)
            if asked is not None and has is not None and asked > has:
                problems.add((*at, key), f"{key}: {size.data.name} has {has}, {asked} were asked for")
    for name, args in size.models.items():
        _attempt((*at, "models", name), problems, check_model, Use(name, tuple(args.items())), catalogue)
    for field, instead in (("epochs", "epochs"), ("batch_size", "batch_scale")):
        if field in size.set.values():
            problems.add(
                (*at, "set", field), f"a size does not set {field}; it scales it by its key '{instead}'"
            )
    for name, replacement in size.replace.items():
        _attempt((*at, "replace", name), problems, trick_options, Use(name), catalogue)
        _attempt((*at, "replace", name, "by"), problems, trick_options, Use(replacement.by), catalogue)


def _check_teacher(
    use: Use, at: Location, arms: set[str], catalogue: Catalogue, problems: ProblemList
) -> None:
    entry = catalogue.tricks.get(use.name)
    if entry is None or not entry.needs_teacher:
        return
    teacher = dict(use.options).get("teacher")
    if teacher is None:
        problems.add(at, needs_teacher(use.name))
    elif teacher not in arms:
        problems.add(at, unknown("arm", str(teacher), arms))


def _check_factors(table: Table, at: Location, catalogue: Catalogue, problems: ProblemList) -> None:
    for name, levels in table.factors.items():
        if name in CHANGE_FIELDS:
            continue
        trick, dot, option = name.partition(".")
        entry = catalogue.tricks.get(trick)
        if entry is None:
            problems.add((*at, name), unknown("factor", name, {*CHANGE_FIELDS, *catalogue.tricks}))
        elif dot and not (entry.needs_teacher and option == "teacher"):
            for index, level in enumerate(levels):
                if level != "off":
                    here = (*at, name, index)
                    _attempt(here, problems, trick_options, Use(trick, ((option, level),)), catalogue)


def _tricks(file: StudyFile) -> Iterator[tuple[Location, Use]]:
    for name, arm in file.arms.items():
        yield from _listed(("arms", name, "add"), arm.add)
    for key, table in file.tables.items():
        at: Location = ("tables", key)
        yield from _listed((*at, "tricks"), table.tricks)
        for index, row in enumerate(table.rows):
            yield from _listed((*at, "rows", index, "add"), row.add)


def _listed(at: Location, uses: tuple[Use, ...]) -> Iterator[tuple[Location, Use]]:
    for index, use in enumerate(uses):
        yield (*at, index, use.name), use


def _models(file: StudyFile) -> Iterator[tuple[Location, Use]]:
    yield ("baseline", "model"), file.baseline.model
    yield from _model_of_set(("baseline", "set"), file.baseline.set)
    for name, size in file.sizes.items():
        yield from _model_of_set(("sizes", name, "set"), size.set)
    for name, arm in file.arms.items():
        if arm.model:
            yield ("arms", name, "model"), arm.model
        yield from _model_of_set(("arms", name, "set"), arm.set)
    for key, table in file.tables.items():
        at: Location = ("tables", key)
        for name, column in table.columns.items():
            if column.model:
                yield (*at, "columns", name, "model"), column.model
            yield from _model_of_set((*at, "columns", name, "set"), column.set)
        for index, row in enumerate(table.rows):
            yield from _model_of_set((*at, "rows", index, "set"), row.set)


def _model_of_set(at: Location, changes: Changes) -> Iterator[tuple[Location, Use]]:
    if changes.model is not None:
        yield (*at, "model"), changes.model


def _arm_names(file: StudyFile) -> Iterator[tuple[Location, str]]:
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


def _attempt(at: Location, problems: ProblemList, check: Callable[..., Any], *values: Any) -> None:
    try:
        check(*values)
    except ValueError as error:
        problems.add(at, str(error))
