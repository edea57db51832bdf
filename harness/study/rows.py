"""What the rows and claims of a study ask for, in names and the paper's values, before a size is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.errors import Location, ProblemList, unknown
from harness.spec import ACCURACIES
from harness.study.catalogue import Catalogue, Use
from harness.study.plan import MEASURES, Cell, Claim, PaperValue
from harness.study.schema import ClaimEntry, ControlEntry, NamedArm, Size, StudyFile, Table
from harness.study.yaml import YamlFile

# What the rows of a study ask for, in names, before any number of a size is worked out.


BASELINE = "baseline"  # the name of the arm that changes nothing


class Draft(NamedTuple):
    """A model, changed recipe fields (paper's units) and tricks in order, relative to the baseline."""

    model: Use | None = None  # None: the baseline's
    changes: Mapping[str, Any] = {}
    tricks: tuple[Use, ...] = ()
    recipe: str | None = None  # a named recipe in place of the baseline's and of what the baseline sets

    def then(self, top: Draft) -> Draft:
        """This draft with another one on top: its model and values win, its tricks come last.

        Another recipe replaces every number that was set below it. Changes stay one object where they can.
        """
        if self == _NOTHING:
            return top
        changes = top.changes
        if self.changes and top.recipe is None:
            changes = {**self.changes, **top.changes} if top.changes else self.changes
        return Draft(
            top.model or self.model,
            changes,
            self.tricks + top.tricks,
            top.recipe or self.recipe,
        )


_NOTHING = Draft()


class Row(NamedTuple):
    """One row of a table, whatever design made it. `draft` is relative to `start_from`."""

    label: str
    location: Location
    draft: Draft = Draft()
    start_from: str | None = None  # None: the column's or the table's
    versus: str | None = None  # None: a reference row
    paper: Mapping[str, Any] = {}
    paper_versus: str | None = None
    cite: bool = False
    note: str | None = None
    columns: tuple[str, ...] | None = None
    may_fail: bool = False


class ArmError(ValueError):
    """What is wrong with a named arm, found through a row that needs it."""

    def __init__(self, arm: str, message: str) -> None:
        super().__init__(message)
        self.arm = arm


class Study(NamedTuple):
    """A checked study file: its named arms and the rows of its tables, and where each stands in the file."""

    file: StudyFile
    source: YamlFile
    arms: Mapping[str, Draft]
    rows: Mapping[str, tuple[Row, ...]]  # table key -> rows

    @property
    def name(self) -> str:
        return self.file.study


def draft(model: Use | None, changes: Mapping[str, Any], tricks: tuple[Use, ...]) -> Draft:
    """A draft from the parts of the file; `set: {model: ...}` is a change of the model."""
    if "model" in changes:
        model = changes["model"]
        changes = {name: value for name, value in changes.items() if name != "model"}
    return Draft(model, changes, tricks)


def named_arms(arms: Mapping[str, NamedArm], catalogue: Catalogue, problems: ProblemList) -> dict[str, Draft]:
    """Every named arm on top of the one it starts from; arms in a circle are left out and reported."""
    for name in _in_circles(arms, catalogue, problems):
        arms = {other: arm for other, arm in arms.items() if other != name}
    found: dict[str, Draft] = {BASELINE: Draft()}
    waiting = dict(arms)
    while waiting:
        ready = [name for name, arm in waiting.items() if arm.start in found]
        if not ready:  # they start from arms that do not exist, which the check of names reports
            break
        for name in ready:
            arm = waiting.pop(name)
            own = draft(arm.model, arm.set.values(), arm.add)._replace(recipe=arm.recipe)
            found[name] = found[arm.start].then(own)
    return found


def arms_at(arms: Mapping[str, NamedArm], size: Size) -> dict[str, NamedArm]:
    """The named arms with what a size sets in them, over their own `set`."""
    return {
        name: arm.but(set=arm.set.but(**size.arms[name].values())) if name in size.arms else arm
        for name, arm in arms.items()
    }


def _needed(tricks: tuple[Use, ...], catalogue: Catalogue) -> list[str]:
    """The arms that tricks name: a teacher, a source, a partner."""
    named = []
    for use in tricks:
        entry = catalogue.tricks.get(use.name)
        named += [str(value) for option, value in use.options if entry and option in entry.arms]
    return named


def _in_circles(arms: Mapping[str, NamedArm], catalogue: Catalogue, problems: ProblemList) -> set[str]:
    """Arms that need themselves, through `from` or through a trick that names an arm."""
    needs = {name: [arm.start, *_needed(arm.add, catalogue)] for name, arm in arms.items()}
    circular: set[str] = set()
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circle = path[path.index(name) :]
            if not circular.intersection(circle):
                problems.add(
                    ("arms", circle[0]), f"arms need each other in a circle: {' -> '.join([*circle, name])}"
                )
            circular.update(circle)
            return
        if name in done:
            return
        for other in needs.get(name, []):
            visit(other, [*path, name])
        done.add(name)

    for name in arms:
        visit(name, [])
    return circular


# The printed values of a row: numbers, each marked `verified` or `memory`.
#
# top1 and top5 are accuracies in percent, which the analysis reads. The others are carried along and shown.


SHOWN = {  # positive numbers -> what they are, as a heading
    "top1_std": "std of top-1, points",
    "params_m": "parameters, millions",
    "gflops": "multiply-adds, billions",
    "cost": "cost relative to the first row",
    "cost_bn_ops": "multiply-adds, billions, as the paper counts them",
    "epoch_minutes": "minutes per epoch",
    "steps_to_target_m": "steps to the target, millions",
}
STATUSES = ("verified", "memory")


def paper_values(
    row: Row, columns: tuple[str | None, ...], at: Location, problems: ProblemList
) -> dict[str | None, dict[str, PaperValue]]:
    """Column -> metric -> value. `at` is where the row's printed values are in the file."""
    if columns == (None,):
        return {None: _cell(row.paper, at, problems)} if row.paper else {}
    found: dict[str | None, dict[str, PaperValue]] = {}
    for column, cell in row.paper.items():
        if column not in columns:
            problems.add((*at, column), unknown("column", str(column), [str(name) for name in columns]))
        elif not isinstance(cell, Mapping):
            problems.add((*at, column), f"expected {{top1: ..., status: ...}}, got {cell!r}")
        else:
            found[column] = _cell(cell, (*at, column), problems)
    return found


def _cell(cell: Mapping[str, Any], at: Location, problems: ProblemList) -> dict[str, PaperValue]:
    status = cell.get("status")
    values: dict[str, PaperValue] = {}
    for metric, value in cell.items():
        if metric == "status" or value is None:  # null: not printed
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if metric not in ACCURACIES and metric not in SHOWN:
            problems.add((*at, metric), unknown("metric", str(metric), (*ACCURACIES, *SHOWN, "status")))
        elif metric in ACCURACIES and not (number and 0 <= value <= 100):
            problems.add((*at, metric), f"{metric} must be a percentage from 0 to 100, got {value!r}")
        elif metric in SHOWN and not (number and 0 < value < math.inf):
            problems.add((*at, metric), f"{metric} must be a number greater than 0, got {value!r}")
        else:
            mark = status.get(metric) if isinstance(status, Mapping) else status
            values[metric] = PaperValue(value=float(value), status=_mark(metric, mark, at, problems))
    return values


def _mark(metric: str, mark: Any, at: Location, problems: ProblemList) -> str:
    if mark is None:
        problems.add(at, f"the printed {metric} has no status; say 'status: verified' or 'status: memory'")
    elif mark not in STATUSES:
        problems.add((*at, "status"), unknown("status", str(mark), STATUSES))
    return str(mark)


def check_may_fail(
    row: Row,
    columns: tuple[str | None, ...],
    values: Mapping[str | None, Mapping[str, PaperValue]],
    problems: ProblemList,
) -> None:
    """Add what is wrong with a row that may fail; `values`: what `paper_values` found of it."""
    at = (*row.location, "may_fail")
    if row.cite:
        problems.add(at, f"row '{row.label}' is quoted (cite): nothing of ours can fail")
    lacking = [
        column
        for column in columns
        if (row.columns is None or column in row.columns) and not values.get(column)
    ]
    if lacking:
        where = "".join(f" in column '{column}'" for column in lacking if column is not None)
        text = f"row '{row.label}' may fail only where it did in the paper: give its printed value{where}"
        problems.add(at, text)


# The claims of a study and the targets of its tables, checked against the rows that answer them.


STEPS = "steps_to_target"


def check_claims(file: StudyFile, rows: Mapping[str, tuple[Row, ...]], problems: ProblemList) -> None:
    """Add every claim and target that names a table, row or column that is not there or not trained."""
    for key, table in file.tables.items():
        if table.target is not None and table.target.row is not None:
            at: Location = ("tables", key, "target", "row")
            _check_row(table.target.row, rows.get(key, ()), at, problems)
        if table.control is not None:
            _check_control(table.control, ("tables", key, "control"), rows.get(key, ()), problems)
    for index, claim in enumerate(file.claims):
        _check(claim, ("claims", index), file, rows, problems)


def claims_of(file: StudyFile, metric: str) -> tuple[Claim, ...]:
    """The claims of a checked study at a size with this metric, each with both its columns."""
    return tuple(
        Claim(
            says=entry.says,
            source=entry.source,
            table=entry.table,
            row=entry.row,
            versus=entry.versus,
            column=entry.column,
            versus_column=entry.versus_column or entry.column,
            measure=entry.measure or metric,
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
    metrics = [file.metric, *(size.metric for size in file.sizes.values() if size.metric)]
    if claim.measure is None and any(metric not in ACCURACIES for metric in metrics):
        problems.add(at, f"missing key 'measure', one of {', '.join(MEASURES)}: the metric is none of them")
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


def control_in(table: Table, cells: tuple[Cell, ...]) -> tuple[str, str] | None:
    """Its two rows; without `versus`, the second is the one that the first is compared with."""
    if table.control is None:
        return None
    own = next((cell.versus for cell in cells if cell.row == table.control.row), None)
    versus = table.control.versus or own
    return None if versus is None else (table.control.row, versus)


def _check_control(control: ControlEntry, at: Location, rows: tuple[Row, ...], problems: ProblemList) -> None:
    row = _check_row(control.row, rows, (*at, "row"), problems)
    if row is None or row.cite:
        return
    if control.versus is not None and _check_row(control.versus, rows, (*at, "versus"), problems) is None:
        return
    if control.versus == row.label:
        problems.add((*at, "versus"), f"the control compares row '{row.label}' with itself")
    elif row.versus is None:
        problems.add((*at, "row"), f"row '{row.label}' is compared with no row; name one that is")
    elif control.versus not in (None, row.versus):
        text = f"row '{row.label}' is compared with '{row.versus}' in this table, not with '{control.versus}'"
        problems.add((*at, "versus"), text)


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
