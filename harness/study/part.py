"""Which of a plan's runs are asked for, and in which order a reader wants them. Pure; results play no part.

A part is some cells of a plan. Its runs are those of these cells, of the rows that they are compared with, of
their tables' controls, and what all of those need (teachers, sources, observed networks). What is declared,
and the family that verdicts are of, stay those of the whole plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.errors import Problem, StudyError, counted, shortened, unknown
from harness.study.plan import Cell, Claim, Plan, PlannedRun, PlanTable

CellName = tuple[str, str, str | None]  # table, row, column
MOST_NAMED = 6  # rows or tables in one sentence


class PartNames(NamedTuple):
    """What a user names: keys or titles of tables, labels of rows, names of columns; none: all of them."""

    tables: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tables or self.rows or self.columns)

    def to_json(self) -> dict[str, Any]:
        """As a report keeps it."""
        return {"tables": list(self.tables), "rows": list(self.rows), "columns": list(self.columns)}


class PlanPart(NamedTuple):
    """Some cells of a plan, and the runs that they need."""

    whole: Plan
    plan: Plan  # the same with the tables, arms, runs and claims of the part alone
    names: PartNames
    cells: frozenset[CellName]  # that were asked for
    says: str  # in words, for example "table6 (row + mixup; column MobileNet)"
    with_it: tuple[str, ...]  # why further recipes are trained, a phrase each

    @property
    def line(self) -> str:
        """For people: what it is, how much of the whole, and what else it needs."""
        text = (
            f"part of the study: {self.says}; {len(self.plan.runs)} of {counted(len(self.whole.runs), 'run')}"
        )
        return f"{text}; with it {_listed(self.with_it)}" if self.with_it else text

    def to_json(self) -> dict[str, Any]:
        """The key `part` of plan and status, as docs/json.md says."""
        return {**self.names.to_json(), "says": self.line}


def part_of(plan: Plan, names: PartNames, path: str) -> PlanPart:
    """The part that was named.

    path: of the study, for messages.

    Raises:
        StudyError: a name that the study does not have, or a label that several of its tables have while none
            of them is named; the nearest name and the valid ones.
    """
    problems: list[str] = []
    tables = _tables(plan, names, problems)
    cells = _cells(tables, names, problems) if not problems else []
    if not problems and not any(cell.arm_id for _, cell in cells):
        problems.append("nothing of this part is trained: its rows are quoted numbers")
    if problems:
        raise StudyError([Problem(path, 0, text) for text in dict.fromkeys(problems)])
    asked = frozenset((table.key, cell.row, cell.column) for table, cell in cells)
    beside = _beside(plan, asked)
    own = {cell.arm_id: "" for _, cell in cells if cell.arm_id}
    why = {**{arm: text for arm, text in beside.values()}, **own}
    runs, needed = _runs(plan, why)
    return PlanPart(
        whole=plan,
        plan=_only(plan, asked | beside.keys(), runs),
        names=names,
        cells=asked,
        says=_says(plan, asked),
        with_it=tuple(
            f"{plan.arm_labels[arm_id]} ({text})" for arm_id, text in {**why, **needed}.items() if text
        ),
    )


def _tables(plan: Plan, names: PartNames, problems: list[str]) -> list[PlanTable]:
    """Those that are named, in the order of the plan; all where none is."""
    keys = {name: table.key for table in plan.tables for name in (table.title, table.key)}
    for name in names.tables:
        if name not in keys:
            problems.append(unknown("table", name, [table.key for table in plan.tables]))
    wanted = {keys[name] for name in names.tables if name in keys}
    return [table for table in plan.tables if not names.tables or table.key in wanted]


def _cells(
    tables: Sequence[PlanTable], names: PartNames, problems: list[str]
) -> list[tuple[PlanTable, Cell]]:
    """What the names leave of the tables; what is wrong with the names is added to `problems`."""
    rows = {cell.row for table in tables for cell in table.cells}
    columns = {cell.column for table in tables for cell in table.cells if cell.column is not None}
    problems += [unknown("row", name, rows) for name in names.rows if name not in rows]
    if names.columns and not columns:
        named = ", ".join(table.key for table in tables[:MOST_NAMED])
        problems.append(f"no columns in {named}; leave --column out")
    else:
        problems += [unknown("column", name, columns) for name in names.columns if name not in columns]
    if problems:
        return []
    found = [
        (table, cell)
        for table in tables
        for cell in table.cells
        if (not names.rows or cell.row in names.rows) and (not names.columns or cell.column in names.columns)
    ]
    if not found:
        problems.append("no row that is named is in a column that is named")
        return []
    for kind, wanted, read in (
        ("row", names.rows, lambda cell: cell.row),
        ("column", names.columns, lambda cell: cell.column),
    ):
        for name in wanted:
            having = list(dict.fromkeys(table.key for table, cell in found if read(cell) == name))
            if not having:
                problems.append(f"the {kind} '{shortened(name)}' has no cell in common with the other names")
            elif len(having) > 1 and not names.tables:
                ways = ", ".join(f"--table {key}" for key in having[:MOST_NAMED])
                problems.append(
                    f"the {kind} '{shortened(name)}' is in {len(having)} tables; say which: {ways}"
                )
    without = [table.key for table in tables if all(table is not each for each, _ in found)]
    if names.tables and not problems:
        problems += [f"the table '{key}' has none of the rows and columns that are named" for key in without]
    return found


def _beside(plan: Plan, asked: frozenset[CellName]) -> dict[CellName, tuple[str, str]]:
    """Trained cells that verdicts of the part rest on, outside it -> (arm, why)."""
    found: dict[CellName, tuple[str, str]] = {}
    for table in plan.tables:
        cells = {(cell.row, cell.column): cell for cell in table.cells}
        own = [cell for cell in table.cells if (table.key, cell.row, cell.column) in asked]
        wanted = [
            ((cell.versus, cell.column), f"{cell.row} is compared with it") for cell in own if cell.versus
        ]
        if table.control is not None:
            columns = dict.fromkeys(cell.column for cell in own)
            wanted += [((row, column), "control") for row in table.control for column in columns]
        for place, why in wanted:
            other = cells.get(place)
            if other is not None and other.arm_id is not None and (table.key, *place) not in asked:
                found.setdefault((table.key, *place), (other.arm_id, why))
    return found


def _runs(plan: Plan, arms: Mapping[str, Any]) -> tuple[list[PlannedRun], dict[str, str]]:
    """The runs of these arms with all that they need, in the plan's order; and further arms -> why."""
    known = {run.run_id: run for run in plan.runs}
    wanted = [run for run in plan.runs if run.arm_id in arms and run.seed in plan.seeds]
    seen = {run.run_id for run in wanted}
    why: dict[str, str] = {}
    while wanted:
        run = wanted.pop()
        for need in run.needs:
            if need in known and need not in seen:
                seen.add(need)
                wanted.append(known[need])
                if known[need].arm_id not in arms:
                    why.setdefault(known[need].arm_id, _role(plan, run.arm_id, known[need].arm_id))
    return [run for run in plan.runs if run.run_id in seen], why


