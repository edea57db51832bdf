"""The paper's own effect of a row, and how ours compares with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.analysis.findings import COMPATIBLE, DIFFERS, REPRODUCED, Settings
from harness.analysis.intervals import Estimate, half_width
from harness.study.plan import Cell, PaperValue

MEMORY, VERIFIED = "memory", "verified"
PAPER_RUNS = 1  # runs behind a printed number; papers that average more than one say so rarely


@dataclass(frozen=True, slots=True)
class PaperEffect:
    """A difference of two printed numbers, in percentage points."""

    value: float
    status: str  # memory if either number is


@dataclass(frozen=True, slots=True)
class Gap:
    """Ours minus the paper's, with a 95 % interval, in percentage points."""

    value: float
    low: float
    high: float
    agreement: str


def paper_effect(cell: Cell, column: Mapping[str, Cell], metric: str) -> PaperEffect | None:
    """The cell's printed value minus that of the row it is measured from; `column` maps labels to cells."""
    reference = column.get(cell.paper_versus or cell.versus or "")
    ours: PaperValue | None = cell.paper.get(metric)
    other = reference.paper.get(metric) if reference else None
    if ours is None or other is None:
        return None
    status = MEMORY if MEMORY in (ours.status, other.status) else VERIFIED
    return PaperEffect(ours.value - other.value, status)


def gap_to_paper(
    estimate: Estimate, seeds: int, paper: PaperEffect, settings: Settings, alpha: float = 0.05
) -> Gap:
    """D - D_p with half-width t sqrt(v (2 / S + 2 / n_p)): the paper's runs are taken to vary as ours do.

    reproduced where the interval lies inside plus or minus twice the smallest effect, differs where it
    excludes 0, otherwise compatible but imprecise. `seeds` is the number per arm behind the estimate; a
    printed number is taken to be one run. The interval has level 1 - `alpha`.
    """
    wider = np.sqrt(1.0 + seeds / PAPER_RUNS)  # se^2 is 2 v / S
    width = float(half_width(estimate, alpha) * wider)
    value = float(estimate.value) - paper.value
    low, high = value - width, value + width
    margin = 2.0 * settings.smallest_effect_pp
    if -margin < low and high < margin:
        agreement = REPRODUCED
    else:
        agreement = DIFFERS if low > 0 or high < 0 else COMPATIBLE
    return Gap(value, low, high, agreement)
