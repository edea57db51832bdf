"""From what a row asks for to the arm that answers it at one size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.spec import (
    ACCURACIES,
    Arm,
    CanonicalText,
    DataSpec,
    Member,
    ModelSpec,
    Recipe,
    TrickSpec,
    check_finite,
    fields_of,
    recipe_of,
)
from harness.study.catalogue import (
    RECIPES,
    Catalogue,
    Cost,
    Mode,
    ModelEntry,
    TrickEntry,
    Unusable,
    Use,
    fill_options,
    guarded,
    like,
    needs_arm,
    plain,
    trick_options,
)
from harness.study.names import check_start, start_of
from harness.study.rows import ArmError, Draft, Study
from harness.study.schema import AUGMENT_FIELDS, DATA_FIELDS, Size, StudyFile, check_optimizer
from harness.study.sizes import Inputs, Scale, scaled_recipe

# From the model that a row names to its full arguments at a size, and what it costs on which data.


Priced = tuple[ModelSpec, Cost, bool]  # the bool: whether it keeps its constructor's weights
_NOT_ASKED = Cost(params=0, macs=0)


class Architectures:
    """The models of arms at one size. Equal models are one object.

    Where the mode is not `priced`, costs are not asked for: one that is not on file takes seconds.
    """

    def __init__(self, catalogue: Catalogue, size: Size, mode: Mode) -> None:
        self._catalogue, self._size = catalogue, size
        self._mode = mode
        self._found: dict[Use, ModelSpec] = {}
        self._ids: set[int] = set()  # of the objects in `_found`
        self._fast: dict[tuple[int, int], Priced] = {}  # by the ids of such a model and its data
        self._built: dict[Any, Priced] = {}

    def find(self, use: Use) -> ModelSpec:
        """The model that a study names, before tricks edit it.

        Arguments come from, the last one wins: defaults, the size's for the family, the variant's own, the
        size's for the variant, those given.

        Raises:
            ValueError: arguments that do not fit.
            Unusable: it is already reported as a mistake.
        """
        found = self._found.get(use)
        if found is None:
            try:
                found = self._found[use] = self._look_up(use)
            except ValueError:
                if self._mode.names_are_wrong:
                    raise Unusable from None
                raise
            self._ids.add(id(found))
        return found

    def entry(self, model: ModelSpec) -> ModelEntry:
        """What the catalogue says of it.

        Raises:
            ValueError: a trick made it a model that does not exist.
        """
        entry = self._catalogue.models.get(model.name)
        if entry is None:
            raise ValueError(f"the model '{model.name}' does not exist")
        return entry

    def check_switches(self, trick: str, model: ModelSpec) -> None:
        """Raises:
        ValueError: the trick set an argument that the model does not have.
        """
        has = self.entry(model).args
        for name in model.args:
            if name not in has:
                raise ValueError(
                    f"trick '{trick}' does not apply to the model {model.name}: it has no argument '{name}'."
                    f" Valid: {', '.join(sorted(has)) or 'none'}"
                )

    def priced(self, model: ModelSpec, data: DataSpec) -> Priced:
        """One object per architecture, after tricks have edited it, and its cost on this data.

        Raises:
            ValueError: arguments that do not fit, or images that are too small.
        """
        found = self._fast.get((id(model), id(data)))
        if found is not None:
            return found
        key = (model.name, model.weights, id(data), *model.args.items())
        found = self._built.get(key)
        if found is None:
            entry = self.entry(model)
            args = {name: like(value, entry.args[name]) for name, value in model.args.items()}
            checking = f"checking the arguments of model '{model.name}'"
            for check in (entry.validate, entry.rule):
                guarded(checking, check, args)
            least = guarded(checking, entry.minimum_input, args)
            if data.resolution < least:
                raise ValueError(
                    f"{model.name} needs at least {least} pixels with these arguments, here are"
                    f" {data.resolution}; give the size a larger resolution, or arguments under 'models'"
                    " that halve the image less often"
                )
            same = dataclasses.replace(model, args=args)
            cost = _NOT_ASKED
            if self._mode.priced:
                cost = guarded(f"building model '{model.name}'", self._catalogue.cost, same, data)
            found = self._built[key] = (same, cost, entry.own_initialisation)
        if id(model) in self._ids:
            self._fast[id(model), id(data)] = found
        return found

    def _look_up(self, use: Use) -> ModelSpec:
        entry = self._catalogue.models.get(use.name)
        if entry is None:
            raise Unusable
        of_size = self._size.models
        args = {**of_size.get(entry.family, {}), **entry.preset}
        if use.name != entry.family:
            args.update(of_size.get(use.name, {}))
        given, weights = start_of(Use(use.name, (*args.items(), *use.options)), self._catalogue)
        full = fill_options("model", given, entry.args)
        guarded(f"checking the arguments of model '{use.name}'", entry.validate, full)
        return ModelSpec(name=entry.family, args=full, weights=weights)


# What a draft asks for as fields of a recipe, in the paper's units and before tricks edit it.


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
        self._owns: dict[str | None, dict[str, Any]] = {}  # named recipe -> its fields in the paper's units
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
        if recipe not in self._owns:
            own = {**_DEFAULTS, **RECIPES[recipe or self._file.baseline.recipe]}
            if recipe is None:
                said = self._file.baseline.set.values()
                own |= {**_numbers(said), "augment": dataclasses.replace(own["augment"], **_augment(said))}
            self._owns[recipe] = own
        return self._owns[recipe]

    def _start(self, recipe: str | None) -> dict[str, Any]:
        """What every row with this recipe starts from: `_own`, and what the size and the file say on top."""
        found = self._starts.get(recipe)
        if found is None:
            file, of_size = self._file, self._size.set
            own = self._own(recipe)
            metric = self._size.metric or file.metric
            measured = file.metrics if metric in ACCURACIES else (metric, *file.metrics)
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


# Lists of tricks, looked up once for all the rows that share them.


MOST_KEPT = 4_096  # recipes after the first few of a list of tricks
MOST_MEMBERS = 1_000  # of one arm, evaluated together
TRAINING_ARMS = ("teacher", "source")  # what a training may need another run for; observers name any others


class Edit(NamedTuple):
    """What one trick does to a recipe."""

    use: Use
    trick: str
    edit: Callable[[Recipe, Mapping[str, Any]], Recipe]
    options: Mapping[str, Any]


class TrickPart(NamedTuple):
    """The recipe edits of some tricks, those that stay in the arm, and the plugins' files they come from."""

    edits: tuple[Edit, ...]
    acting: tuple[TrickSpec, ...]
    plugins: frozenset[str]


