"""The paper's claims, each answered by the paired differences of two rows over the planned seeds.

A claim is answered yes where the 95 % t interval of its own differences lies wholly on the side that the
paper expects, no where it lies wholly on the other side, and is not settled otherwise. The intervals are per
claim; the answer after Holm's correction over all claims stands beside it. Steps to a target are compared as
logarithms of their ratio. Where a run ended below the target, its steps are only known to be more than it
made: then no interval is given, and the exact sign test over the seeds whose direction is known decides.

In an adaptive design the number of seeds depends on what they show: intervals and p values are then those
that hold at every look at once (`harness.analysis.spending`), at the level of the look with that many seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.findings import NO, NOT_SETTLED, YES, ClaimFinding
from harness.analysis.intervals import half_width, holm, mean, p_value
from harness.analysis.measures import STEPS_TO_TARGET, Side, measured_side, paper_difference
from harness.analysis.sentences import SAME_RUN
from harness.analysis.signs import fewest_for, sign_test
from harness.analysis.speed import Records, target_top1
from harness.analysis.spending import Looks, Stage, repeated_p
from harness.analysis.verdicts import too_many_diverged
from harness.study.plan import Cell, Claim, PlanTable

ALPHA = 0.05
NO_SPREAD = 1e-9  # standard errors below this are rounding


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
    found = [_find(claim, by_key.get(claim.table)) for claim in claims]
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


def _find(claim: Claim, table: PlanTable | None) -> _Cells:
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


def _stage(seeds: int, looks: Looks) -> Stage:
    """The last look with no more than so many seeds; the first where there are fewer."""
    return Stage(looks=looks, number=max(sum(each <= seeds for each in looks) - 1, 0))


def _by_interval(sides: tuple[Side, Side], measure: str, notes: str, looks: Looks) -> _Answer:
    row, versus = (side.values for side in sides)
    scale = math.log if measure == STEPS_TO_TARGET else float
    differences = {seed: scale(row[seed]) - scale(versus[seed]) for seed in row if seed in versus}
    n = len(differences)
    if n == 0:
        return _Answer(why=notes or "no seed has both runs")
    values = list(differences.values())
    average = sum(values) / n
    if n == 1:
        return _Answer(
            why=_join("one seed: not settled", notes), n=1, estimate=average, differences=differences
        )
    estimate = mean(values)
    if estimate.se <= NO_SPREAD:
        why = "every seed gave the same difference: the spread between seeds is unknown"
        return _Answer(why=_join(why, notes), n=n, estimate=average, differences=differences)
    stage = _stage(n, looks)
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


def _by_signs(sides: tuple[Side, Side], notes: str, looks: Looks) -> _Answer:
    """Some runs ended below the target: only the direction is known, and not in every seed."""
    row, versus = sides
    signs = {seed: _direction(seed, row, versus) for seed in sorted(_ended(row) & _ended(versus))}
    fewer, more = sum(sign < 0 for sign in signs.values()), sum(sign > 0 for sign in signs.values())
    p, stage = sign_test(list(signs.values())), _stage(len(signs), looks)
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


def _ended(side: Side) -> set[int]:
    """The seeds with steps, or with a run that ended below the target."""
    return {*side.values, *side.never}


def _direction(seed: int, row: Side, versus: Side) -> int:
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
