"""The paper's claims, each answered by paired differences; and the steps to a target accuracy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.findings import (
    NO,
    NOT_SETTLED,
    YES,
    ClaimFinding,
    Outcome,
    Outcomes,
    SpeedFinding,
    SpeedPanel,
    SpeedRow,
)
from harness.analysis.intervals import (
    Looks,
    Stage,
    fewest_for,
    half_width,
    holm,
    mean,
    p_value,
    repeated_p,
    sign_test,
)
from harness.analysis.verdicts import MEMORY, SAME_RUN, VERIFIED, no_value, too_many_diverged
from harness.spec import DIVERGED, FINISHED
from harness.study.declaration import ALPHA
from harness.study.plan import Cell, Claim, PaperValue, PlanTable

if TYPE_CHECKING:
    import pandas as pd

# How many optimizer steps a row's runs need to a stated accuracy, read from the learning curves.
#
# The target of a table is an accuracy, or what one of its rows reaches: the mean over seeds of the curve in
# the row's last epoch, lowered where needed to the best point of its weakest run, so that every run of that
# row reaches it. A run reaches the target at its first curve point that is not below it; nothing is
# interpolated: steps are known to the distance of two curve points.


STEPS_M = "steps_to_target_m"  # the printed value, in millions
EPS = 1e-9


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's curve, ascending in steps. Arrays (P,), P >= 1."""

    steps: NDArray[np.int64]
    epochs: NDArray[np.float64]
    top1: NDArray[np.float64]  # percent

    @property
    def last_step(self) -> int:
        return int(self.steps[-1])

    def first_at(self, level: float) -> int | None:
        """The step of the first point at or above `level`; None where there is none."""
        found = np.flatnonzero(self.top1 >= level - EPS)
        return int(self.steps[found[0]]) if found.size else None

    @property
    def final(self) -> float:
        """The mean of the points of the last epoch."""
        return float(self.top1[self.epochs > self.epochs[-1] - 1.0 + EPS].mean())


Curves = Mapping[str, Mapping[int, Curve]]  # arm -> seed -> curve of a finished run