def _role(plan: Plan, arm_id: str, need_arm: str) -> str:
    arm = plan.arms[arm_id]
    if arm.teacher == need_arm:
        return "a teacher"
    return "networks that are evaluated" if arm.observes else "the training that another starts from"


def _only(plan: Plan, cells: frozenset[CellName], runs: list[PlannedRun]) -> Plan:
    """The plan with these cells and runs alone."""
    tables = []
    for table in plan.tables:
        own = tuple(cell for cell in table.cells if (table.key, cell.row, cell.column) in cells)
        columns = tuple(name for name in table.columns if any(cell.column == name for cell in own))
        if own:
            tables.append(dataclasses.replace(table, cells=own, columns=columns))
    arms = {run.arm_id for run in runs}
    return dataclasses.replace(
        plan,
        tables=tuple(tables),
        arms={arm_id: arm for arm_id, arm in plan.arms.items() if arm_id in arms},
        scripts={arm_id: arm for arm_id, arm in plan.scripts.items() if arm_id in arms},
        arm_labels={arm_id: label for arm_id, label in plan.arm_labels.items() if arm_id in arms},
        arm_seeds={arm_id: count for arm_id, count in plan.arm_seeds.items() if arm_id in arms},
        runs=runs,
        claims=tuple(claim for claim in plan.claims if _cells_of(plan, claim) <= cells),
    )


def _cells_of(plan: Plan, claim: Claim) -> set[CellName]:
    """The two cells that answer a claim; without a column, the first that has the row."""
    cells = [cell for table in plan.tables if table.key == claim.table for cell in table.cells]

    def place(row: str, column: str | None) -> CellName:
        there = (cell.column for cell in cells if cell.row == row and column in (None, cell.column))
        return claim.table, row, next(there, column)

    first = place(claim.row, claim.column)
    return {first, place(claim.versus, claim.versus_column or first[2])}


def _says(plan: Plan, asked: frozenset[CellName]) -> str:
    """The part in words: a table whole, or with the rows and columns that it has of it."""
    texts = []
    for table in plan.tables:
        own = [cell for cell in table.cells if (table.key, cell.row, cell.column) in asked]
        rows = list(dict.fromkeys(cell.row for cell in own))
        columns = list(dict.fromkeys(cell.column for cell in own))
        limits = []
        if len(rows) < len({cell.row for cell in table.cells}):
            limits.append(f"{'row' if len(rows) == 1 else 'rows'} {_listed(rows)}")
        if len(columns) < len(table.columns):
            names = [name for name in columns if name is not None]
            limits.append(f"{'column' if len(names) == 1 else 'columns'} {_listed(names)}")
        if own:
            texts.append(f"{table.key} ({'; '.join(limits)})" if limits else table.key)
    return _listed(texts)


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - MOST_NAMED
    return ", ".join(texts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


# The order in which a budget is spent. It depends on the plan alone.


def breadth_first(plan: Plan) -> list[PlannedRun]:
    """Every run once, as a reader wants them: one seed of every row of the first table, then its next seed,
    and so on, then the next table; what a run needs goes before it. Tables of `plan.priority` are first."""
    known = {run.run_id: run for run in plan.runs}
    by_place = {(run.arm_id, run.seed): run for run in plan.runs}
    ordered: dict[str, PlannedRun] = {}

    def add(run: PlannedRun) -> None:
        if run.run_id not in ordered:
            for need in run.needs:
                if need in known:
                    add(known[need])
            ordered[run.run_id] = run

    for table in by_priority(plan):
        arms = dict.fromkeys(cell.arm_id for cell in table.cells if cell.arm_id is not None)
        for seed in plan.seeds:
            for arm_id in arms:
                if (run := by_place.get((arm_id, seed))) is not None:
                    add(run)
    for run in plan.runs:
        add(run)
    return list(ordered.values())


def by_priority(plan: Plan) -> list[PlanTable]:
    """The tables in the order in which a budget is spent on them."""
    first = {key: place for place, key in enumerate(plan.priority)}
    return sorted(plan.tables, key=lambda table: first.get(table.key, len(first)))
