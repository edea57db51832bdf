"""When a comparison can be tested at all: pure functions from plain facts to a reason, or to "" where it can.

A reason is a phrase that names its numbers; it goes on after "cannot be tested here: ". Accuracies are in
percent and differences in percentage points. Why these conditions: docs/statistics.md, decision 28.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.spec import DataSpec, canonical_json

# The floor of a data setting, as it is kept beside runs and in reports: what simple classifiers reach.


FLOORS_SCHEMA = 1
NOT_MEASURED = "it was not measured"
PERCENTAGES = ("chance", "guessing", "neighbours", "linear")
COUNTS = ("classes", "train_images", "test_images", "channels", "pixels")


def setting_of(spec: DataSpec) -> str:
    """A data setting as text: the set with its options, its parts' sizes and the resolution."""
    return canonical_json(dataclasses.asdict(spec))


def wrong_with_floor(entry: Any) -> str:
    """What is wrong with a floor that was read from a file; "": nothing."""
    if not isinstance(entry, Mapping):
        return "it is no JSON object"
    if entry.get("schema") != FLOORS_SCHEMA:
        return f"it is of schema {entry.get('schema')}, this version reads {FLOORS_SCHEMA}"
    for name in ("setting", "data"):
        if not isinstance(entry.get(name), str):
            return f"`{name}` is no text"
    for name in ("problem", "fingerprint"):
        if not isinstance(entry.get(name), str | None):
            return f"`{name}` is no text"
    return "" if entry.get("problem") is not None else _wrong_with_numbers(entry)


def _wrong_with_numbers(entry: Mapping[str, Any]) -> str:
    for name in PERCENTAGES:
        value = entry.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            return f"`{name}` is no percentage"
    for name in COUNTS:
        if type(entry.get(name)) is not int or entry[name] < 1:
            return f"`{name}` is no count"
    return ""


def wrong_with_floors(kept: Any) -> str:
    """What is wrong with all floors of a report; "": nothing."""
    if not isinstance(kept, Mapping) or kept.get("schema") != FLOORS_SCHEMA:
        return "is damaged: it holds no floors of this version"
    if not isinstance(kept.get("why"), str) or not isinstance(kept.get("floors"), list):
        return "is damaged: `why` or `floors` is not there"
    found = [wrong_with_floor(entry) for entry in kept["floors"]]
    return next((f"is damaged: {text}" for text in found if text), "")
