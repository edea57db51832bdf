"""Checks every name in a study file: tricks, options, models, data sets, arms, recipes, sizes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from harness.study.catalogue import Catalogue
from harness.study.change_names import check_changes, check_factors, check_metrics
from harness.study.drafts import BASELINE
from harness.study.lookups import attempt, check_data, check_model, guarded, needs_arm, trick_options
from harness.study.mentions import all_changes, arm_names, model_uses, recipe_names, trick_uses
from harness.study.paper import METRICS
from harness.study.problems import Location, ProblemList, unknown
from harness.study.recipes import RECIPES
from harness.study.reserved import check_apart, check_files
from harness.study.schema import Size, StudyFile
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
    if not file.tables:
        problems.add(("tables",), "the study has no tables")
    for at, recipe in recipe_names(file):
        if recipe not in RECIPES:
            problems.add(at, unknown("recipe", recipe, RECIPES))
    check_files(file.study, file.sizes, tuple(file.tables), problems)
    _check_labels(file, problems)
    for name in file.sizes:
        _check_size(name, file, catalogue, problems)
    _check_arms(file, catalogue, problems)
    for at, use in model_uses(file):
        attempt(at, problems, check_model, use, catalogue)
    for at, use in trick_uses(file):
        attempt(at, problems, trick_options, use, catalogue)
    _check_own_code(file, catalogue, problems)
    for at, changes in all_changes(file):
        check_changes(changes, at, file, catalogue, problems)
    for key in file.tables:
        check_factors(key, file, catalogue, problems)


def _check_labels(file: StudyFile, problems: ProblemList) -> None:
    """Labels that a reader takes for one another."""
    check_apart([BASELINE, *file.arms], ("arms",), problems, case=True)
    for key, table in file.tables.items():
        check_apart([row.label for row in table.rows], ("tables", key, "rows"), problems, case=True)
        check_apart(list(table.columns), ("tables", key, "columns"), problems, case=True)


def _check_size(name: str, file: StudyFile, catalogue: Catalogue, problems: ProblemList) -> None:
    size, at = file.sizes[name], ("sizes", name)
    attempt((*at, "data"), problems, check_data, size.data, catalogue)
    _check_counts(size, at, catalogue, problems)
    for asked, used in size.datasets.items():
        attempt((*at, "datasets", asked), problems, check_data, used, catalogue)
    own = file.sizes["paper"].resolution if "paper" in file.sizes else size.resolution
    if size.resolutions.get(own, size.resolution) != size.resolution:
        problems.add(
            (*at, "resolutions", own),
            f"resolutions maps {own} to {size.resolutions[own]}, but those are the baseline's pixels,"
            f" for which this size's 'resolution' is {size.resolution}",
        )
    for model, args in size.models.items():
        attempt((*at, "models", model), problems, check_model, Use(model, tuple(args.items())), catalogue)
    for trick, replacement in size.replace.items():
        attempt((*at, "replace", trick), problems, trick_options, Use(trick), catalogue)
        attempt((*at, "replace", trick, "by"), problems, trick_options, Use(replacement.by), catalogue)


def _check_counts(size: Size, at: Location, catalogue: Catalogue, problems: ProblemList) -> None:
    entry = catalogue.data.get(size.data.name)
    if entry is None:
        return
    try:
        check_data(size.data, catalogue)
        args = fill_options("data set", size.data, entry.args)
        _, train_images, test_images = guarded(f"data set '{entry.name}'", entry.facts, args)
    except ValueError:  # said with the data set
        return
    for key, has in (("train_images", train_images), ("test_images", test_images)):
        asked = getattr(size, key)
        if asked is not None and has is not None and asked > has:
            problems.add((*at, key), f"{key}: {size.data.name} has {has}, {asked} were asked for")


def _check_arms(file: StudyFile, catalogue: Catalogue, problems: ProblemList) -> None:
    arms = {BASELINE, *file.arms}
    if BASELINE in file.arms:
        problems.add(("arms", BASELINE), f"'{BASELINE}' is the study's own baseline; choose another name")
    for at, arm in arm_names(file):
        if arm not in arms:
            problems.add(at, unknown("arm", arm, arms))
    for at, use in trick_uses(file):
        entry = catalogue.tricks.get(use.name)
        for option in entry.arms if entry else ():
            named = dict(use.options).get(option)
            if named is None:
                problems.add(at, needs_arm(use.name, option))
            elif named not in arms:
                problems.add(at, unknown("arm", str(named), arms))


def _check_own_code(file: StudyFile, catalogue: Catalogue, problems: ProblemList) -> None:
    for index, plugin in enumerate(file.plugins):
        if PurePosixPath(plugin).name not in catalogue.plugin_hashes:
            problems.add(("plugins", index), f"the plugin '{plugin}' was not loaded")
    check_metrics(file.metrics, ("metrics",), catalogue, problems)
    if file.metric not in METRICS and file.metric not in catalogue.metrics:
        problems.add(("metric",), unknown("metric", file.metric, (*METRICS, *catalogue.metrics)))
