"""Every name a study may use, gathered from the tables of tricks, models and data sets; without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data import DATASETS
from harness.data.entry import Entry, Facts
from harness.models import MODELS, VARIANTS, Model, find
from harness.models.costs import lookup
from harness.models.zoo import is_zoo_name
from harness.plugins import METRICS, TRAINERS, Plugin, use
from harness.study.catalogue import Catalogue, Cost, DataEntry, ModelEntry, TrickEntry
from harness.study.spec import DataSpec, ModelSpec, Recipe
from harness.tricks import TRICKS
from harness.tricks.base import Trick
from harness.tricks.build import describe, instantiate, validate

CLASSES_IF_UNKNOWN = 1000  # an image folder that is not on this machine: cost is quoted for ImageNet's head


def build_catalogue(data_dir: Path, plugins: Sequence[Plugin] = ()) -> Catalogue:
    """The catalogue of this installation; `data_dir` holds the user's own data sets.

    `plugins` are those of one study: until the next catalogue is built, this process knows their names and
    no other plugin's.

    Raises:
        PluginError: two of them use the same name.
    """
    use(plugins)
    files = _files(plugins)
    data = {
        name: replace(_data_entry(entry, data_dir), plugin=files.get(("DATASETS", name)))
        for name, entry in DATASETS.items()
    }

    def cost(model: ModelSpec, spec: DataSpec) -> Cost:
        classes = data[spec.name].facts(spec.args)[0] or CLASSES_IF_UNKNOWN
        params, macs = lookup(model.name, model.args, resolution=spec.resolution, classes=classes)
        return Cost(params=params, macs=macs)

    return Catalogue(
        tricks={
            name: replace(_trick_entry(trick), plugin=files.get(("TRICKS", name)))
            for name, trick in TRICKS.items()
        },
        models=_Models({name: file for (table, name), file in files.items() if table == "MODELS"}),
        data=data,
        cost=cost,
        trainers={"harness": None, **{name: files["TRAINERS", name] for name in TRAINERS}},
        metrics={name: files["METRICS", name] for name in METRICS},
        plugin_hashes={plugin.name: plugin.sha256 for plugin in plugins},
    )


def _files(plugins: Sequence[Plugin]) -> dict[tuple[str, str], str]:
    """(table, name) -> the file of the plugin that adds the name."""
    return {
        (table, name): plugin.name
        for plugin in plugins
        for table, names in plugin.tables.names().items()
        for name in names
    }


class _Models(Mapping[str, ModelEntry]):
    """The families and their variants. A name of a library is looked up when it is asked for, and not listed.

    Asking for a network that its library does not have is a ValueError in words.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._entries = {name: self._entry(name, model, {}) for name, model in MODELS.items()}

    def __getitem__(self, name: str) -> ModelEntry:
        found = self._entries.get(name)
        if found is None:
            family, preset = VARIANTS.get(name, (name, {}))
            if family not in MODELS and not is_zoo_name(family):
                raise KeyError(name)
            found = self._entries[name] = self._entry(name, find(family), preset)
        return found

    def _entry(self, name: str, model: Model, preset: Mapping[str, Any]) -> ModelEntry:
        return replace(_model_entry(name, model, preset), plugin=self._files.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*MODELS, *VARIANTS)))

    def __len__(self) -> int:
        return len(MODELS) + len(VARIANTS)


def _trick_entry(trick: type[Trick]) -> TrickEntry:
    about = describe(trick)

    def check(options: Mapping[str, Any]) -> None:
        validate(trick, options)

    made: dict[str, Trick] = {}  # a study asks for few settings of a trick, many times

    def setting(options: Mapping[str, Any]) -> Trick:
        key = repr(options)
        if key not in made:
            made[key] = instantiate(trick, options)
        return made[key]

    def edit_recipe(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
        edited: Recipe = setting(options).edit_recipe(recipe)
        return edited

    return TrickEntry(
        name=trick.name,
        options=about["options"],
        conflicts=frozenset(about["conflicts"]),
        acts_in_training=about["acts_in_training"],
        validate=check,
        edit_recipe=edit_recipe,
        edits_recipe="edit_recipe" in about["hooks"],
        arms=trick.arms,
        observes=trick.observes,
        members=lambda options: setting(options).member_counts(),
    )


def _model_entry(name: str, model: Model, preset: Mapping[str, Any]) -> ModelEntry:
    return ModelEntry(
        name=name,
        args=model.args,
        validate=model.validate,
        family=model.name,
        preset=preset,
        minimum_input=model.minimum_input,
        rule=model.rule,
        own_initialisation=model.own_initialisation,
    )


def _data_entry(entry: Entry, data_dir: Path) -> DataEntry:
    def missing(args: Mapping[str, Any]) -> str | None:
        return entry.missing(args, data_dir)

    counted: dict[str, int | None] = {}  # the folder is listed once per plan

    def facts(args: Mapping[str, Any]) -> Facts:
        classes, train, test = entry.facts(args)
        if classes is None:
            key = repr(sorted(args.items()))
            if key not in counted:
                counted[key] = _classes_here(entry, {**entry.args, **args}, data_dir)
            classes = counted[key]
        return classes, train, test

    return DataEntry(
        name=entry.name,
        args=entry.args,
        classes=entry.classes,
        train_images=entry.train_images,
        test_images=entry.test_images,
        missing=missing,
        validate=entry.validate,
        for_reports=entry.for_reports,
        counts=facts,
        said_if_set=entry.said_if_set,
    )


def _classes_here(entry: Entry, args: Mapping[str, Any], data_dir: Path) -> int | None:
    """The number of classes of the user's own files; None where they are not here or not in order yet."""
    try:
        return entry.count_classes(args, data_dir) if entry.missing(args, data_dir) is None else None
    except (OSError, ValueError):  # said when a run reads them
        return None
