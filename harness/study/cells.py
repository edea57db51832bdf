"""The cells of a study's tables at one size: the arm that answers each, its comparison, what was printed."""

from __future__ import annotations

from collections.abc import Mapping

from harness.study.drafts import Draft, Row, Study, draft
from harness.study.lookups import Unusable
from harness.study.paper import paper_values
from harness.study.plan import Cell, PaperValue, PlanTable
from harness.study.problems import Location, ProblemList, unknown
from harness.study.resolve import ArmError, Resolver
from harness.study.schema import Table
from harness.study.uses import Use, short_names


def check_rows(key: str, table: Table, rows: tuple[Row, ...], problems: ProblemList) -> None:
    """Add what is wrong with the rows of a table at every size: labels, references, printed values."""
    seen: dict[str, Row] = {}
    for row in rows:
        if row.label in seen:
            problems.add((*row.location, "label"), f"duplicate row label '{row.label}' in table '{key}'")
        seen.setdefault(row.label, row)
    if rows and all(row.cite for row in rows):
        problems.add(("tables", key), f"table '{key}' trains nothing: every row is a quoted number")
    columns = _columns(table)
    for row in rows:
        _check_references(row, seen, columns, problems)
        if row.paper:
            paper_values(row, columns, _paper_at(row), problems)


def resolve_table(key: str, study: Study, resolver: Resolver, problems: ProblemList, size: str) -> PlanTable:
    """The table's cells in reading order. A cell that cannot be resolved is reported and left out."""
    table = study.file.tables[key]
    columns, switches = _columns(table), short_names(table.tricks)
    bases: dict[tuple[str | None, str], Draft] = {}
    cells = []
    for row in study.rows[key]:
        values = paper_values(row, columns, _paper_at(row), problems) if row.paper else {}
        for column in columns:
            if row.columns is not None and column not in row.columns:
                continue
            if row.cite:
                cells.append(_cell(row, column, values, None, ()))
                continue
            settings = table.columns[column] if column is not None else None
            start = row.start_from or (settings and settings.start_from) or table.start_from
            base = bases.get((column, start))
            if base is None:
                if start not in study.arms:
                    continue  # reported with the names
                own = draft(settings.model, settings.set.values(), ()) if settings else Draft()
                base = bases[column, start] = own.then(study.arms[start])
            try:
                found = resolver.arm_id(base.then(row.draft))
            except Unusable:  # reported with the names
                continue
            except ValueError as error:
                shown = f"{key}, row '{row.label}'" + (f", column '{column}'" if column else "")
                at = ("arms", error.arm) if isinstance(error, ArmError) else row.location
                problems.add(at, str(error), row=shown, size=size)
                continue
            cells.append(_cell(row, column, values, *found, switches))
    return _table(key, table, tuple(cells))


def _table(key: str, table: Table, cells: tuple[Cell, ...]) -> PlanTable:
    return PlanTable(
        key=key,
        title=table.title,
        design=table.design,
        columns=_columns(table),
        cells=cells,
        note=table.note,
        target=table.target.model_dump(exclude_none=True) if table.target else None,
        switches=tuple(short_names(table.tricks).values()),
        ground=f"{table.start_from} {table.columns} {sorted(map(str, table.tricks))}" if table.tricks else "",
    )


def _cell(
    row: Row,
    column: str | None,
    values: Mapping[str | None, Mapping[str, PaperValue]],
    arm_id: str | None,
    tricks: tuple[str, ...],
    switches: Mapping[Use, str] | None = None,
) -> Cell:
    return Cell(
        row=row.label,
        column=column,
        arm_id=arm_id,
        tricks=tricks,
        versus=row.versus if arm_id else None,
        paper=values.get(column, {}) if values else {},
        paper_versus=row.paper_versus,
        note=row.note,
        switched_on=tuple(switches[use] for use in row.draft.tricks) if switches else None,
    )


def _columns(table: Table) -> tuple[str | None, ...]:
    return tuple(table.columns) or (None,)


def _paper_at(row: Row) -> Location:
    return row.location if "paper" in row.location else (*row.location, "paper")


def _check_references(
    row: Row, rows: Mapping[str, Row], columns: tuple[str | None, ...], problems: ProblemList
) -> None:
    for column in row.columns or ():
        if column not in columns:
            names = [name for name in columns if name is not None]
            problems.add((*row.location, "columns"), unknown("column", column, names))
    if row.cite:
        _check_quoted(row, problems)
        return
    if row.versus is not None:
        _check_other(row, row.versus, "versus", rows, problems)
        other = rows.get(row.versus)
        lacking: set[str | None] = set()
        if other is not None and other.columns is not None:
            lacking = _exists_in(row, columns) - _exists_in(other, columns)
        if other and other.cite:
            message = f"row '{row.versus}' is quoted, not trained; nothing can be compared with it"
            problems.add((*row.location, "versus"), message)
        elif lacking:
            names = sorted(str(column) for column in lacking)
            message = (
                f"row '{row.versus}' is not in column {', '.join(names)}; name another row with 'versus'"
            )
            problems.add((*row.location, "versus"), message)
    if row.paper_versus is not None:
        _check_other(row, row.paper_versus, "paper_versus", rows, problems)


def _check_quoted(row: Row, problems: ProblemList) -> None:
    if not row.paper:
        problems.add(row.location, f"row '{row.label}' is quoted (cite) but has no 'paper' values")
    if row.draft != Draft() or row.start_from:
        message = (
            f"row '{row.label}' is quoted (cite): nothing is trained, so it takes no add, set or start_from"
        )
        problems.add(row.location, message)


def _check_other(row: Row, name: str, key: str, rows: Mapping[str, Row], problems: ProblemList) -> None:
    if name not in rows:
        problems.add((*row.location, key), unknown("row", name, rows))
    elif rows[name] is row:
        problems.add((*row.location, key), f"row '{row.label}' cannot be compared with itself")


def _exists_in(row: Row, columns: tuple[str | None, ...]) -> set[str | None]:
    return set(columns if row.columns is None else row.columns)
