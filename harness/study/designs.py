"""How a table's rows are made. Every design is one function that returns the same plain rows.

Adding a design: one function and one entry in `DESIGNS`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from harness.study.drafts import Draft, Row, draft
from harness.study.fractions_of_tricks import fraction
from harness.study.grid import grid_rows
from harness.study.problems import Location, ProblemList, unknown
from harness.study.schema import RowEntry, Table
from harness.study.uses import Use

MOST_ROWS = 200_000  # of a study; more is a mistake in the file rather than a plan


def make_rows(key: str, table: Table, problems: ProblemList) -> tuple[Row, ...]:
    """The rows of a table, in order, with `versus` filled in; mistakes are added to `problems`."""
    at: Location = ("tables", key)
    design = DESIGNS.get(table.design)
    if design is None:
        problems.add((*at, "design"), unknown("design", table.design, DESIGNS))
        return ()
    given = table.model_fields_set & _OF_DESIGNS
    for name in sorted(given - design.keys):
        takes = ", ".join(sorted(design.keys))
        problems.add(
            (*at, name), f"the design '{table.design}' does not use the key '{name}'; it takes {takes}"
        )
    if not getattr(table, design.rows_from):
        problems.add(at, f"table '{key}' is empty: the design '{table.design}' needs '{design.rows_from}'")
        return ()
    rows = tuple(design.make(table, at, problems))
    if "paper" in design.keys:
        rows = _with_paper(rows, table, at, problems)
    return rows


def _rows(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """As written. Each is compared with the row it names, or with the first one that is trained."""
    first: str | None = None
    for index, entry in enumerate(table.rows):
        here = (*at, "rows", index)
        if entry.on is not None:
            problems.add((*here, "on"), "'on' belongs to the design 'stack'; here, say start_from")
        change = draft(None, entry.set.values(), entry.add)
        yield _row(entry, here, change, entry.start_from, entry.versus or first)
        if first is None and not entry.cite:
            first = entry.label


def _stack(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Each row adds to the one above (or to the row named by `on`) and is compared with it."""
    done: dict[str, tuple[Draft, str | None]] = {}
    above: str | None = None
    for index, entry in enumerate(table.rows):
        here = (*at, "rows", index)
        if entry.cite:
            yield _row(entry, here, draft(None, entry.set.values(), entry.add), entry.start_from, None)
            continue
        base = entry.on or (None if entry.start_from else above)
        if entry.on is not None and entry.on not in done:
            problems.add((*here, "on"), unknown("earlier row", entry.on, done))
            base = above
        below, start_from = done[base] if base else (Draft(), entry.start_from)
        change = below.then(draft(None, entry.set.values(), entry.add))
        versus = entry.versus or base or (next(iter(done), None))
        yield _row(entry, here, change, start_from, versus)
        done[entry.label] = (change, start_from)
        above = entry.label