def read_curves(frame: pd.DataFrame, outcomes: Outcomes) -> Curves:
    """The curves of finished runs; `frame` has arm_id, seed, step, epoch and val_top1, in any order.

    Points that are no percentage, such as infinity, are left out: they reach no target.
    """
    frame = frame[frame["val_top1"].between(0, 100)].sort_values(["arm_id", "seed", "step"], kind="stable")
    arms, seeds = frame["arm_id"].to_numpy(dtype=object), frame["seed"].to_numpy()
    columns = [frame[name].to_numpy(dtype=float) for name in ("step", "epoch", "val_top1")]
    starts = np.flatnonzero(np.r_[True, (arms[1:] != arms[:-1]) | (seeds[1:] != seeds[:-1])])
    out: dict[str, dict[int, Curve]] = {}
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True) if len(frame) else ():
        arm, seed = str(arms[start]), int(seeds[start])
        run = outcomes.get(arm, {}).get(seed)
        if run is not None and run.status == FINISHED:
            steps, epochs, top1 = (column[start:end] for column in columns)
            out.setdefault(arm, {})[seed] = Curve(steps.astype(np.int64), epochs, top1)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What runs left behind, as speeds and claims read it."""

    outcomes: Outcomes
    curves: Curves
    seeds: tuple[int, ...]
    planned: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # arm_id -> fewer seeds than these
    observers: frozenset[str] = frozenset()  # arms that train nothing: no steps, no training loss
    looks: tuple[int, ...] = ()  # of an adaptive design: how many seeds there are depends on what they show

    def seeds_of(self, arm_id: str | None) -> tuple[int, ...]:
        """The seeds with which an arm is planned."""
        return self.planned.get(arm_id or "", self.seeds)


def target_top1(table: PlanTable, column: str | None, records: Records) -> float | None:
    """The target accuracy of a column in percent; None without a target, or before its row has finished.

    A target row that is not in the column is taken from the first column that has it.
    """
    target = table.target or {}
    if "row" not in target:
        return float(target["top1"]) if "top1" in target else None
    cells = [cell for cell in table.cells if cell.row == target["row"] and cell.arm_id is not None]
    cell = next((cell for cell in cells if cell.column == column), cells[0] if cells else None)
    runs = records.curves.get(cell.arm_id or "", {}) if cell else {}
    curves = [runs[seed] for seed in records.seeds if seed in runs]
    if not curves:
        return None
    best_of_the_weakest = min(float(curve.top1.max()) for curve in curves)
    return min(float(np.mean([curve.final for curve in curves])), best_of_the_weakest)


def speed_of(table: PlanTable, records: Records) -> SpeedFinding | None:
    """The steps of every row, column by column; None where the table has no target."""
    if not table.target:
        return None
    reference = _reference(table)
    return SpeedFinding(
        table=table.key,
        title=table.title,
        target_row=table.target.get("row"),
        reference=reference,
        panels=tuple(_panel(table, column, reference, records) for column in table.columns),
    )


def _reference(table: PlanTable) -> str | None:
    """The target row; for a fixed accuracy the first row that trains."""
    trained = [cell.row for cell in table.cells if cell.arm_id is not None]
    wanted = (table.target or {}).get("row")
    return wanted if wanted in trained else next(iter(trained), None)


def _panel(table: PlanTable, column: str | None, reference: str | None, records: Records) -> SpeedPanel:
    level = target_top1(table, column, records)
    cells = [cell for cell in table.cells if cell.column == column]
    steps = {cell.row: _steps(cell, level, records) for cell in cells}
    medians = {row: _median(list(found.values())) for row, found in steps.items()}
    printed = next((cell.paper.get(STEPS_M) for cell in cells if cell.row == reference), None)
    base = medians.get(reference or "")
    rows = []
    for cell in cells:
        found, median = steps[cell.row], medians[cell.row]
        reached = [value for value in found.values() if value is not None]
        runs = records.outcomes.get(cell.arm_id or "", {})
        trained = cell.arm_id is not None and cell.arm_id not in records.observers
        rows.append(
            SpeedRow(
                row=cell.row,
                arm_id=cell.arm_id,
                trained=trained,
                steps=found,
                diverged=sum(seed in runs and runs[seed].status == DIVERGED for seed in found),
                missing=len(records.seeds_of(cell.arm_id)) - len(found) if trained else 0,
                median=median,
                low=min(reached, default=None),
                high=max(reached, default=None),
                factor=base / median if base and median else None,
                paper=cell.paper.get(STEPS_M),
                paper_factor=_paper_factor(printed, cell.paper.get(STEPS_M)),
            )
        )
    return SpeedPanel(column=column, target_top1=level, rows=tuple(rows))


def _steps(cell: Cell, level: float | None, records: Records) -> dict[int, int | None]:
    """Seed -> steps. A diverged run never reaches anything; runs without an outcome are left out."""
    if cell.arm_id is None or level is None:
        return {}
    runs, curves = records.outcomes.get(cell.arm_id, {}), records.curves.get(cell.arm_id, {})
    found: dict[int, int | None] = {}
    for seed in records.seeds_of(cell.arm_id):
        if seed in curves:
            found[seed] = curves[seed].first_at(level)
        elif seed in runs and runs[seed].status == DIVERGED:
            found[seed] = None
    return found


def _median(steps: Sequence[int | None]) -> float | None:
    """The median with "never" as the largest value; None where the median itself is "never"."""
    if not steps:
        return None
    middle = float(np.median([math.inf if step is None else float(step) for step in steps]))
    return middle if math.isfinite(middle) else None


def _paper_factor(reference: PaperValue | None, row: PaperValue | None) -> float | None:
    return reference.value / row.value if reference and row and row.value else None


# What a claim compares: one number per seed of a row, and what is missing of them.


STEPS_TO_TARGET, TRAIN_LOSS = "steps_to_target", "train_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSide:
    """One row of a claim over the planned seeds."""

    name: str
    values: Mapping[int, float]  # seed -> value
    never: Mapping[int, int]  # seed -> steps made, of runs that ended below the target
    diverged: int
    ended: int  # runs with an outcome, diverged ones too
    shortfall: str  # diverged, missing and never-reached runs in words; "" where there are none


def measured_side(cell: Cell, measure: str, level: float | None, records: Records) -> ClaimSide:
    """The values of a trained or observing row. `level`: the target accuracy in percent, for steps."""
    runs = records.outcomes.get(cell.arm_id or "", {})
    values: dict[int, float] = {}
    never: dict[int, int] = {}
    lacking: Counter[str] = Counter()
    for seed in records.seeds_of(cell.arm_id):
        run = runs.get(seed)
        value = None
        if run is not None and run.status == FINISHED:
            if measure == STEPS_TO_TARGET and level is not None:
                value = _steps_to(cell.arm_id or "", seed, level, records, never)
            else:
                value = run.metrics.get(measure)
        if value is not None:
            values[seed] = value
        else:
            lacking[_why(run, measure, seed in never, level)] += 1
    diverged = lacking["diverged"]
    name = cell.row if cell.column is None else f"{cell.row} ({cell.column})"
    words = ", ".join(f"{count} {what}" for what, count in sorted(lacking.items()) if count)
    if cell.arm_id in records.observers and measure in (STEPS_TO_TARGET, TRAIN_LOSS) and words:
        words = "trains nothing, so that it has no such number"
    return ClaimSide(
        name=name,
        values=values,
        never=never,
        diverged=diverged,
        ended=len(values) + len(never) + diverged,
        shortfall=f"{name}: {words}" if words else "",
    )


def paper_difference(row: Cell | None, versus: Cell | None, measure: str) -> tuple[float | None, str | None]:
    """The printed values' difference (ratio of steps), and `memory` if either number is."""
    key = STEPS_M if measure == STEPS_TO_TARGET else measure
    ours = row.paper.get(key) if row else None
    other = versus.paper.get(key) if versus else None
    if ours is None or other is None or (key == STEPS_M and not other.value):
        return None, None
    status = MEMORY if MEMORY in (ours.status, other.status) else VERIFIED
    return (ours.value / other.value if key == STEPS_M else ours.value - other.value), status


