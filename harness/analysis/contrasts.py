"""The declared contrasts of one table: which distinct arms it has, and which is held against which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.comparisons import Pair
from harness.analysis.sharing import Relations, roots_where_shared
from harness.study.plan import Cell, PlanTable

Roots = Mapping[str, frozenset[str]]  # arm_id -> the trained arms whose networks it evaluates


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrasts:
    """One table's family of tests."""

    arms: tuple[str, ...]  # distinct arm_ids in reading order
    names: tuple[tuple[str, str], ...]  # distinct (arm_id, arm_id of its reference)
    relations: Relations

    @property
    def pairs(self) -> list[Pair]:
        """The same by position in `arms`."""
        return [(self.arms.index(arm), self.arms.index(versus)) for arm, versus in self.names]


def contrasts_of(table: PlanTable, roots: Roots) -> Contrasts:
    """Every contrast once. A row that is the same arm as its reference at this size is none."""
    columns = by_column(table)
    arms = tuple(dict.fromkeys(cell.arm_id for cell in table.cells if cell.arm_id is not None))
    names = [
        (cell.arm_id, reference.arm_id)
        for cell in table.cells
        if (reference := reference_of(cell, columns)) and cell.arm_id and reference.arm_id
    ]
    several = None
    if len(table.columns) > 1:
        several = [frozenset(cell.column for cell in table.cells if cell.arm_id == arm) for arm in arms]
    return Contrasts(
        arms=arms,
        names=tuple(pair for pair in dict.fromkeys(names) if pair[0] != pair[1]),
        relations=Relations(roots_where_shared(arms, roots), several),
    )


def by_column(table: PlanTable) -> dict[str | None, dict[str, Cell]]:
    """column -> row -> cell."""
    columns: dict[str | None, dict[str, Cell]] = {}
    for cell in table.cells:
        columns.setdefault(cell.column, {})[cell.row] = cell
    return columns


def reference_of(cell: Cell, columns: Mapping[str | None, Mapping[str, Cell]]) -> Cell | None:
    """The cell that this one is compared with; None where there is none."""
    return columns[cell.column].get(cell.versus) if cell.versus is not None else None