def _add_one_in(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """The starting point, then one row per trick that adds it alone. All are compared with the first."""
    here = (*at, "tricks")
    yield Row("baseline", here)
    for use in table.tricks:
        yield Row(f"+ {use}", here, Draft(tricks=(use,)), versus="baseline")


def _leave_one_out(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Every trick, then one row per trick that leaves it out. All are compared with the first."""
    here = (*at, "tricks")
    yield Row("all", here, Draft(tricks=table.tricks))
    for index, use in enumerate(table.tricks):
        rest = table.tricks[:index] + table.tricks[index + 1 :]
        yield Row(f"without {use}", here, Draft(tricks=rest), versus="all")


def _both_ends(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """`add_one_in` and `leave_one_out` in one table, 2T + 2 rows: what each trick does first, and last.

    With all tricks on, the row is compared with the one that has none.
    """
    yield from _add_one_in(table, at, problems)
    every, *without = _leave_one_out(table, at, problems)
    yield every._replace(versus="baseline")
    yield from without


def _both_ways(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """The tricks added in the given order, and once more from the last to the first: 2T rows.

    Each row is compared with the one before it on its way; the ways share the first row and the last one.
    """
    here, tricks = (*at, "tricks"), table.tricks
    yield Row("baseline", here)
    above = "baseline"
    for index, use in enumerate(tricks):
        yield Row(f"+ {use}", here, Draft(tricks=tricks[: index + 1]), versus=above)
        above = f"+ {use}"
    above = "baseline"
    for index in range(len(tricks) - 1, 0, -1):
        label = f"+ {tricks[index]} (reverse order)"
        yield Row(label, here, Draft(tricks=tricks[index:]), versus=above)
        above = label


def _factorial(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Every subset of the tricks, 2^T rows. All are compared with the first, which has none of them."""
    if 2 ** len(table.tricks) > MOST_ROWS:
        problems.add(
            (*at, "tricks"),
            f"{len(table.tricks)} tricks have 2^{len(table.tricks)} subsets, more than {MOST_ROWS};"
            " use the design 'fractional'",
        )
        return
    switches = itertools.product((False, True), repeat=len(table.tricks))
    yield from _subsets(table.tricks, switches, (*at, "tricks"))


def _fractional(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """A regular fraction of the subsets that keeps effects apart up to `resolution` (default 5)."""
    try:
        switches = fraction(len(table.tricks), table.resolution or 5)
    except ValueError as error:
        problems.add((*at, "tricks"), str(error))
        return
    yield from _subsets(table.tricks, switches, (*at, "tricks"))


def _grid(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Every combination of the factors' levels but the excluded ones; all are compared with the first."""
    count = math.prod(len(levels) for levels in table.factors.values())
    if count > MOST_ROWS:
        problems.add((*at, "factors"), f"the factors have {count} combinations, more than {MOST_ROWS}")
        return ()
    return grid_rows(table, at, problems)


def _subsets(tricks: tuple[Use, ...], switches: Iterable[Iterable[bool]], here: Location) -> Iterable[Row]:
    first: str | None = None
    for row in switches:
        on = tuple(use for use, is_on in zip(tricks, row, strict=True) if is_on)
        label = " + ".join(map(str, on)) or "none"
        yield Row(label, here, Draft(tricks=on), versus=first)
        first = first or label


def _row(entry: RowEntry, at: Location, change: Draft, start_from: str | None, versus: str | None) -> Row:
    return Row(
        entry.label, at, change, start_from, versus, entry.paper, entry.paper_versus, entry.cite, entry.note,
        entry.columns,
    )  # fmt: skip


def _with_paper(rows: tuple[Row, ...], table: Table, at: Location, problems: ProblemList) -> tuple[Row, ...]:
    if not table.paper:
        return rows
    labels = {row.label for row in rows}
    for label in table.paper:
        if label not in labels:
            problems.add((*at, "paper", label), unknown("row", label, labels))
    return tuple(
        row._replace(paper=table.paper[row.label], location=(*at, "paper", row.label))
        if row.label in table.paper
        else row
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class Design:
    """A way to make rows: the function, the key it reads them from, and every key it takes."""

    make: Callable[[Table, Location, ProblemList], Iterable[Row]]
    rows_from: str
    keys: frozenset[str]


_OF_DESIGNS = frozenset({"rows", "tricks", "factors", "exclude", "resolution", "paper"})

DESIGNS: Mapping[str, Design] = {
    "rows": Design(_rows, "rows", frozenset({"rows"})),
    "stack": Design(_stack, "rows", frozenset({"rows"})),
    "add_one_in": Design(_add_one_in, "tricks", frozenset({"tricks", "paper"})),
    "leave_one_out": Design(_leave_one_out, "tricks", frozenset({"tricks", "paper"})),
    "both_ends": Design(_both_ends, "tricks", frozenset({"tricks", "paper"})),
    "both_ways": Design(_both_ways, "tricks", frozenset({"tricks", "paper"})),
    "grid": Design(_grid, "factors", frozenset({"factors", "exclude", "paper"})),
    "factorial": Design(_factorial, "tricks", frozenset({"tricks", "paper"})),
    "fractional": Design(_fractional, "tricks", frozenset({"tricks", "resolution", "paper"})),
}