def _steps_to(arm: str, seed: int, level: float, records: Records, never: dict[int, int]) -> float | None:
    curve = records.curves.get(arm, {}).get(seed)
    if curve is None:
        return None
    step = curve.first_at(level)
    if step is None:
        never[seed] = curve.last_step
    return step


def _why(run: Outcome | None, measure: str, never_reached: bool, level: float | None) -> str:
    if run is None:
        return "not run yet"
    if run.status == DIVERGED:
        return DIVERGED
    if never_reached:
        return "never reached the target"
    if run.status == FINISHED:
        if measure == STEPS_TO_TARGET:
            return "without a target accuracy yet" if level is None else "without a learning curve"
        return no_value(measure)
    return f"{run.status}: {run.reason}" if run.reason else run.status


# The paper's claims, each answered by the paired differences of two rows over the planned seeds.
#
# A claim is answered yes where the 95 % t interval of its own differences lies wholly on the side that the
# paper expects, no where it lies wholly on the other side, and is not settled otherwise. The intervals are
# per claim; the answer after Holm's correction over all claims stands beside it. Steps to a target are
# compared as logarithms of their ratio. Where a run ended below the target, its steps are only known to be
# more than it made: then no interval is given, and the exact sign test over the seeds whose direction is
# known decides.
#
# In an adaptive design the number of seeds depends on what they show: intervals and p values are then those
# that hold at every look at once (`harness.analysis.intervals`), at the level of the look with that many
# seeds.


