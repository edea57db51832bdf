"""Verdicts from contrasts that were not declared before results were there are marked as exploratory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from harness.analysis.findings import CellFinding, Findings, TableFinding

EXPLORATORY = " Exploratory: not declared before results were there."


def mark_exploratory(findings: Findings, keys: Collection[tuple[str, str | None, str]]) -> Findings:
    """The findings with `Effect.exploratory` set for these (table, column, row); no number changes.

    They stay in the Holm family, which is that of the plan as it is now: taking them out would make the
    tests of the other rows easier after results were seen.
    """
    if not keys:
        return findings
    tables = tuple(_marked(table, keys) for table in findings.tables)
    return dataclasses.replace(findings, tables=tables)


def _marked(table: TableFinding, keys: Collection[tuple[str, str | None, str]]) -> TableFinding:
    cells = tuple(
        _marked_cell(cell) if (table.key, cell.column, cell.row) in keys else cell for cell in table.cells
    )
    return dataclasses.replace(table, cells=cells)


def _marked_cell(cell: CellFinding) -> CellFinding:
    if cell.effect is None:
        return cell
    effect = dataclasses.replace(cell.effect, exploratory=True)
    return dataclasses.replace(cell, effect=effect, sentence=cell.sentence + EXPLORATORY)
