"""How many optimizer steps a row's runs need to a stated accuracy, read from the learning curves.

The target of a table is an accuracy, or what one of its rows reaches: the mean over seeds of the curve in the
row's last epoch, lowered where needed to the best point of its weakest run, so that every run of that row
reaches it. A run reaches the target at its first curve point that is not below it; nothing is interpolated:
steps are known to the distance of two curve points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.findings import SpeedFinding, SpeedPanel, SpeedRow
from harness.analysis.outcomes import DIVERGED, FINISHED, Outcomes
from harness.study.plan import Cell, PaperValue, PlanTable

if TYPE_CHECKING:
    import pandas as pd

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
