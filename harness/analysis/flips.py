"""Which test images a row gains and loses against its reference, from the per-image bits of the runs.

Exploratory: nothing is tested. Two runs of one recipe answer many images differently too, and that number
(churn) stands beside the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.further_findings import RowFlips
from harness.analysis.images import unpack
from harness.analysis.outcomes import FINISHED, Outcome, Outcomes
from harness.study.plan import Cell, PlanTable


@dataclass(frozen=True, slots=True)
class Correct:
    """How many of the `runs` runs of an arm have each test image right, (N,)."""

    counts: NDArray[np.int64]
    runs: int


def flips_of(tables: Sequence[PlanTable], outcomes: Outcomes, seeds: Sequence[int]) -> tuple[RowFlips, ...]:
    """One entry per row with a reference, where both have bits of the same number of test images."""
    known: dict[str, Correct | None] = {}

    def correct(arm_id: str) -> Correct | None:
        if arm_id not in known:
            runs = outcomes.get(arm_id, {})
            known[arm_id] = correct_of([runs[seed] for seed in seeds if seed in runs])
        return known[arm_id]

    found = []
    for table in tables:
        cells = {(cell.row, cell.column): cell for cell in table.cells}
        for cell in table.cells:
            reference = cells.get((cell.versus or "", cell.column))
            if not reference or not cell.arm_id or not reference.arm_id or cell.arm_id == reference.arm_id:
                continue
            row, versus = correct(cell.arm_id), correct(reference.arm_id)
            if row and versus and row.counts.size == versus.counts.size:
                found.append(_flips(table.key, cell, row, versus))
    return tuple(found)


def correct_of(runs: Sequence[Outcome]) -> Correct | None:
    """Counts over the finished runs with bits; runs with another number of test images are left out."""
    packed = [run for run in runs if run.status == FINISHED and run.predictions is not None]
    bits = [found for run in packed if (found := unpack(run.predictions or b"", run.test_images)) is not None]
    if not bits:
        return None
    size = Counter(each.size for each in bits).most_common(1)[0][0]
    same = [each for each in bits if each.size == size]
    return Correct(np.stack(same).sum(axis=0, dtype=np.int64), len(same))


def gained_and_lost(row: Correct, versus: Correct) -> tuple[float, float]:
    """Images per pair of runs: sum_i k_i (R - l_i) / (S R), and the reverse.

    k_i of S runs of the row and l_i of R runs of the reference have image i right. The difference of the two
    is sum_i (k_i / S - l_i / R), the difference of the mean accuracies in images.
    """
    pairs = row.runs * versus.runs
    gained = int((row.counts * (versus.runs - versus.counts)).sum())
    lost = int(((row.runs - row.counts) * versus.counts).sum())
    return gained / pairs, lost / pairs


def churn_of(arm: Correct) -> float | None:
    """Images that one run has right and another run of the same arm wrong, mean over ordered pairs."""
    if arm.runs < 2:
        return None
    return int((arm.counts * (arm.runs - arm.counts)).sum()) / (arm.runs * (arm.runs - 1))


def _flips(table: str, cell: Cell, row: Correct, versus: Correct) -> RowFlips:
    gained, lost = gained_and_lost(row, versus)
    assert cell.versus is not None
    return RowFlips(
        table=table,
        row=cell.row,
        column=cell.column,
        versus=cell.versus,
        images=int(row.counts.size),
        runs=row.runs,
        versus_runs=versus.runs,
        gained=gained,
        lost=lost,
        churn=churn_of(versus),
    )