class Observers(NamedTuple):
    """The tricks of a row that change only how trained networks are evaluated."""

    part: TrickPart
    runs: int  # how many networks of the row's own training are evaluated together
    partners: tuple[tuple[str, int], ...]  # further named arms, and how many networks of each


class TrickSet(NamedTuple):
    """A list of tricks, looked up once: names, recipe edits, and what stays in the arm."""

    names: tuple[str, ...]
    training: TrickPart
    teacher: str | None  # the name of an arm
    source: str | None
    observers: Observers | None  # None: the row's network is evaluated as every other


class _Found(NamedTuple):
    use: Use
    entry: TrickEntry
    options: dict[str, Any]


class TrickSets:
    """Trick sets at one size, where some tricks have a stand-in."""

    def __init__(self, catalogue: Catalogue, size: Size, mode: Mode) -> None:
        self.replaced: set[str] = set()  # tricks for which the size's stand-in was used
        self._catalogue, self._size = catalogue, size
        self._names_are_wrong = mode.names_are_wrong
        self._found: dict[tuple[Use, ...], TrickSet | str] = {}
        self._known: dict[Use, _Found] = {}

    def find(self, uses: tuple[Use, ...]) -> TrickSet:
        """The set for a list of tricks.

        Raises:
            ValueError: the tricks cannot be on together.
            Unusable: one of them is already reported as a mistake.
        """
        found = self._found.get(uses)
        if found is None:
            try:
                found = self._look_up(uses)
            except ValueError as error:
                found = str(error)
            self._found[uses] = found
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def _look_up(self, uses: tuple[Use, ...]) -> TrickSet:
        found = [self._known.get(use) or self._options(use) for use in uses]
        _check_together([each.entry for each in found])
        training = [each for each in found if not each.entry.observes]
        observing = [each for each in found if each.entry.observes]
        for each in training:
            if not set(each.entry.arms) <= set(TRAINING_ARMS):
                raise ValueError(
                    f"trick '{each.entry.name}' trains; the arms it names may be teacher and source"
                )
        return TrickSet(
            names=tuple(each.entry.name for each in found),
            training=_part(training),
            teacher=self._only_arm("teacher", training),
            source=self._only_arm("source", training),
            observers=self._observers(observing) if observing else None,
        )

    def _options(self, use: Use) -> _Found:
        stand_in = self._size.replace.get(use.name)
        if stand_in:
            self.replaced.add(use.name)
        try:
            here = stand_in.of(use) if stand_in else use
            found = _Found(use, *trick_options(here, self._catalogue))
            self._known[use] = found
            return found
        except ValueError:
            if self._names_are_wrong:
                raise Unusable from None
            raise

    def _observers(self, found: list[_Found]) -> Observers:
        choosing = [each for each in found if each.entry.arms or each.entry.members(each.options) != (1,)]
        if len(choosing) > 1:
            names = " and ".join(each.entry.name for each in choosing)
            raise ValueError(f"{names} each say which networks are evaluated together; only one trick may")
        partners: list[tuple[str, int]] = []
        runs = 1
        for each in choosing:
            runs, *others = each.entry.members(each.options)
            if max((runs, *others)) > MOST_MEMBERS:
                raise ValueError(
                    f"{each.entry.name}: at most {MOST_MEMBERS} networks are evaluated together,"
                    f" got {max((runs, *others))}"
                )
            named = (self._arm(option, each) for option in each.entry.arms)
            partners += zip(named, others, strict=True)
        return Observers(part=_part(found), runs=runs, partners=tuple(partners))

    def _only_arm(self, option: str, found: list[_Found]) -> str | None:
        """The arm that tricks name in an option of theirs, for a training of which one is possible."""
        wanting = [each for each in found if option in each.entry.arms]
        if len(wanting) > 1:
            names = " and ".join(each.entry.name for each in wanting)
            raise ValueError(f"a run has one {option}; {names} each want one")
        return self._arm(option, wanting[0]) if wanting else None

    def _arm(self, option: str, found: _Found) -> str:
        name = dict(found.use.options).get(option)
        if name is None:
            if self._names_are_wrong:
                raise Unusable
            raise ValueError(needs_arm(found.entry.name, option))
        return str(name)