NO_SPREAD = 1e-9  # standard errors below this are rounding
ONE_SEED = "one seed: not settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """One claim before Holm. `estimate`, `low`, `high`: differences, log ratios for steps."""

    why: str = ""
    n: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    sign: int = 0  # direction that is settled; 0: none
    differences: Mapping[int, float] = field(default_factory=dict)
    never_reached: int = 0


def answer_claims(
    claims: Sequence[Claim], tables: Sequence[PlanTable], records: Records
) -> tuple[ClaimFinding, ...]:
    """One finding per claim, in order. The claims are one Holm family."""
    by_key = {table.key: table for table in tables}
    found = [cells_of_claim(claim, by_key.get(claim.table)) for claim in claims]
    answers = [
        _answer(claim, by_key.get(claim.table), cells, records)
        for claim, cells in zip(claims, found, strict=True)
    ]
    if not answers:
        return ()
    adjusted = holm([1.0 if each.p is None else each.p for each in answers], ALPHA).p
    return tuple(
        _finding(claim, cells, answer, float(p))
        for claim, cells, answer, p in zip(claims, found, answers, adjusted, strict=True)
    )


_Cells = tuple[Cell | None, Cell | None]


def cells_of_claim(claim: Claim, table: PlanTable | None) -> _Cells:
    """The two cells. Without a column, the first one that has the row; the other row is looked for there."""
    if table is None:
        return None, None
    row = _cell(table, claim.row, claim.column)
    beside = claim.versus_column or (row.column if row else claim.column)
    return row, _cell(table, claim.versus, beside)


def _cell(table: PlanTable, row: str, column: str | None) -> Cell | None:
    cells = [cell for cell in table.cells if cell.row == row]
    if column is None:
        return cells[0] if cells else None
    return next((cell for cell in cells if cell.column == column), None)


def _answer(claim: Claim, table: PlanTable | None, cells: _Cells, records: Records) -> _Answer:
    row, versus = cells
    if table is None or row is None or versus is None:
        missing = claim.row if row is None else claim.versus
        return _Answer(why=f"{missing} is not in this table")
    for cell in (row, versus):
        if cell.arm_id is None:
            return _Answer(why=f"{cell.row} is a quoted number, not trained here")
    if row.arm_id == versus.arm_id:
        return _Answer(why=f"both rows are {SAME_RUN} at this size")
    if claim.measure == STEPS_TO_TARGET and not table.target:
        return _Answer(why="the table has no target accuracy")
    level = target_top1(table, row.column, records)
    sides = (
        measured_side(row, claim.measure, level, records),
        measured_side(versus, claim.measure, level, records),
    )
    notes = "; ".join(side.shortfall for side in sides if side.shortfall)
    for side in sides:
        if too_many_diverged(side.diverged, side.ended):
            return _Answer(why=notes)
    if any(_ended(sides[0]) & _ended(sides[1]) & side.never.keys() for side in sides):
        return _by_signs(sides, notes, records.looks)
    return _by_interval(sides, claim.measure, notes, records.looks)


def stage_of(seeds: int, looks: Looks) -> Stage:
    """The last look with no more than so many seeds; the first where there are fewer."""
    return Stage(looks=looks, number=max(sum(each <= seeds for each in looks) - 1, 0))


def _by_interval(sides: tuple[ClaimSide, ClaimSide], measure: str, notes: str, looks: Looks) -> _Answer:
    row, versus = (side.values for side in sides)
    scale = math.log if measure == STEPS_TO_TARGET else float
    differences = {seed: scale(row[seed]) - scale(versus[seed]) for seed in row if seed in versus}
    n = len(differences)
    if n == 0:
        return _Answer(why=notes or "no seed has both runs")
    values = list(differences.values())
    average = sum(values) / n
    if n == 1:
        return _Answer(why=_join(ONE_SEED, notes), n=1, estimate=average, differences=differences)
    estimate = mean(values)
    if estimate.se <= NO_SPREAD:
        why = "every seed gave the same difference: the spread between seeds is unknown"
        return _Answer(why=_join(why, notes), n=n, estimate=average, differences=differences)
    stage = stage_of(n, looks)
    width = float(half_width(estimate, stage.nominal(ALPHA)))
    low, high = average - width, average + width
    return _Answer(
        why=notes,
        n=n,
        estimate=average,
        low=low,
        high=high,
        p=float(repeated_p(p_value(estimate), looks, stage.number)),
        sign=(low > 0) - (high < 0),
        differences=differences,
    )


def _by_signs(sides: tuple[ClaimSide, ClaimSide], notes: str, looks: Looks) -> _Answer:
    """Some runs ended below the target: only the direction is known, and not in every seed."""
    row, versus = sides
    signs = {seed: _direction(seed, row, versus) for seed in sorted(_ended(row) & _ended(versus))}
    fewer, more = sum(sign < 0 for sign in signs.values()), sum(sign > 0 for sign in signs.values())
    p, stage = sign_test(list(signs.values())), stage_of(len(signs), looks)
    settled = p <= stage.nominal(ALPHA)
    limit = "" if settled else f": it can settle this from {fewest_for(stage.nominal(ALPHA))} seeds on"
    counted = f"{row.name} took fewer steps in {fewer} and more in {more} of {len(signs)} seeds"
    seen = f"{counted} (sign test, p = {p:.2g}{limit})"
    return _Answer(
        why=_join(notes, seen),
        n=len(signs),
        p=float(repeated_p(np.asarray(p), looks, stage.number)),
        sign=((more > fewer) - (more < fewer)) if settled else 0,
        differences={
            seed: math.log(row.values[seed] / versus.values[seed])
            for seed in row.values
            if seed in versus.values
        },
        never_reached=len(row.never) + len(versus.never),
    )


def _ended(side: ClaimSide) -> set[int]:
    """The seeds with steps, or with a run that ended below the target."""
    return {*side.values, *side.never}


def _direction(seed: int, row: ClaimSide, versus: ClaimSide) -> int:
    """Whether the row took more (1) or fewer (-1) steps; 0 where that is not known, or a tie."""
    if seed in row.values and seed in versus.values:
        return (row.values[seed] > versus.values[seed]) - (row.values[seed] < versus.values[seed])
    if seed in row.values:
        return -1 if row.values[seed] <= versus.never[seed] else 0
    if seed in versus.values:
        return 1 if versus.values[seed] <= row.never[seed] else 0
    return 0


def _finding(claim: Claim, cells: _Cells, answer: _Answer, p_holm: float) -> ClaimFinding:
    row, versus = cells
    expected = 1 if claim.expect == "higher" else -1
    word = {0: NOT_SETTLED, expected: YES, -expected: NO}[answer.sign]
    shown = math.exp if claim.measure == STEPS_TO_TARGET else float
    low, high, estimate = (
        None if each is None else shown(each) for each in (answer.low, answer.high, answer.estimate)
    )
    paper, status = paper_difference(row, versus, claim.measure)
    return ClaimFinding(
        claim=claim,
        column=row.column if row else claim.column,
        versus_column=versus.column if versus else claim.versus_column,
        n=answer.n,
        estimate=estimate,
        low=low,
        high=high,
        p=answer.p,
        p_holm=None if answer.p is None else p_holm,
        answer=word,
        answer_holm=word if p_holm <= ALPHA else NOT_SETTLED,
        why=answer.why,
        differences={seed: shown(each) for seed, each in sorted(answer.differences.items())},
        never_reached=answer.never_reached,
        paper=paper,
        paper_status=status,
    )


def _join(*parts: str) -> str:
    return "; ".join(filter(None, parts))
