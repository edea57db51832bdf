"""Checks what the values of `set` and of a grid's factors name: models, data sets, metrics, trainers."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from harness.study.catalogue import Catalogue
from harness.study.changes import CHANGE_FIELDS, DATA_FIELDS, Changes
from harness.study.lookups import attempt, check_data, check_model, trick_options
from harness.study.paper import METRICS
from harness.study.problems import Location, ProblemList, unknown
from harness.study.schema import StudyFile
from harness.study.uses import Use

NAMING = frozenset({"model", "data", "metrics", "trainer"})  # fields whose values are names
SCALED = {"epochs": "epochs", "batch_size": "batch_scale"}  # field -> the key of a size that scales it


def check_changes(
    changes: Changes, at: Location, file: StudyFile, catalogue: Catalogue, problems: ProblemList
) -> None:
    """Add what is wrong with a `set`, but its model, which `mentions.model_uses` yields."""
    for field in changes.model_fields_set:
        if at[0] == "sizes" and field in SCALED:
            message = f"a size does not set {field}; it scales it by its key '{SCALED[field]}'"
            problems.add((*at, field), message)
        elif at[0] in ("sizes", "baseline") and field in DATA_FIELDS:
            problems.add((*at, field), f"the baseline's {field} is the key '{field}' of each size")
    check_metrics(changes.metrics or (), (*at, "metrics"), catalogue, problems)
    if changes.trainer is not None and changes.trainer not in catalogue.trainers:
        problems.add((*at, "trainer"), unknown("trainer", changes.trainer, catalogue.trainers))
    if changes.data is not None and not all(
        changes.data.name in size.datasets for size in file.sizes.values()
    ):
        attempt((*at, "data"), problems, check_data, changes.data, catalogue)


def check_metrics(names: tuple[str, ...], at: Location, catalogue: Catalogue, problems: ProblemList) -> None:
    """Add every name that is not a metric of a plugin."""
    for index, name in enumerate(names):
        if name in (*METRICS, "loss"):
            problems.add((*at, index), f"{name} is always measured; 'metrics' names those of plugins")
        elif name not in catalogue.metrics:
            problems.add((*at, index), unknown("metric of a plugin", name, catalogue.metrics))


def check_factors(key: str, file: StudyFile, catalogue: Catalogue, problems: ProblemList) -> None:
    """Add every factor of a table that is neither a field nor a trick, and every level that names nothing."""
    for name, levels in file.tables[key].factors.items():
        at: Location = ("tables", key, "factors", name)
        trick, dot, option = name.partition(".")
        entry = catalogue.tricks.get(trick)
        for index, level in enumerate(levels):
            if name in NAMING:
                _check_level({name: level}, (*at, index), file, catalogue, problems)
            elif entry is not None and dot and option not in entry.arms and level != "off":
                use = Use(trick, ((option, level),))
                attempt((*at, index), problems, trick_options, use, catalogue)
        if entry is None and name not in CHANGE_FIELDS:
            problems.add(at, unknown("factor", name, {*CHANGE_FIELDS, *catalogue.tricks}))


def _check_level(
    change: dict[str, Any], at: Location, file: StudyFile, catalogue: Catalogue, problems: ProblemList
) -> None:
    try:
        changes = Changes.model_validate(change)
    except ValidationError:  # said where the rows of the grid are made
        return
    check_changes(changes, at, file, catalogue, problems)
    if changes.model is not None:
        attempt(at, problems, check_model, changes.model, catalogue)
