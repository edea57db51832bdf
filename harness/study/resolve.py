"""From what a row asks for to the arm that answers it at one size.

The order, everything in the paper's units until the last step: named recipe, study baseline, the size's
`set`, column, named arm, row, tricks in the order listed, then the size's scale. Tricks that only edit the
recipe end as its numbers, so that rows that come to the same numbers share one arm.

A row with observing tricks (crops, ensembles) is two arms: the training without them, which other rows may
share, and the evaluation of it, which trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.study.architectures import Architectures
from harness.study.canonical import CanonicalText
from harness.study.catalogue import Catalogue, Cost
from harness.study.changes import check_optimizer
from harness.study.drafts import Draft, Study
from harness.study.fields import OWN, Fields
from harness.study.inputs import Inputs
from harness.study.lookups import Mode, Unusable, guarded
from harness.study.recipe_values import fields_of, recipe_of
from harness.study.schema import Size
from harness.study.sizes import Scale, scaled_recipe
from harness.study.spec import Arm, Member, Recipe
from harness.study.trick_sets import Edit, Observers, Part, TrickSets

_NO_PLUGINS: Mapping[str, str] = {}


class ArmError(ValueError):
    """What is wrong with a named arm, found through a row that needs it."""

    def __init__(self, arm: str, message: str) -> None:
        super().__init__(message)
        self.arm = arm


class Resolver:
    """Drafts to arms at one size. `arms` collects every arm that was asked for, those it needs first."""

    def __init__(self, study: Study, catalogue: Catalogue, size: Size, mode: Mode) -> None:
        self.arms: dict[str, Arm] = {}
        self.costs: dict[str, Cost] = {}
        self.named: dict[str, str] = {}  # arm_id -> how another arm needs it, e.g. "teacher / large"
        self.catalogue, self._study = catalogue, study
        paper = study.file.sizes.get("paper", size)
        self.inputs = Inputs(catalogue, size, paper, mode)
        self._architectures = Architectures(catalogue, size, mode)
        self._tricks = TrickSets(catalogue, size, mode)
        self._text = CanonicalText()
        self._fields = Fields(study.file, size, self.inputs, self._architectures)
        self.scale = Scale(
            epochs=size.epochs, baseline_epochs=self._fields.baseline_epochs, batch=size.batch_scale
        )
        self._plugin_sets: dict[frozenset[str], Mapping[str, str]] = {}
        self._optimizers: dict[tuple[str, int], Any] = {}

    def arm_id(self, draft: Draft) -> tuple[str, tuple[str, ...]]:
        """The arm's id and the names of the tricks that are on.

        Raises:
            ValueError: this combination is impossible at this size (ArmError: that of an arm it needs is).
            Unusable: it uses a name that is already reported.
        """
        tricks = self._tricks.find(draft.tricks)
        training = tricks.training
        teacher = None if tricks.teacher is None else self._needed("teacher", tricks.teacher)
        source = None if tricks.source is None else self._needed("source", tricks.source)
        fields = self._edited(self._fields.of(draft), training.edits)
        recipe, cost = self._finished(fields)
        if teacher is not None:
            self._check_classes("teacher", teacher, recipe)
        plugins = _NO_PLUGINS
        if self.catalogue.plugin_hashes:
            plugins = self._plugins(recipe, training, tuple(filter(None, (teacher, source))))
        arm = Arm(recipe=recipe, tricks=training.acting, teacher=teacher, source=source, plugins=plugins)
        arm_id = self._added(arm, cost)
        if tricks.observers is not None:
            arm_id = self._observing(arm_id, fields, tricks.observers)
        return arm_id, tricks.names

    @property
    def replaced(self) -> frozenset[str]:
        """Tricks for which the size's stand-in was used."""
        return frozenset(self._tricks.replaced)

    def baseline(self) -> Recipe:
        """The study's baseline at this size. Raises as `arm_id`."""
        return self._finished(self._fields.of(Draft()))[0]

    def _added(self, arm: Arm, cost: Cost) -> str:
        arm_id = self._text.arm_id(arm)
        if arm_id not in self.arms:
            self.arms[arm_id] = arm
            self.costs[arm_id] = cost
        return arm_id

    def _observing(self, trained: str, fields: dict[str, Any], observers: Observers) -> str:
        """The arm that evaluates a trained one by the row's observing tricks, and is added to `arms`."""
        recipe, cost = self._finished(self._edited(fields, observers.part.edits))
        members = [Member(arm=trained, runs=observers.runs)]
        for name, runs in observers.partners:
            partner = self._needed("partner", name)
            self._check_classes("partner", partner, recipe)
            members.append(Member(arm=partner, runs=runs))
        own = self.arms[trained]
        if recipe == own.recipe and members == [Member(arm=trained)] and not observers.part.acting:
            return trained  # e.g. a single crop: nothing is evaluated differently
        arm = Arm(
            recipe=recipe,
            tricks=own.tricks + observers.part.acting,
            observes=tuple(members),
            plugins=self._plugins(recipe, observers.part, tuple(member.arm for member in members)),
        )
        return self._added(arm, cost)

    def _needed(self, role: str, name: str) -> str:
        """The arm that a trick names, which must be trained; it is added to `arms`."""
        draft = self._study.arms.get(name)
        if draft is None:
            raise Unusable
        try:
            arm_id, tricks = self.arm_id(draft)
        except ArmError:
            raise
        except ValueError as error:
            raise ArmError(name, str(error)) from None
        if self.arms[arm_id].observes:
            raise ValueError(
                f"arm '{name}' only evaluates trained networks ({', '.join(tricks)});"
                f" a {role} must be trained"
            )
        self.named.setdefault(arm_id, f"{role} / {name}")
        return arm_id

    def _edited(self, fields: dict[str, Any], edits: tuple[Edit, ...]) -> dict[str, Any]:
        if not edits:
            return fields
        recipe = recipe_of(fields)
        for trick, edit, options in edits:
            model = recipe.model
            recipe = guarded(f"trick '{trick}'", edit, recipe, options)
            if recipe.model is not model:
                self._architectures.check_switches(trick, recipe.model)
        return fields_of(recipe)

    def _finished(self, fields: dict[str, Any]) -> tuple[Recipe, Cost]:
        """The recipe at this size, and its cost."""
        data = self.inputs.used(fields["data"])
        model, cost, keeps_weights = self._architectures.priced(fields["model"], data)
        if keeps_weights and fields["initialisation"] != OWN:
            raise ValueError(
                f"{model.name} keeps the weights of its constructor; initialisation"
                f" '{fields['initialisation']}' does not apply to it"
            )
        if (fields["optimizer"], id(fields["optimizer_args"])) not in self._optimizers:
            check_optimizer(fields["optimizer"], fields["optimizer_args"])
            self._optimizers[fields["optimizer"], id(fields["optimizer_args"])] = fields["optimizer_args"]
        return scaled_recipe(fields, model, data, self.scale), cost

    def _check_classes(self, role: str, arm_id: str, recipe: Recipe) -> None:
        other = self.arms[arm_id].recipe.data
        theirs, ours = self.inputs.classes(other), self.inputs.classes(recipe.data)
        if theirs is not None and ours is not None and theirs != ours:
            raise ValueError(
                f"its {role} tells {theirs} classes apart ({other.name}), the row itself {ours}"
                f" ({recipe.data.name}); a {role} must know the same classes"
            )

    def _plugins(self, recipe: Recipe, part: Part, others: tuple[str, ...]) -> Mapping[str, str]:
        """The plugins whose code takes part in an arm, those of the arms that it needs too."""
        catalogue = self.catalogue
        files: set[str | None] = {
            self._architectures.entry(recipe.model).plugin,
            catalogue.data[recipe.data.name].plugin,
            catalogue.trainers.get(recipe.trainer),
            *(catalogue.metrics.get(name) for name in recipe.metrics),
            *part.plugins,
            *(file for arm_id in others for file in self.arms[arm_id].plugins),
        }
        named = frozenset(file for file in files if file is not None)
        hashes = {file: catalogue.plugin_hashes[file] for file in sorted(named)}
        return self._plugin_sets.setdefault(named, hashes)
