"""From what a row asks for to the arm that answers it at one size.

The order, everything in the paper's units until the last step: named recipe, study baseline, the size's
`set`, column, named arm, row, tricks in the order listed, then the size's scale. Tricks that only edit the
recipe end as its numbers, so that rows that come to the same numbers share one arm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from harness.study.canonical import CanonicalText
from harness.study.catalogue import Catalogue, Cost
from harness.study.changes import AUGMENT_FIELDS, check_optimizer
from harness.study.drafts import Draft, Study
from harness.study.recipes import RECIPES
from harness.study.schema import Size
from harness.study.sizes import Scale, scaled_recipe
from harness.study.spec import Arm, DataSpec, ModelSpec, Recipe
from harness.study.trick_sets import TrickSet, TrickSets, Unusable
from harness.study.uses import Use, fill_options, like

_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))
_values = attrgetter(*_FIELDS)


class ArmError(ValueError):
    """What is wrong with a named arm, found through a row that needs it."""

    def __init__(self, arm: str, message: str) -> None:
        super().__init__(message)
        self.arm = arm


class Resolver:
    """Drafts to arms at one size. `arms` collects every arm that was asked for, teachers first.

    names_are_wrong: some names of the study were reported as mistakes, so that lookups may fail.
    """

    def __init__(self, study: Study, catalogue: Catalogue, size: Size, *, names_are_wrong: bool) -> None:
        file = study.file
        self.arms: dict[str, Arm] = {}
        self.costs: dict[str, Cost] = {}
        self.teachers: dict[str, str] = {}  # arm_id -> the name of the arm in the file
        self.catalogue, self._study, self._size = catalogue, study, size
        self._names_are_wrong = names_are_wrong
        self._tricks = TrickSets(catalogue, size, names_are_wrong=names_are_wrong)
        self._text = CanonicalText()
        own: dict[str, Any] = {**RECIPES[file.baseline.recipe], **_numbers(file.baseline.set.values())}
        self.scale = Scale(epochs=size.epochs, baseline_epochs=float(own["epochs"]), batch=size.batch_scale)
        self._baseline_model = file.baseline.set.model or file.baseline.model
        self._baseline_model = size.set.model or self._baseline_model
        self._fields = {**own, **_numbers(size.set.values())}
        self._fields["augment"] = dataclasses.replace(own["augment"], **_augment(file.baseline.set.values()))
        self._fields["augment"] = dataclasses.replace(self._fields["augment"], **_augment(size.set.values()))
        self._fields["data"] = self._data()
        self._models: dict[Use, ModelSpec] = {}
        self._built: dict[Any, tuple[ModelSpec, Cost]] = {}
        self._unedited: dict[int, tuple[ModelSpec, Cost]] = {}  # by the id of an object in `_models`
        self._same: dict[Any, Any] = {}
        self._optimizers: dict[tuple[str, int], Any] = {}

    def arm_id(self, draft: Draft) -> tuple[str, tuple[str, ...]]:
        """The arm's id and the names of the tricks that are on.

        Raises:
            ValueError: this combination is impossible at this size (ArmError: that of its teacher is).
            Unusable: it uses a name that is already reported.
        """
        tricks = self._tricks.find(draft.tricks)
        teacher = self._teacher(tricks.teacher)
        recipe, cost = self._recipe(draft, tricks)
        arm = Arm(recipe=recipe, tricks=tricks.acting, teacher=teacher)
        arm_id = self._text.arm_id(arm)
        if arm_id not in self.arms:
            self.arms[arm_id] = arm
            self.costs[arm_id] = cost
        return arm_id, tricks.names

    @property
    def replaced(self) -> frozenset[str]:
        """Tricks for which the size's stand-in was used."""
        return frozenset(self._tricks.replaced)

    def baseline(self) -> Recipe:
        """The study's baseline at this size. Raises as `arm_id`."""
        return self._recipe(Draft(), self._tricks.find(()))[0]

    def _recipe(self, draft: Draft, tricks: TrickSet) -> tuple[Recipe, Cost]:
        fields = {**self._fields, **draft.changes}
        if not AUGMENT_FIELDS.isdisjoint(draft.changes):
            changes = {name: fields.pop(name) for name in AUGMENT_FIELDS & draft.changes.keys()}
            augment = dataclasses.replace(fields["augment"], **changes)
            fields["augment"] = self._same.setdefault(augment, augment)
        fields["model"] = self._model(draft.model or self._baseline_model)
        if tricks.edits:
            recipe = Recipe(**fields)
            for edit, options in tricks.edits:
                recipe = edit(recipe, options)
            fields = dict(zip(_FIELDS, _values(recipe), strict=True))
        fields["model"], cost = self._priced(fields["model"])
        if (fields["optimizer"], id(fields["optimizer_args"])) not in self._optimizers:
            check_optimizer(fields["optimizer"], fields["optimizer_args"])
            self._optimizers[fields["optimizer"], id(fields["optimizer_args"])] = fields["optimizer_args"]
        return scaled_recipe(fields, self.scale), cost

    def _teacher(self, name: str | None) -> str | None:
        if name is None:
            return None
        draft = self._study.arms.get(name)
        if draft is None:
            raise Unusable
        try:
            arm_id, _ = self.arm_id(draft)
        except ArmError:
            raise
        except ValueError as error:
            raise ArmError(name, str(error)) from None
        self.teachers.setdefault(arm_id, name)
        return arm_id

    def _model(self, use: Use) -> ModelSpec:
        found = self._models.get(use)
        if found is None:
            entry = self.catalogue.models.get(use.name)
            if entry is None:
                raise Unusable
            of_size = self._size.models.get(use.name, {})
            given = Use(use.name, (*of_size.items(), *use.options))
            try:
                args = fill_options("model", given, entry.args)
                entry.validate(args)
            except ValueError:
                if self._names_are_wrong:
                    raise Unusable from None
                raise
            found = self._models[use] = ModelSpec(name=use.name, args=args)
        return found

    def _priced(self, model: ModelSpec) -> tuple[ModelSpec, Cost]:
        """One object per architecture, after tricks have edited it, and its cost."""
        found = self._unedited.get(id(model))
        if found is not None:
            return found
        key = (model.name, *model.args.items())
        found = self._built.get(key)
        if found is None:
            entry = self.catalogue.models[model.name]
            unknown_args = model.args.keys() - entry.args.keys()
            if unknown_args:
                raise ValueError(f"model '{model.name}' has no argument {', '.join(sorted(unknown_args))}")
            args = {name: like(value, entry.args[name]) for name, value in model.args.items()}
            entry.validate(args)
            same = ModelSpec(name=model.name, args=args)
            found = self._built[key] = (same, self.catalogue.cost(same, self._fields["data"]))
        if self._models.get(Use(model.name)) is model:
            self._unedited[id(model)] = found
        return found

    def _data(self) -> DataSpec:
        size = self._size
        entry = self.catalogue.data.get(size.data.name)
        if entry is None:
            raise Unusable
        try:
            args = fill_options("data set", size.data, entry.args)
        except ValueError:
            raise Unusable from None  # reported with the names
        return DataSpec(
            name=size.data.name,
            resolution=size.resolution,
            train_images=size.train_images,
            test_images=size.test_images,
            args=args,
        )


def _numbers(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name not in AUGMENT_FIELDS and name != "model"}


def _augment(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name in AUGMENT_FIELDS}
