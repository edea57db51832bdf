"""Turns what pydantic says about a study file into problems with lines, in the words of the study."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.study.problems import Location, ProblemList, unknown
from harness.study.schema import StudyFile

_WORDS = {
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "dict_type": "must be a map (key: value)",
    "model_type": "must be a map (key: value)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "finite_number": "must be finite",
    "string_pattern_mismatch": "must be lower-case letters, digits, - and _",
    "string_too_short": "must not be empty",
}


_PLACEHOLDERS = {"study": "unnamed", "question": "?"}  # needed, but no other check depends on them


def parse_study(data: Any, problems: ProblemList) -> StudyFile | None:
    """The typed file, with every mistake of form added to `problems`.

    What is wrong is left out (with the row, size or table around it where that cannot be without it) and the
    rest is read again, so that mistakes of other kinds are found too. None where what is left is no study.
    """
    reported = False
    while isinstance(data, Mapping):
        try:
            return StudyFile.model_validate(data)
        except ValidationError as error:
            if not reported:
                add_problems(error, (), problems, StudyFile)
            reported = True
            smaller = _without(data, [_to_leave_out(detail) for detail in error.errors(include_url=False)])
            smaller = {**_PLACEHOLDERS, **smaller}
            if smaller == data:
                return None
            data = smaller
    if not reported:
        problems.add((), "the file must be a map with the keys study, question, baseline, sizes, tables")
    return None


def _to_leave_out(detail: Any) -> Location:
    location = tuple(detail["loc"])
    return location[:-1] if detail["type"] == "missing" else location


def add_problems(error: ValidationError, at: Location, problems: ProblemList, model: type[BaseModel]) -> None:
    """Add each mistake; `at` is where in the file the validated part is."""
    for detail in error.errors(include_url=False):
        location = tuple(detail["loc"])
        kind = detail["type"]
        if location and location[-1] == "[key]":
            location = location[:-1]
        here = _inside_file(location, model)
        if kind == "extra_forbidden":
            message = unknown("key", str(location[-1]), _keys(model, location[:-1])) + _in(location[:-1])
            here = location
        elif kind == "missing":
            message = f"missing key '{location[-1]}'{_in(location[:-1])}"
        else:
            message = f"{dotted(here) or 'the file'} {_say(detail)}"
        problems.add((*at, *here), message)


def dotted(location: Location) -> str:
    """The place in words.

    >>> dotted(("tables", "table5", "rows", 2, "label"))
    'tables.table5.rows[2].label'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _say(detail: Any) -> str:
    kind = detail["type"]
    given = detail["input"]
    if kind == "value_error":
        text = str(detail["ctx"]["error"])
        return text if text.startswith("must") else f"is wrong: {text}"
    if kind == "literal_error":
        valid = typing.cast(str, detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return f"is wrong: {unknown('value', str(given), valid)}"
    words = _WORDS.get(kind)
    if words is None:
        words = detail["msg"].replace("Input should be", "must be").replace("Tuple should", "must")
    shown = repr(given) if isinstance(given, str | int | float | bool | None) else type(given).__name__
    return f"{words}, got {shown}"


def _in(location: Location) -> str:
    return f" (in {dotted(location)})" if location else ""


def _model_at(model: type[BaseModel], location: Location) -> tuple[type[BaseModel] | None, int]:
    """The model that describes a place, and how much of the location is real keys (not union branches)."""
    found: Any = model
    for depth, part in enumerate(location):
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = {field.alias or name: field for name, field in found.model_fields.items()}
            if part not in fields:
                return None, depth
            found = _core(fields[str(part)].annotation)
        elif typing.get_origin(found) in (dict, tuple, list):
            found = _core(typing.get_args(found)[1 if typing.get_origin(found) is dict else 0])
        else:
            return None, depth
    is_model = isinstance(found, type) and issubclass(found, BaseModel)
    return (found if is_model else None), len(location)


def _core(annotation: Any) -> Any:
    """Without Annotated and None."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
        else:
            return annotation


def _keys(model: type[BaseModel], location: Location) -> list[str]:
    found, _ = _model_at(model, location)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _inside_file(location: Location, model: type[BaseModel]) -> Location:
    return location[: _model_at(model, location)[1]]


def _without(data: Any, wrong: list[Location]) -> Any:
    """A copy of the data without the places named; list items become None-free by leaving them out."""
    if not isinstance(data, Mapping | list):
        return data
    leave_out = {location[0] for location in wrong if len(location) == 1}
    deeper: dict[Any, list[Location]] = {}
    for location in wrong:
        if len(location) > 1:
            deeper.setdefault(location[0], []).append(location[1:])
    items = data.items() if isinstance(data, Mapping) else enumerate(data)
    kept = {}
    for key, value in items:
        if key in leave_out:
            continue
        rest = deeper.get(key, [])
        usable = isinstance(value, Mapping | list)
        if rest and not usable:
            continue
        kept[key] = _without(value, rest) if rest else value
    return kept if isinstance(data, Mapping) else list(kept.values())
