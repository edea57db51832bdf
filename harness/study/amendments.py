"""What changed from one declaration of a study to the next, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.study.declaration import Declaration
from harness.study.paper import METRICS

NAMED = 6  # rows of one table that a sentence names
ARM_DIGITS = 8

RowKey = tuple[str | None, str]  # column, row


def amendments(before: Declaration, after: Declaration) -> list[str]:
    """One phrase per difference, e.g. "smallest effect 0.2 → 0.5 pp"; [] for equal declarations."""
    return [*_settings(before, after), *_tables(before, after), *_claims(before, after)]


def seeds_text(looks: Sequence[int]) -> str:
    """The seeds of a design.

    >>> seeds_text([3]), seeds_text([3, 5, 8])
    ('3', '3..8 (looks at 3, 5, 8)')
    """
    if len(looks) == 1:
        return str(looks[0])
    return f"{looks[0]}..{looks[-1]} (looks at {', '.join(map(str, looks))})"


def _settings(before: Declaration, after: Declaration) -> Iterator[str]:
    unit = " pp" if after["metric"] in METRICS else ""
    plain = {"metric": "metric", "smallest_effect": "smallest effect", "alpha": "alpha"}
    for key, name in plain.items():
        if before[key] != after[key]:
            tail = unit if key == "smallest_effect" else ""
            yield f"{name} {_text(before[key])} → {_text(after[key])}{tail}"
    if before["looks"] != after["looks"]:
        yield f"seeds {seeds_text(before['looks'])} → {seeds_text(after['looks'])}"
    if before["read_outs"] != after["read_outs"]:
        yield f"read-out {', '.join(before['read_outs'])} → {', '.join(after['read_outs'])}"
    for name in sorted({*before["plugins"], *after["plugins"]}):
        old, new = before["plugins"].get(name), after["plugins"].get(name)
        if old != new:
            yield f"code of {name} changed (sha256 {_short(old)} → {_short(new)})"


def _tables(before: Declaration, after: Declaration) -> Iterator[str]:
    old, new = _rows_by_table(before), _rows_by_table(after)
    for key in new:
        if key not in old:
            yield f"{key} added ({_count(len(new[key]))})"
    for key, rows in old.items():
        if key not in new:
            yield f"{key} left out ({_count(len(rows))})"
        else:
            yield from _rows(key, rows, new[key])


def _rows(key: str, old: Mapping[RowKey, Any], new: Mapping[RowKey, Any]) -> Iterator[str]:
    added = [_label(name) for name in new if name not in old]
    gone = [_label(name) for name in old if name not in new]
    both = [name for name in new if name in old]
    recipes = [
        f"{_label(name)} (arm {_short(old[name]['arm'])} → {_short(new[name]['arm'])})"
        for name in both
        if old[name]["arm"] != new[name]["arm"]
    ]
    if added:
        yield f"{_listed('row', added)} of {key} added"
    if gone:
        yield f"{_listed('row', gone)} of {key} left out"
    if recipes:
        yield f"recipe of {_listed('row', recipes)} of {key} changed"
    for name in both:
        was, now = old[name]["versus"], new[name]["versus"]
        if was != now:
            yield f"row {_label(name)} of {key} is compared with {_versus(now)}, not with {_versus(was)}"


def _claims(before: Declaration, after: Declaration) -> Iterator[str]:
    old = {claim["says"]: claim for claim in before["claims"]}
    new = {claim["says"]: claim for claim in after["claims"]}
    for says in {**old, **new}:
        if says not in old:
            yield f"claim “{says}” added"
        elif says not in new:
            yield f"claim “{says}” left out"
        elif old[says] != new[says]:
            yield f"claim “{says}” is answered by other rows, or by another measure"


def _rows_by_table(declaration: Declaration) -> dict[str, dict[RowKey, Any]]:
    return {
        table["key"]: {(row["column"], row["row"]): row for row in table["rows"]}
        for table in declaration["tables"]
    }


def _listed(noun: str, labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"{noun} {labels[0]}"
    named = ", ".join(labels[:NAMED])
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return f"{len(labels)} {noun}s ({named}{more})"


def _label(name: RowKey) -> str:
    column, row = name
    return f"“{row}”" if column is None else f"“{row}” ({column})"


def _versus(row: str | None) -> str:
    return "no row" if row is None else f"“{row}”"


def _count(rows: int) -> str:
    return f"{rows} trained row{'' if rows == 1 else 's'}"


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:ARM_DIGITS]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
