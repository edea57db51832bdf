"""A recipe with every field but `model` and `data`, from the values that a paper gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.study.spec import Recipe

BY_STUDY = ("model", "data")  # what a study adds to a named recipe


def whole(**values: Any) -> Mapping[str, Any]:
    """The values, and `Recipe`'s defaults for the fields that are not among them.

    Raises:
        TypeError: a value for a field that a recipe does not have, or that the study gives.
    """
    fields = {field.name: field for field in dataclasses.fields(Recipe) if field.name not in BY_STUDY}
    wrong = values.keys() - fields.keys()
    if wrong:
        raise TypeError(f"not a field of a named recipe: {', '.join(sorted(wrong))}")
    return {name: values[name] if name in values else _default(field) for name, field in fields.items()}


def _default(field: dataclasses.Field[Any]) -> Any:
    make = field.default_factory
    return field.default if make is dataclasses.MISSING else make()
