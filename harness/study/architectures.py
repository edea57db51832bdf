"""From the model that a row names to its full arguments at a size, and what it costs on which data."""

from __future__ import annotations

from typing import Any

from harness.study.catalogue import Catalogue, Cost, ModelEntry
from harness.study.lookups import Mode, Unusable, guarded
from harness.study.schema import Size
from harness.study.spec import DataSpec, ModelSpec
from harness.study.uses import Use, fill_options, like

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
        key = (model.name, id(data), *model.args.items())
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
            same = ModelSpec(name=model.name, args=args)
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
        given = Use(use.name, (*args.items(), *use.options))
        full = fill_options("model", given, entry.args)
        guarded(f"checking the arguments of model '{use.name}'", entry.validate, full)
        return ModelSpec(name=entry.family, args=full)
