"""What a claim compares: one number per seed of a row, and what is missing of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.levels import no_value
from harness.analysis.outcomes import DIVERGED, FINISHED, Outcome
from harness.analysis.paper import MEMORY, VERIFIED
from harness.analysis.speed import STEPS_M, Records
from harness.study.plan import Cell

STEPS_TO_TARGET, TRAIN_LOSS = "steps_to_target", "train_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One row of a claim over the planned seeds."""

    name: str
    values: Mapping[int, float]  # seed -> value
    never: Mapping[int, int]  # seed -> steps made, of runs that ended below the target
    diverged: int
    ended: int  # runs with an outcome, diverged ones too
    shortfall: str  # diverged, missing and never-reached runs in words; "" where there are none


def measured_side(cell: Cell, measure: str, level: float | None, records: Records) -> Side:
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
                value = _steps(cell.arm_id or "", seed, level, records, never)
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
    return Side(
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


def _steps(arm: str, seed: int, level: float, records: Records, never: dict[int, int]) -> float | None:
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
