"""What a draft asks for as fields of a recipe, in the paper's units and before tricks edit it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.study.architectures import Architectures
from harness.study.changes import AUGMENT_FIELDS, DATA_FIELDS
from harness.study.drafts import Draft
from harness.study.inputs import Inputs
from harness.study.paper import METRICS
from harness.study.recipes import RECIPES
from harness.study.schema import Size, StudyFile
from harness.study.spec import ModelSpec, Recipe

OWN = "own"  # the initialisation that a model's constructor does
_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    for field in dataclasses.fields(Recipe)
    if field.name not in ("model", "data")
}


class Fields:
    """The fields of drafts at one size: named recipe, study baseline, the size's `set`, the draft's changes.

    An arm with a named recipe of its own starts from that one, without what the study's baseline sets.
    """

    def __init__(self, file: StudyFile, size: Size, inputs: Inputs, architectures: Architectures) -> None:
        self._file, self._size = file, size
        self._inputs, self._architectures = inputs, architectures
        self._starts: dict[str | None, dict[str, Any]] = {}  # named recipe -> its fields at this size
        self._same: dict[Any, Any] = {}
        self.baseline_epochs = float(self._own(None)["epochs"])

    def of(self, draft: Draft) -> dict[str, Any]:
        """Every field of the recipe that the draft asks for.

        Raises:
            ValueError: arguments of its model do not fit.
            Unusable: its model is already reported as a mistake.
        """
        changes = draft.changes
        fields = {**self._start(draft.recipe), **changes}
        if not AUGMENT_FIELDS.isdisjoint(changes):
            own = {name: fields.pop(name) for name in AUGMENT_FIELDS & changes.keys()}
            augment = dataclasses.replace(fields["augment"], **own)
            fields["augment"] = self._same.setdefault(augment, augment)
        if not DATA_FIELDS.isdisjoint(changes):
            fields.pop("resolution", None)
            fields["data"] = self._inputs.asked(changes.get("data"), changes.get("resolution"))
        if draft.model is not None:
            model = fields["model"] = self._architectures.find(draft.model)
            if "initialisation" not in changes:
                fields["initialisation"] = self._initialisation(model, draft.recipe)
        return fields

    def _initialisation(self, model: ModelSpec, recipe: str | None) -> str:
        """What the recipe declares; a library's network keeps its own weights, and the spec says so."""
        declared: str = {**self._own(recipe), **self._size.set.values()}["initialisation"]
        return OWN if self._architectures.entry(model).own_initialisation else declared

    def _own(self, recipe: str | None) -> dict[str, Any]:
        """The numbers of the study's baseline, or of another named recipe, in the paper's units."""
        if recipe is not None:
            return {**_DEFAULTS, **RECIPES[recipe]}
        baseline = self._file.baseline
        fields = {**_DEFAULTS, **RECIPES[baseline.recipe], **_numbers(baseline.set.values())}
        fields["augment"] = dataclasses.replace(fields["augment"], **_augment(baseline.set.values()))
        return fields

    def _start(self, recipe: str | None) -> dict[str, Any]:
        """What every row with this recipe starts from: `_own`, and what the size and the file say on top."""
        found = self._starts.get(recipe)
        if found is None:
            file, of_size = self._file, self._size.set
            own = self._own(recipe)
            measured = file.metrics if file.metric in METRICS else (file.metric, *file.metrics)
            found = {**own, "metrics": tuple(dict.fromkeys(measured)), **_numbers(of_size.values())}
            found["augment"] = dataclasses.replace(own["augment"], **_augment(of_size.values()))
            found["data"] = self._inputs.asked(None, None)
            model = of_size.model or file.baseline.set.model or file.baseline.model
            found["model"] = self._architectures.find(model)
            found["initialisation"] = self._initialisation(found["model"], recipe)
            self._starts[recipe] = found
        return found


def _numbers(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name not in AUGMENT_FIELDS and name != "model"}


def _augment(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name in AUGMENT_FIELDS}
