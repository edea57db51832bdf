"""The claims of a study and the targets of its tables, checked against the rows that answer them."""

from __future__ import annotations

from collections.abc import Mapping

from harness.study.drafts import Row
from harness.study.plan import Claim
from harness.study.problems import Location, ProblemList, unknown
from harness.study.schema import ClaimEntry, StudyFile

STEPS = "steps_to_target"


def check_claims(file: StudyFile, rows: Mapping[str, tuple[Row, ...]], problems: ProblemList) -> None:
    """Add every claim and target that names a table, row or column that is not there or not trained."""
    for key, table in file.tables.items():
        if table.target is not None and table.target.row is not None:
            at: Location = ("tables", key, "target", "row")
            _check_row(table.target.row, rows.get(key, ()), at, problems)
    for index, claim in enumerate(file.claims):
        _check(claim, ("claims", index), file, rows, problems)


def claims_of(file: StudyFile) -> tuple[Claim, ...]:
    """The claims of a checked study, each with both its columns."""
    return tuple(
        Claim(
            says=entry.says,
            source=entry.source,
            table=entry.table,
            row=entry.row,
            versus=entry.versus,
            column=entry.column,
            versus_column=entry.versus_column or entry.column,
            measure=entry.measure,
            expect=entry.expect,
        )
        for entry in file.claims
    )


def _check(
    claim: ClaimEntry,
    at: Location,
    file: StudyFile,
    rows: Mapping[str, tuple[Row, ...]],
    problems: ProblemList,
) -> None:
    table = file.tables.get(claim.table)
    if table is None:
        problems.add((*at, "table"), unknown("table", claim.table, file.tables))
        return
    if claim.measure == STEPS and table.target is None:
        message = (
            f"'{STEPS}' needs to know which accuracy: give table '{claim.table}' the key"
            " target: {row: LABEL} or {top1: PERCENT}"
        )
        problems.add((*at, "measure"), message)
    if (claim.row, claim.column) == (claim.versus, claim.versus_column or claim.column):
        problems.add((*at, "versus"), f"row '{claim.row}' is compared with itself")
    own = rows.get(claim.table, ())
    for key, label, column in (
        ("row", claim.row, claim.column),
        ("versus", claim.versus, claim.versus_column or claim.column),
    ):
        row = _check_row(label, own, (*at, key), problems)
        if row is not None:
            _check_column(row, column, (*at, key), tuple(table.columns), problems)


def _check_row(label: str, rows: tuple[Row, ...], at: Location, problems: ProblemList) -> Row | None:
    found = next((row for row in rows if row.label == label), None)
    if found is None:
        problems.add(at, unknown("row", label, (row.label for row in rows)))
    elif found.cite:
        problems.add(at, f"row '{label}' is quoted, not trained; nothing of ours can be compared with it")
    return found


def _check_column(
    row: Row, column: str | None, at: Location, columns: tuple[str, ...], problems: ProblemList
) -> None:
    valid = columns if row.columns is None else row.columns
    if column is None and columns:
        problems.add(at, f"the table has columns; say which: {', '.join(valid)}")
    elif column is not None and column not in valid:
        problems.add(at, f"row '{row.label}': {unknown('column', column, valid)}")
