"""The canonical text of an arm, as `spec.canonical_json` writes it, for 100,000 arms in a few seconds.

Most arms of a study share their model, data, augmentation and tricks, and differ in a few numbers. So the
text around those numbers is made once per combination of the other parts. A test compares with
`canonical_json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from harness.study.spec import Arm, Member, Recipe, TrickSpec, canonical_json, digest

_FIELDS = sorted(field.name for field in dataclasses.fields(Recipe))
# The numbers in which the arms of one grid usually differ. Others, too, may be any number: they are parts.
_NUMBERS = ["batch_size", "decay", "epochs", "eval_crop", "lr", "warmup_epochs", "weight_decay"]
_SHARED = [name for name in _FIELDS if name not in _NUMBERS]
_numbers = attrgetter(*_NUMBERS)
_shared = attrgetter(*_SHARED)


class CanonicalText:
    """Texts of arms, remembering the text of every part that several arms hold as one object."""

    def __init__(self) -> None:
        # By the ids of the parts; the parts are kept beside, so that an id stays theirs.
        self._frames: dict[tuple[int, ...], tuple[Any, str]] = {}
        self._parts: dict[int, tuple[Any, str]] = {}
        self._around: dict[tuple[Any, ...], tuple[Any, str, str]] = {}

    def arm_id(self, arm: Arm) -> str:
        """Equal to `arm.arm_id`, faster.

        Raises:
            ValueError: a number is not finite.
        """
        return digest(self.arm(arm))

    def arm(self, arm: Arm) -> str:
        """Equal to `canonical_json(dataclasses.asdict(arm))`."""
        key = (id(arm.observes), id(arm.plugins), id(arm.tricks), arm.source, arm.teacher)
        found = self._around.get(key)
        if found is None:
            found = self._around[key] = self._of_arm(arm)
        return found[1] + self.recipe(arm.recipe) + found[2]

    def recipe(self, recipe: Recipe) -> str:
        """The recipe's part of the text."""
        shared = _shared(recipe)
        key = tuple(map(id, shared))
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = (shared, self._frame(recipe))
        numbers = _numbers(recipe)
        if not math.isfinite(sum(numbers)):  # also where finite numbers have a sum that is too large
            _check_finite(recipe, _NUMBERS)
        return found[1] % numbers  # JSON writes numbers as repr does

    def _of_arm(self, arm: Arm) -> tuple[Any, str, str]:
        """What must stay alive, and the text before and after the recipe's."""
        before = f'{{"observes":{self._part(arm.observes)},"plugins":{self._part(arm.plugins)},"recipe":'
        source, teacher = json.dumps(arm.source), json.dumps(arm.teacher)
        after = f',"source":{source},"teacher":{teacher},"tricks":{self._part(arm.tricks)}}}'
        return (arm.observes, arm.plugins, arm.tricks), before, after

    def _frame(self, recipe: Recipe) -> str:
        """The text with %r in place of every number of `_NUMBERS`."""
        _check_finite(recipe, _FIELDS)
        parts = []
        for name in _FIELDS:
            text = "%r" if name in _NUMBERS else self._part(getattr(recipe, name)).replace("%", "%%")
            parts.append(f"{json.dumps(name)}:{text}")
        return "{" + ",".join(parts) + "}"

    def _part(self, value: Any) -> str:
        known = self._parts.get(id(value))
        if known is None:
            known = self._parts[id(value)] = (value, canonical_json(_plain(value)))
        return known[1]


def _check_finite(recipe: Recipe, names: list[str]) -> None:
    wrong = []
    for name in names:
        value = getattr(recipe, name)
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(each, int | float) and not math.isfinite(each) for each in values):
            wrong.append(name)
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} must be a finite number")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple) and value and isinstance(value[0], TrickSpec | Member):
        return [dataclasses.asdict(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value
