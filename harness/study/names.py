"""Every name in a study file: that it is known, and the plugins that it may come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import Location, Problem, ProblemList, StudyError, shortened, unknown
from harness.spec import ACCURACIES, Recipe, sha256_of
from harness.study.catalogue import (
    RECIPES,
    Catalogue,
    Use,
    attempt,
    check_data,
    fill_options,
    guarded,
    needs_arm,
    trick_options,
)
from harness.study.reserved import check_apart, check_files
from harness.study.rows import BASELINE
from harness.study.schema import ALL, CHANGE_FIELDS, DATA_FIELDS, Changes, Replacement, Size, StudyFile
from harness.study.yaml import YamlFile, read_source, read_text, read_value

# Checks what the values of `set` and of a grid's factors name: models, data sets, metrics, trainers.


NAMING = frozenset({"model", "data", "metrics", "trainer"})  # fields whose values are names
SCALED = {"epochs": "epochs", "batch_size": "batch_scale"}  # field -> the key of a size that scales it


def check_changes(
    changes: Changes, at: Location, file: StudyFile, catalogue: Catalogue, problems: ProblemList
) -> None:
    """Add what is wrong with a `set`, but its model, which `mentions.model_uses` yields."""
    for field in changes.given:
        of_size = at[0] == "sizes" and at[2] == "set"
        if of_size and field in SCALED:
            message = f"a size does not set {field}; it scales it by its key '{SCALED[field]}'"
            problems.add((*at, field), message)
        elif (of_size or at[0] == "baseline") and field in DATA_FIELDS:
            problems.add((*at, field), f"the baseline's {field} is the key '{field}' of each size")
    check_metrics(changes.metrics or (), (*at, "metrics"), catalogue, problems)
    if changes.trainer is not None and changes.trainer not in catalogue.trainers:
        problems.add((*at, "trainer"), unknown("trainer", changes.trainer, catalogue.trainers))
    if changes.data is not None and not all(
        changes.data.name in size.datasets for size in file.sizes.values()
    ):
        attempt((*at, "data"), problems, check_data, changes.data, catalogue)


def check_metrics(names: tuple[str, ...], at: Location, catalogue: Catalogue, problems: ProblemList) -> None:
    """Add every name that is no metric that may be asked for."""
    for index, name in enumerate(names):
        if name in (*ACCURACIES, "loss"):
            problems.add((*at, index), f"{name} is always measured; 'metrics' names others")
        elif name not in catalogue.metrics:
            problems.add((*at, index), unknown("metric", name, catalogue.metrics))


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
        changes = Changes.read(change)
    except ValueError:  # said where the rows of the grid are made
        return
    check_changes(changes, at, file, catalogue, problems)
    if changes.model is not None:
        attempt(at, problems, check_model, changes.model, catalogue)


# A model, and the weights that it starts from.


WEIGHTS, PRETRAINED = "weights", "pretrained"  # options of every model


def check_model(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the model or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.models.get(use.name)
    if entry is None:
        raise ValueError(unknown("model", use.name, catalogue.models))
    use = start_of(use, catalogue)[0]
    args = fill_options("model", use, entry.args)
    guarded(f"checking the arguments of model '{use.name}'", entry.validate, args)


def start_of(use: Use, catalogue: Catalogue) -> tuple[Use, str]:
    """The model without what is said of the weights that it starts from, and `ModelSpec.weights`.

    Raises:
        ValueError: they are not there, or an option does not exist.
    """
    entry, said = catalogue.models[use.name], dict(use.options)
    own = {name: said[name] for name in said if name in entry.args or name not in (WEIGHTS, PRETRAINED)}
    for name in own:
        if name not in entry.args:
            options = {*entry.args, WEIGHTS, PRETRAINED}
            raise ValueError(f"model '{use.name}': {unknown('option', name, options)}")
    if len(own) == len(said):
        return use, ""
    file, pretrained = (None if name in own else said.get(name) for name in (WEIGHTS, PRETRAINED))
    bare = Use(use.name, tuple(own.items()))
    if pretrained not in (None, True, False):
        raise ValueError(f"model '{use.name}': pretrained must be true or false, got {pretrained!r}")
    if file is None and not pretrained:
        return bare, ""
    if pretrained and file is not None:
        raise ValueError(f"model '{use.name}': weights name a file, or pretrained is true, not both")
    if file is not None and (not isinstance(file, str) or not file.strip()):
        raise ValueError(f"model '{use.name}': weights must be the name of a file, got {file!r}")
    return bare, catalogue.weights(use.name, file)


def check_start(recipe: Recipe, *, has_source: bool) -> None:
    """Refuse what would have no effect, or another than it says.

    Raises:
        ValueError: the weights are said twice, or something about them is not used.
    """
    weights, tuned = recipe.model.weights, recipe.freeze or recipe.lr_scale
    if weights and has_source:
        raise ValueError("its model starts from a file of weights and the trick from a source; take one away")
    if weights and recipe.model.args.get("zero_gamma"):
        raise ValueError("zero_gamma says how a training starts, and the weights of its model say it too")
    if (weights or tuned) and recipe.trainer != "harness":
        what = "weights" if weights else "freeze" if recipe.freeze else "lr_scale"
        raise ValueError(f"the trainer '{recipe.trainer}' builds its own network: {what} would not reach it")


# Where a study file names something: every place with what stands there.


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
        for of_arm, changes in size.arms.items():
            yield ("sizes", name, "arms", of_arm), changes
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


# Checks every name in a study file: tricks, options, models, data sets, arms, recipes, sizes.


LONGEST_SAID = 60  # characters of a name that say what was changed
OF_SIZE = ("data", "resolution", "epochs", "batch_scale", "rate_scale", "train_images", "test_images")


def change_source(source: YamlFile, changes: Sequence[str], size: str) -> None:
    """Write what `--set KEY=VALUE` says where the study would say it: into a size, or without sizes into the
    baseline's `set`. The study gets a name of its own, so that its records and its report stay what they are.

    size: the one that is meant. The values are checked with the rest of the file.

    Raises:
        StudyError: no KEY=VALUE, a key that cannot be set, or one that is set twice.
    """
    sizes = source.data.get("sizes")
    place, problems = _place_of_changes(source.data, size), []
    valid = {*CHANGE_FIELDS, *(OF_SIZE if sizes else ())} - (SCALED.keys() - {"epochs"} if sizes else set())
    seen: set[str] = set()
    for change in changes:
        name, sign, text = change.partition("=")
        kind = (Size if sizes and name in OF_SIZE else Changes)._keys.get(name)
        if not sign or kind is None or name not in valid or name in seen:
            why = unknown("key", name, valid) if sign else "write it as KEY=VALUE, such as epochs=3"
            why = f"{name} is set twice" if name in seen else why
            problems.append(Problem("--set", 0, why))
            continue
        seen.add(name)
        try:
            value = read_value(text)
            kind[1](value)
        except ValueError as error:
            problems.append(Problem(f"--set {shortened(change)}", 0, f"{name} {_in_words(error)}"))
            continue
        own = place if sizes and name in OF_SIZE else place.setdefault("set", {})
        if isinstance(own, dict):  # else the file itself is wrong, which is said of it
            own[name] = value
    if problems:
        raise StudyError(problems)
    source.data["study"] = name_of_changes(str(source.data.get("study")), changes)


def _place_of_changes(data: Any, size: str) -> dict[str, Any]:
    """The map that holds `set`; an empty one where the file has none, which is said when it is checked."""
    sizes = data.get("sizes")
    of_size = sizes.get(size) if isinstance(sizes, dict) else None
    found = of_size if sizes else data.get("baseline")
    return found if isinstance(found, dict) else {}


def _in_words(error: ValueError) -> str:
    mistakes = getattr(error, "mistakes", ())
    return mistakes[0].says if mistakes and mistakes[0].says else str(error)


def name_of_changes(study: str, changes: Sequence[str]) -> str:
    """The name of a study with these changes.

    >>> name_of_changes("mixup", ["epochs=3", "lr=0.1"])
    'mixup-set-epochs-3-lr-0-1'
    """
    said = "-".join(re.findall("[a-z0-9_]+", "-".join(sorted(changes)).lower()))
    if len(said) > LONGEST_SAID:
        said = f"{said[:LONGEST_SAID]}-{sha256_of(said.encode())[:8]}"
    return f"{study}-set-{said}"


def with_own_size(file: StudyFile, source: YamlFile, problems: ProblemList) -> StudyFile | None:
    """A study without `sizes`, with the one that its baseline says; None where that has no data."""
    own = file.baseline.set.values()
    missing = [name for name in ("data", "resolution") if name not in own]
    if missing or file.baseline.recipe not in RECIPES:
        for name in missing:
            text = f"a study without 'sizes' says its {name} here: set: {{data: cifar10, resolution: 32}}"
            problems.add(("baseline", "set"), f"missing key '{name}' (in baseline.set); {text}")
        if not missing:
            problems.add(("baseline", "recipe"), unknown("recipe", file.baseline.recipe, RECIPES))
        return None
    data, resolution = own.pop("data"), own.pop("resolution")
    for place in ("data", "resolution"):
        source.lines["sizes", ALL, place] = source.line(("baseline", "set", place))
    epochs = file.baseline.set.epochs or RECIPES[file.baseline.recipe]["epochs"]
    size = Size(data=data, resolution=resolution, epochs=float(epochs))
    return file.but(sizes={ALL: size}, baseline=file.baseline.but(set=Changes(**own)))


def check_names(
    file: StudyFile, catalogue: Catalogue, problems: ProblemList, sizes: Iterable[str] | None = None
) -> None:
    """Add every name that does not exist, and every option that its owner refuses, to `problems`.

    sizes: whose names are looked at; None: all.
    """
    if not file.tables:
        problems.add(("tables",), "the study has no tables")
    for at, recipe in recipe_names(file):
        if recipe not in RECIPES:
            problems.add(at, unknown("recipe", recipe, RECIPES))
    check_files(file.study, file.sizes, tuple(file.tables), problems)
    _check_labels(file, problems)
    for name in file.sizes if sizes is None else sizes:
        if name in file.sizes:
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
    """Labels that a reader takes for one another, and tables that are named."""
    for index, named in enumerate(file.priority):
        if named not in file.tables:
            problems.add(("priority", index), unknown("table", named, file.tables))
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
    for arm in size.arms:
        if arm == BASELINE:
            problems.add((*at, "arms", arm), "what the baseline has at this size is the size's own 'set'")
        elif arm not in file.arms:
            problems.add((*at, "arms", arm), unknown("arm", arm, file.arms))
    for trick, replacement in size.replace.items():
        attempt((*at, "replace", trick), problems, trick_options, Use(trick), catalogue)
        _check_replacement(trick, replacement, (*at, "replace", trick), catalogue, problems)


def _check_replacement(
    trick: str, replacement: Replacement, at: Location, catalogue: Catalogue, problems: ProblemList
) -> None:
    entry = catalogue.tricks.get(trick)
    for option in replacement.options:
        if entry and option in entry.arms:
            problems.add((*at, "options", option), f"the {option} is an arm, which rows name, not a size")
    where = "options" if replacement.by is None else "by"
    attempt((*at, where), problems, trick_options, replacement.of(Use(trick)), catalogue)


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
    places: dict[Location, str | None] = {("metric",): file.metric}
    places |= {("sizes", name, "metric"): size.metric for name, size in file.sizes.items()}
    for at, metric in places.items():
        if metric is not None and metric not in ACCURACIES and metric not in catalogue.metrics:
            problems.add(at, unknown("metric", metric, (*ACCURACIES, *catalogue.metrics)))


# Which files of the user's own code a study names, read before anything else of the study is checked.


KEY = "plugins"
GROUP = "harness.plugins"  # of the entry points of installed packages
LONGEST_PATH = 200  # bytes; file systems take 255 of a name
PACKAGE = r"[A-Za-z][A-Za-z0-9_-]*"  # the name of an entry point


def study_plugins(path: Path) -> tuple[Path, ...]:
    """The plugins of a study, in the order of its key `plugins`; nothing in them is run.

    Files stand beside the study file or in a folder below it. A name without `.py` is that of an installed
    package, and is given back as it is.

    Raises:
        StudyError: the study cannot be read, the key is not a list of such files, or one does not exist.
    """
    if KEY not in read_text(path):  # the file need not be parsed for them
        return ()
    unreadable: list[Problem] = []  # said when the whole study is loaded
    source = read_source(path, unreadable)
    given = source.data.get(KEY) if isinstance(source.data, dict) else None
    if given is None:
        return ()
    problems = source.problem_list()
    if not isinstance(given, list):
        problems.add((KEY,), f"{KEY} must be a list of file names such as [my_lab.py], got {given!r}")
        given = []
    found: dict[str, Path] = {}
    for index, name in enumerate(given):
        file = _file(path.parent, name, (KEY, index), problems)
        if file is not None and file.name in found:
            problems.add((KEY, index), f"two plugins are called '{file.name}'; results name them by that")
        elif file is not None:
            found[file.name] = file
    problems.raise_if_any()
    return tuple(found.values())


def _file(folder: Path, name: Any, at: tuple[str, int], problems: ProblemList) -> Path | None:
    if isinstance(name, str) and re.fullmatch(PACKAGE, name):
        return _package(name, at, problems)
    wrong = _wrong(name)
    if wrong is not None:
        problems.add(at, wrong)
        return None
    file: Path = folder / name
    if not file.is_file():
        beside = [each.name for each in file.parent.glob("*.py")] if file.parent.is_dir() else []
        problems.add(at, f"no such file; {unknown('plugin', name, beside)}")
        return None
    if not file.resolve().is_relative_to(folder.resolve()):
        outside = f"'{name}' is a link to {file.resolve()}, outside the study's folder"
        problems.add(at, f"{outside}; a plugin stands beside the study or below it: copy the file there")
        return None
    return file


def _package(name: str, at: tuple[str, int], problems: ProblemList) -> Path | None:
    from importlib.metadata import entry_points

    offered = {each.name for each in entry_points(group=GROUP)}
    if name not in offered:
        valid = unknown("plugin", name, offered)
        problems.add(at, f"{valid} of installed packages (group {GROUP}); a file's name ends in .py")
        return None
    return Path(name)


def _wrong(name: Any) -> str | None:
    """What is wrong with the name of a file; None: nothing."""
    if not isinstance(name, str) or not name.endswith(".py"):
        return f"a plugin is a Python file such as my_lab.py, or an installed package, got {name!r}"
    if len(name.encode()) > LONGEST_PATH:
        return f"the name of a plugin has at most {LONGEST_PATH} bytes, got '{shortened(name)}'"
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        return f"a plugin stands beside the study or below it, given by a relative path; got '{name}'"
    return None
