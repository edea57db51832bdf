"""What a study declares before its first run, and what changed from one declaration to the next, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.errors import counted
from harness.spec import ACCURACIES, canonical_json, sha256_of
from harness.study.plan import Cell, Plan, PlanTable, control_of

# What a study declares before its first run: what is compared, on what metric, with how many seeds.
#
# The plan hash is the sha256 of the canonical JSON of that declaration. It holds nothing that results could
# change: a plan that grew by another block of seeds has the hash it had before.


DECLARATION_SCHEMA = 1
ALPHA = 0.05  # the family-wise error rate of every table
HASH_SHOWN = 8  # digits of a plan hash in running text

Declaration = Mapping[str, Any]
Contrast = tuple[str, str | None, str]  # table, column, row


def declaration_of(plan: Plan) -> dict[str, Any]:
    """The declaration of a plan, as plain JSON.

    Keys: schema, study, size, smoke, metric, smallest_effect (pp, or the metric's own unit), alpha, looks
    (seeds per arm at each look at the results; the last is the budget), read_outs, tables [{key, rows:
    [{column, row, arm, versus, versus_arm}]}] (rows that are trained; versus null: a reference), claims,
    plugins {name: sha256 of its code}. A table with a control has `control`, a row that may fail `may_fail`.
    """
    arms = plan.arms.values()
    return {
        "schema": DECLARATION_SCHEMA,
        "study": plan.study,
        "size": plan.size,
        "smoke": bool(plan.header["smoke"]),
        "metric": plan.header["metric"],
        "smallest_effect": plan.header["smallest_effect"],
        "alpha": ALPHA,
        "looks": list(plan.looks) or [len(plan.seeds)],
        "read_outs": sorted({arm.recipe.read_out for arm in arms}),
        "tables": [{"key": table.key, "rows": _rows(table), **_control(table)} for table in plan.tables],
        "claims": [dataclasses.asdict(claim) for claim in plan.claims],
        "plugins": {name: digest for arm in arms for name, digest in arm.plugins.items()} | _code(plan),
    }


def _code(plan: Plan) -> dict[str, str]:
    """The code of a script, and how its results are read."""
    found = {name.strip("{}"): digest for arm in plan.scripts.values() for name, digest in arm.files.items()}
    tracked = {arm.repository for arm in plan.scripts.values() if arm.repository is not None}
    return found | ({"the script's repository": min(tracked)} if tracked else {})


def plan_hash(declaration: Declaration) -> str:
    """64 hexadecimal digits.

    Raises:
        ValueError, TypeError: it holds something that is no JSON.
    """
    return sha256_of(canonical_json(declaration).encode())


def contrasts(declaration: Declaration) -> dict[Contrast, tuple[str, str | None, str | None]]:
    """(table, column, row) -> (the row it is compared with, its arm, the arm compared with)."""
    return {
        (table["key"], row["column"], row["row"]): (row["versus"], row["arm"], row["versus_arm"])
        for table in declaration["tables"]
        for row in table["rows"]
        if row["versus"] is not None
    }


def exploratory(plan: Plan, declared: Sequence[Mapping[str, Any]]) -> frozenset[Contrast]:
    """The contrasts of a plan that were not declared before results were there.

    declared: the recorded declarations, oldest first, each {declaration, ended, seen}. The one that counts is
    the newest that was recorded while nothing had ended, or else the first. A contrast is exploratory when
    that one lacks it, compares it with another row, or has another recipe for either side; all are when it
    names another metric. A row that was only renamed is not, nor is anything where nothing was recorded: then
    a report says that.
    """
    if not declared:
        return frozenset()
    now = declaration_of(plan)
    base = declared_before_results(declared)["declaration"]
    before, after = contrasts(base), contrasts(now)
    same_metric = base["metric"] == now["metric"]
    recipes = {(*key[:2], *what[1:]) for key, what in before.items()}
    return frozenset(
        key for key, what in after.items() if not same_metric or (*key[:2], *what[1:]) not in recipes
    )


def declared_before_results(declared: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The newest of the first declarations that were recorded while nothing had ended; else the first."""
    base = declared[0]
    for each in declared:
        if each["ended"] or each["seen"]:
            break
        base = each
    return base


def _rows(table: PlanTable) -> list[dict[str, Any]]:
    found = {(cell.column, cell.row): cell for cell in table.cells}
    return [
        {
            "column": cell.column,
            "row": cell.row,
            "arm": cell.arm_id,
            "versus": versus.row if versus else None,
            "versus_arm": versus.arm_id if versus else None,
            **({"may_fail": True} if cell.may_fail else {}),
        }
        for cell in table.cells
        if cell.arm_id is not None
        for versus in [_reference(cell, found)]
    ]


def _control(table: PlanTable) -> dict[str, Any]:
    """Nothing where there is none, so that older declarations keep their hash."""
    found = control_of(table)
    return {} if found is None else {"control": found}


def _reference(cell: Cell, found: Mapping[tuple[str | None, str], Cell]) -> Cell | None:
    """The trained row that a row is compared with."""
    other = found.get((cell.column, cell.versus)) if cell.versus is not None else None
    return other if other is not None and other.arm_id is not None else None


# What changed from one declaration of a study to the next, in words.


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
    unit = " pp" if after["metric"] in ACCURACIES else ""
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
            yield f"{key} added ({counted(len(new[key]), 'trained row')})"
    for key, rows in old.items():
        if key not in new:
            yield f"{key} left out ({counted(len(rows), 'trained row')})"
        else:
            yield from _changed_rows(key, rows, new[key])
    controls = [{table["key"]: table.get("control") for table in each["tables"]} for each in (before, after)]
    for key in old:
        if key in new and controls[0][key] != controls[1][key]:
            yield f"control of {key} {_named(controls[0][key])} → {_named(controls[1][key])}"


def _changed_rows(key: str, old: Mapping[RowKey, Any], new: Mapping[RowKey, Any]) -> Iterator[str]:
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
        if old[name].get("may_fail") != new[name].get("may_fail"):
            yield f"row {_label(name)} of {key} {'may' if new[name].get('may_fail') else 'must not'} fail"
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


def _named(control: Mapping[str, str] | None) -> str:
    return "none" if control is None else f"“{control['row']}” over “{control['versus']}”"


def _versus(row: str | None) -> str:
    return "no row" if row is None else f"“{row}”"


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:ARM_DIGITS]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
