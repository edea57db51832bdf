"""Looks at an adaptive design: what each contrast ends with, and which arms should have more seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.comparisons import Comparison, Pair
from harness.analysis.contrasts import contrasts_of
from harness.analysis.course import Course, Look, Runs, follow, needed_arms
from harness.analysis.findings import LookResult, Settings
from harness.analysis.intervals import Floats, half_width
from harness.analysis.outcomes import read_outcomes
from harness.analysis.sharing import UNRELATED, Relations, roots_of
from harness.analysis.spending import Looks
from harness.study.plan import Plan

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One contrast at its last look."""

    word: str
    seeds: int  # per arm, that this was found with
    settled_at: int | None  # None: still open
    comparison: Comparison
    trace: tuple[LookResult, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The repeated 95 % interval of the difference, in percentage points."""
        return _around(self.comparison, self.comparison.interval_level)


def settle(
    values: Floats, pairs: Sequence[Pair], settings: Settings, relations: Relations = UNRELATED
) -> list[Settled]:
    """What an adaptive study ends with if it could see these runs: one entry per pair.

    For simulations: `values` (A, S) are the runs as they would come, S at least the last look; NaN: a run
    without a value. Only those that the study would have asked for are read.
    """
    everything = np.ones(values.shape, dtype=bool)
    runs = Runs(values=values, ended=everything, diverged=~everything)
    course = follow(runs, pairs, settings, relations)
    return [last_word(course, k) for k in range(len(pairs))]


def last_word(course: Course, contrast: int) -> Settled:
    """What the last look at a contrast said; at least one look took place."""
    seen = [look for look in course.looks if contrast in look.words]
    last = seen[-1]
    return Settled(
        word=last.words[contrast],
        seeds=last.seeds,
        settled_at=course.settled_at.get(contrast),
        comparison=last.comparisons[contrast],
        trace=tuple(_result(look, contrast) for look in seen),
    )


def next_block(plan: Plan, records: pd.DataFrame, settings: Settings) -> Mapping[str, int] | None:
    """The seeds that arms should have next: arm_id -> how many; only arms that have fewer by now.

    An arm needs seeds up to the next look of a table in which an open contrast involves it. Arms that those
    runs need in turn (teachers, observed networks) are not listed.

    Args:
        records: as for `analyse`.
    Returns:
        None where nothing is to be added: every contrast is settled, the budget is spent, or the newest
        block has not ended yet.
    """
    settings = with_looks(settings, plan.looks)
    outcomes = read_outcomes(records, [settings.metric])
    roots, seeds = roots_of(plan.arms), tuple(sorted(plan.seeds))
    wanted: dict[str, int] = {}
    for table in plan.tables:
        family = contrasts_of(table, roots)
        runs = Runs.of(outcomes, family.arms, seeds, settings.metric)
        course = follow(runs, family.pairs, settings, family.relations)
        if not course.open or len(course.looks) >= len(settings.looks):
            continue
        target = settings.looks[len(course.looks)]
        for arm in (family.arms[place] for place in needed_arms(family.pairs, course.open)):
            if len(plan.seeds_of(arm)) < target:
                wanted[arm] = target  # tables that want more of an arm want the same: it has what came before
    return wanted or None


def with_looks(settings: Settings, looks: Looks) -> Settings:
    """The settings with a plan's looks, where they have none of their own."""
    return settings if settings.looks else replace(settings, looks=looks)


def _result(look: Look, contrast: int) -> LookResult:
    found = look.comparisons[contrast]
    low, high = _around(found, found.interval_level) or (None, None)
    width = None if found.estimate is None else float(half_width(found.estimate, found.level))
    return LookResult(
        seeds=look.seeds,
        estimate=found.difference,
        low=low,
        high=high,
        boundary_low=None if width is None else -width,
        boundary_high=width,
        verdict=look.words[contrast],
    )


def _around(found: Comparison, level: float) -> tuple[float, float] | None:
    if found.estimate is None:
        return None
    value, width = float(found.estimate.value), float(half_width(found.estimate, level))
    return value - width, value + width
