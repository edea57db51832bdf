"""Recipes from and to plain fields, several times faster than keyword arguments of a frozen dataclass are.

A study of 100,000 arms makes a quarter of a million recipes of thirty fields. A test compares with
`Recipe(**fields)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from operator import attrgetter, itemgetter
from typing import Any

from harness.study.spec import Recipe

NAMES = tuple(field.name for field in dataclasses.fields(Recipe))
_get_items = itemgetter(*NAMES)
_get_attributes = attrgetter(*NAMES)
_setters = tuple(Recipe.__dict__[name].__set__ for name in NAMES)  # of its slots


def recipe_of(fields: Mapping[str, Any]) -> Recipe:
    """`Recipe(**fields)` for a mapping that has every field.

    Raises:
        KeyError: one is missing.
    """
    recipe = object.__new__(Recipe)
    for set_slot, value in zip(_setters, _get_items(fields), strict=True):
        set_slot(recipe, value)
    return recipe


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """Every field and its value, of which the parts stay the same objects."""
    return dict(zip(NAMES, _get_attributes(recipe), strict=True))
