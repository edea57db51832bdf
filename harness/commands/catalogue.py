"""Every name a study may use, gathered from the tables of tricks, models and data sets; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data import DATASETS
from harness.models import MODELS, validate_model
from harness.models.costs import lookup
from harness.study.catalogue import Catalogue, Cost, DataEntry, ModelEntry, TrickEntry
from harness.study.spec import DataSpec, ModelSpec, Recipe
from harness.tricks import TRICKS
from harness.tricks.base import Trick
from harness.tricks.build import describe, make, validate

CLASSES_IF_UNKNOWN = 1000  # an image folder that is not on this machine: cost is quoted for ImageNet's head


def build_catalogue(data_dir: Path) -> Catalogue:
    """The catalogue of this installation; `data_dir` holds the user's own data sets."""
    data = {name: _data_entry(name, data_dir) for name in DATASETS}

    def cost(model: ModelSpec, spec: DataSpec) -> Cost:
        classes = data[spec.name].classes or CLASSES_IF_UNKNOWN
        params, macs = lookup(model.name, model.args, resolution=spec.resolution, classes=classes)
        return Cost(params=params, macs=macs)

    return Catalogue(
        tricks={name: _trick_entry(name) for name in TRICKS},
        models={name: _model_entry(name) for name in MODELS},
        data=data,
        cost=cost,
    )


def _trick_entry(name: str) -> TrickEntry:
    trick = TRICKS[name]
    about = describe(trick)

    def check(options: Mapping[str, Any]) -> None:
        validate(trick, options)

    made: dict[str, Trick] = {}  # a study asks for few settings of a trick, many times

    def edit_recipe(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
        setting = repr(options)
        if setting not in made:
            made[setting] = make(name, options)
        edited: Recipe = made[setting].edit_recipe(recipe)
        return edited

    return TrickEntry(
        name=name,
        options=about["options"],
        conflicts=frozenset(about["conflicts"]),
        needs_teacher=about["needs_teacher"],
        acts_in_training=about["acts_in_training"],
        validate=check,
        edit_recipe=edit_recipe,
        edits_recipe="edit_recipe" in about["hooks"],
    )


def _model_entry(name: str) -> ModelEntry:
    def check(args: Mapping[str, Any]) -> None:
        validate_model(name, args)

    return ModelEntry(name=name, args=MODELS[name].args, validate=check)


def _data_entry(name: str, data_dir: Path) -> DataEntry:
    entry = DATASETS[name]

    def missing(args: Mapping[str, Any]) -> str | None:
        return entry.missing(args, data_dir)

    return DataEntry(
        name=name,
        args=entry.args,
        classes=entry.classes,
        train_images=entry.train_images,
        test_images=entry.test_images,
        missing=missing,
        for_reports=entry.for_reports,
    )
