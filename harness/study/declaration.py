"""What a study declares before its first run: what is compared, on what metric, with how many seeds.

The plan hash is the sha256 of the canonical JSON of that declaration. It holds nothing that results could
change: a plan that grew by another block of seeds has the hash it had before.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from harness.study.plan import Cell, Plan, PlanTable
from harness.study.spec import canonical_json

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
    plugins {name: sha256 of its code}.
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
        "tables": [{"key": table.key, "rows": _rows(table)} for table in plan.tables],
        "claims": [dataclasses.asdict(claim) for claim in plan.claims],
        "plugins": {name: digest for arm in arms for name, digest in arm.plugins.items()},
    }


def plan_hash(declaration: Declaration) -> str:
    """64 hexadecimal digits.

    Raises:
        ValueError, TypeError: it holds something that is no JSON.
    """
    return hashlib.sha256(canonical_json(declaration).encode()).hexdigest()


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
    names another metric. Nothing is where nothing was recorded: then a report says that.
    """
    if not declared:
        return frozenset()
    now = declaration_of(plan)
    base = declared_before_results(declared)["declaration"]
    before, after = contrasts(base), contrasts(now)
    same_metric = base["metric"] == now["metric"]
    return frozenset(key for key, what in after.items() if not same_metric or before.get(key) != what)


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
        }
        for cell in table.cells
        if cell.arm_id is not None
        for versus in [_reference(cell, found)]
    ]


def _reference(cell: Cell, found: Mapping[tuple[str | None, str], Cell]) -> Cell | None:
    """The trained row that a row is compared with."""
    other = found.get((cell.column, cell.versus)) if cell.versus is not None else None
    return other if other is not None and other.arm_id is not None else None
