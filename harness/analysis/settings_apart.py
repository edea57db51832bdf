"""What differs between reports besides results: settings, versions, data, and the recipes of shared rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OF_THE_MOMENT = ("inputs", "records")  # digests in the provenance that differ whenever anything does
REFERENCES = (
    "teacher",
    "source",
    "observes",
    "arm_id",
    "label",
)  # name other arms, which have lines of their own
ABSENT = "not there"


@dataclass(frozen=True, slots=True)
class Apart:
    """One setting: its value on every side, and in how many shared rows (None: of the whole report)."""

    name: str
    values: tuple[str, ...]
    rows: int | None = None


def settings_apart(reports: Sequence[Mapping[str, Any]]) -> tuple[Apart, ...]:
    """Settings of the reports as a whole that are not the same on every side."""
    flats = [flat_settings(_of_report(report)) for report in reports]
    return tuple(Apart(name, values) for name, values in _unequal(flats))


def recipes_apart(reports: Sequence[Mapping[str, Any]]) -> tuple[int, tuple[Apart, ...]]:
    """How many rows all sides share, and each field of their recipes that differs, with the rows counted."""
    arms = [_arms_by_row(report) for report in reports]
    shared = [key for key in arms[0] if all(key in side for side in arms)]
    found: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for key in shared:
        found.update(_unequal([side[key] for side in arms]))
    return len(shared), tuple(Apart(name, values, rows) for (name, values), rows in found.items())


def flat_settings(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `a.b` -> text; lists as JSON.

    >>> flat_settings({"data": {"name": "mnist"}, "milestones": [1, 2]})
    {'data.name': 'mnist', 'milestones': '[1, 2]'}
    """
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return flat


def _of_report(report: Mapping[str, Any]) -> dict[str, Any]:
    findings = report["findings"]
    settings = findings["settings"]
    return {
        "study": report["study"],
        "size": report["size"],
        "seeds": len(findings["seeds"]),
        "smallest effect": settings["smallest_effect_pp"],
        "alpha": settings["alpha"],
        "tables": len(findings["tables"]),
        "provenance": {k: v for k, v in report["provenance"].items() if k not in OF_THE_MOMENT},
    }


def _arms_by_row(report: Mapping[str, Any]) -> dict[tuple[str, str, str | None], dict[str, str]]:
    flats = {
        arm_id: flat_settings({name: value for name, value in arm.items() if name not in REFERENCES})
        for arm_id, arm in report["arms"].items()
    }
    return {
        (table["key"], cell["row"], cell["column"]): flats[cell["arm_id"]]
        for table in report["findings"]["tables"]
        for cell in table["cells"]
        if cell["arm_id"] in flats
    }


def _unequal(flats: Sequence[Mapping[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    names = dict.fromkeys(name for flat in flats for name in flat)
    values = {name: tuple(flat.get(name, ABSENT) for flat in flats) for name in names}
    return [(name, each) for name, each in values.items() if len(set(each)) > 1]