def _part(found: list[_Found]) -> TrickPart:
    return TrickPart(
        edits=tuple(
            Edit(each.use, each.entry.name, each.entry.edit_recipe, each.options)
            for each in found
            if each.entry.edits_recipe
        ),
        acting=tuple(
            TrickSpec(name=each.entry.name, options=_said(each))
            for each in found
            if each.entry.acts_in_training
        ),
        plugins=frozenset(
            each.entry.plugin for each in found if each.entry.plugin and each.entry.acts_in_training
        ),
    )


def _said(found: _Found) -> dict[str, Any]:
    """The options that a spec holds: one that came later is left out where it is not used."""
    entry = found.entry
    return {
        name: value
        for name, value in found.options.items()
        if name not in entry.said_if_set or value != plain(entry.options[name])
    }


def _check_together(entries: list[TrickEntry]) -> None:
    for index, entry in enumerate(entries):
        for earlier in entries[:index]:
            if earlier.name == entry.name:
                raise ValueError(f"trick '{entry.name}' is on twice")
            if entry.name in earlier.conflicts or earlier.name in entry.conflicts:
                raise ValueError(f"tricks '{earlier.name}' and '{entry.name}' exclude each other")


# From what a row asks for to the arm that answers it at one size.
#
# The order, everything in the paper's units until the last step: named recipe, study baseline, the size's
# `set`, column, named arm with what the size's `arms` sets in it, row, tricks in the order listed, then the
# size's scale. Tricks that only edit the recipe end as its numbers, so that rows that come to the same
# numbers share one arm.
#
# A row with observing tricks (crops, ensembles) is two arms: the training without them, which other rows
# may share, and the evaluation of it, which trains nothing.


_NO_PLUGINS: Mapping[str, str] = {}


class Resolver:
    """Drafts to arms at one size. `arms` collects every arm that was asked for, those it needs first."""

    def __init__(self, study: Study, catalogue: Catalogue, size: Size, mode: Mode) -> None:
        self.arms: dict[str, Arm] = {}
        self.costs: dict[str, Cost] = {}
        self.named: dict[str, str] = {}  # arm_id -> how another arm needs it, e.g. "teacher / large"
        self._trained: dict[str, str] = {}  # name of an arm that others need -> arm_id
        self.catalogue, self._study, self.priced = catalogue, study, mode.priced
        paper = study.file.sizes.get("paper", size)
        self.inputs = Inputs(catalogue, size, paper, mode)
        self._architectures = Architectures(catalogue, size, mode)
        self._tricks = TrickSets(catalogue, size, mode)
        self._text = CanonicalText()
        self._fields = Fields(study.file, size, self.inputs, self._architectures)
        self.scale = Scale.of(size, self._fields.baseline_epochs)
        self._plugin_sets: dict[frozenset[str], Mapping[str, str]] = {}
        self._optimizers: dict[tuple[str, int], Any] = {}
        # What tricks edit (its fields by id, then the object) and the first of them -> what comes of it.
        self._recipes: dict[Any, tuple[Recipe, Recipe]] = {}

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
        check_start(recipe, has_source=source is not None)
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
        if self.priced:
            arm_id = self._text.arm_id(arm)
        else:  # it is only looked for mistakes
            check_finite(arm.recipe)
            arm_id = f"arm {len(self.arms)}"
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
        if name in self._trained:
            return self._trained[name]
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
        self._trained[name] = arm_id
        return arm_id

    def _edited(self, fields: dict[str, Any], edits: tuple[Edit, ...]) -> dict[str, Any]:
        if not edits:
            return fields
        start = recipe = recipe_of(fields)
        ids, uses = tuple(map(id, fields.values())), tuple(each.use for each in edits)
        for number, (_, trick, edit, options) in enumerate(edits, start=1):
            if found := self._recipes.get(
                (ids, uses[:number])
            ):  # the rows of a stack begin with the row above
                start, recipe = found
                continue
            model = recipe.model
            recipe = guarded(f"trick '{trick}'", edit, recipe, options)
            if recipe.model is not model:
                self._architectures.check_switches(trick, recipe.model)
            if len(self._recipes) < MOST_KEPT:
                self._recipes[ids, uses[:number]] = start, recipe
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

    def _plugins(self, recipe: Recipe, part: TrickPart, others: tuple[str, ...]) -> Mapping[str, str]:
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
