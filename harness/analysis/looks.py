"""How an adaptive table goes, look by look, and what each contrast ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.contrasts import Comparison, Contrasts, Family, Pair, compare_family, contrasts_of
from harness.analysis.effects import NOTHING_LEARNT_PCT, fragile_pairs
from harness.analysis.findings import (
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    LookResult,
    Outcomes,
    Settings,
    is_lost,
    matrix,
    read_outcomes,
)
from harness.analysis.fit import UNRELATED, Relations, roots_of
from harness.analysis.intervals import Floats, Looks, Stage, half_width
from harness.analysis.verdicts import FEWEST_SEEDS, too_many_diverged
from harness.spec import DIVERGED, FAILED, FINISHED
from harness.study.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

# How an adaptive table goes, look by look.
#
# Look k reads the first S_k seeds of every arm that an open contrast needs, and takes place when all of
# those runs have ended. A contrast is settled by a word (helps, hurts, no detectable difference) or given
# up (too many diverged runs, no value at all), and then keeps what that look said. An arm that no open
# contrast needs any more is read with the seeds that it had by then, whatever was run later for another
# table: so a decision does not depend on when it is looked up.


Mask = NDArray[np.bool_]
SETTLING = (HELPS, HURTS, NO_DIFFERENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What the runs of one table came to, arms x seeds in the order of the looks."""

    values: Floats  # (A, S) percent; NaN where there is none
    ended: Mask  # finished, diverged or failed: nothing more will come
    diverged: Mask  # or finished without a finite value: an outcome that gives no number

    @staticmethod
    def of(outcomes: Outcomes, arms: Sequence[str], seeds: Sequence[int], metric: str) -> Runs:
        """From the records."""
        found = [[outcomes.get(arm, {}).get(seed) for seed in seeds] for arm in arms]
        over = (FINISHED, DIVERGED, FAILED)
        shape = (len(arms), len(seeds))
        ended = np.array(
            [[run is not None and run.status in over for run in row] for row in found], dtype=bool
        )
        diverged = np.array([[is_lost(run, metric) for run in row] for row in found], dtype=bool)
        return Runs(
            values=matrix(outcomes, arms, seeds, metric),
            ended=ended.reshape(shape),
            diverged=diverged.reshape(shape),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLook:
    """One look that took place at one table."""

    seeds: int
    visible: Mask  # (A, seeds) the runs that it read
    values: Floats  # (A, seeds) NaN where not visible
    stage: Stage
    comparisons: Mapping[int, Comparison]  # by position of the contrast; those that were open
    words: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one table went."""

    looks: tuple[TableLook, ...]
    settled_at: Mapping[int, int]  # position of the contrast -> seeds at the look that settled it
    open: tuple[int, ...]  # contrasts that go on


def follow(runs: Runs, pairs: Sequence[Pair], settings: Settings, relations: Relations) -> Course:
    """Every look that took place, in order."""
    still_open, settled_at = tuple(range(len(pairs))), dict[int, int]()
    looks: list[TableLook] = []
    rejected = 0
    until = np.zeros(len(runs.values), dtype=int)
    for number, seeds in enumerate(settings.looks):
        needed = needed_arms(pairs, still_open) if number else list(range(len(until)))
        if not still_open or seeds > runs.values.shape[1] or not runs.ended[needed, :seeds].all():
            break
        until[needed] = seeds
        visible = np.arange(seeds) < until[:, None]
        hopeless = {arm for arm in needed if _is_hopeless(runs, arm, seeds)}
        barred = frozenset(k for k in still_open if hopeless & set(pairs[k]))
        stage = Stage(looks=settings.looks, number=number, open=still_open, rejected=rejected, barred=barred)
        family = Family(pairs=pairs, settings=settings, relations=relations, stage=stage)
        look = _look(np.where(visible, runs.values[:, :seeds], np.nan), visible, family)
        looks.append(look)
        settled_at |= {k: seeds for k, word in look.words.items() if word != UNDECIDED}
        rejected += sum(word in (HELPS, HURTS) for word in look.words.values())
        still_open = tuple(k for k in still_open if k not in settled_at)
    return Course(looks=tuple(looks), settled_at=settled_at, open=still_open)


def needed_arms(pairs: Sequence[Pair], still_open: Sequence[int]) -> list[int]:
    """The arms that open contrasts involve."""
    return sorted({arm for k in still_open for arm in pairs[k]})


def _look(values: Floats, visible: Mask, family: Family) -> TableLook:
    stage = family.stage
    tested = stage.open or ()
    comparisons = dict(zip(tested, compare_family(values, family), strict=True))
    return TableLook(
        seeds=values.shape[1],
        visible=visible,
        values=values,
        stage=stage,
        comparisons=comparisons,
        words={k: _word(found, k in stage.barred) for k, found in comparisons.items()},
    )


def _word(found: Comparison, barred: bool) -> str:
    if barred:
        return NOT_EVALUABLE
    return found.word if found.word in SETTLING and found.seeds >= FEWEST_SEEDS else UNDECIDED


def _is_hopeless(runs: Runs, arm: int, seeds: int) -> bool:
    """Whether an arm lost too many runs for a verdict, or has no value at all."""
    diverged = int(runs.diverged[arm, :seeds].sum())
    there = int(np.isfinite(runs.values[arm, :seeds]).sum())
    return there == 0 or too_many_diverged(diverged, there + diverged)


# Looks at an adaptive design: what each contrast ends with, and which arms should have more seeds.


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


def _result(look: TableLook, contrast: int) -> LookResult:
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


# Every contrast of one table after its test: in a fixed design at once, in an adaptive one at its look.


Name = tuple[str, str]  # (arm_id, arm_id of its reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One contrast."""

    comparison: Comparison
    fragile: bool
    seeds: tuple[int, ...]  # those that were read
    settled_at: int | None = None
    trace: tuple[LookResult, ...] = ()
    waiting: str = ""  # why there can be no verdict yet, where no look took place


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """One table."""

    rows: Mapping[Name, Tested]
    values: Floats  # (A, S) what was read, NaN elsewhere


def tests_of(contrasts: Contrasts, outcomes: Outcomes, seeds: tuple[int, ...], settings: Settings) -> Tests:
    """Test a table's contrasts, its whole Holm family.

    Args:
        seeds: the planned ones, in the order in which blocks were added.
    """
    values = matrix(outcomes, contrasts.arms, seeds, settings.metric)
    if len(settings.looks) < 2:
        family = Family(pairs=contrasts.pairs, settings=settings, relations=contrasts.relations)
        found = _tested(values, _failures(outcomes, contrasts.arms, seeds, values, settings), family)
        rows = [Tested(comparison=each, fragile=fragile, seeds=seeds) for each, fragile in found]
        return Tests(rows=dict(zip(contrasts.names, rows, strict=True)), values=values)
    runs = Runs.of(outcomes, contrasts.arms, seeds, settings.metric)
    course = follow(runs, contrasts.pairs, settings, contrasts.relations)
    if not course.looks:
        return _before_the_first_look(contrasts, values, seeds, settings)
    fragile = _fragile_at_the_end(course, contrasts, outcomes, seeds, settings)
    return Tests(
        rows={name: _at_its_look(course, k, fragile[k], seeds) for k, name in enumerate(contrasts.names)},
        values=course.looks[-1].values,
    )


def _tested(values: Floats, failures: Floats, family: Family) -> list[tuple[Comparison, bool]]:
    found = compare_family(values, family)
    fragile = fragile_pairs(values, failures, family, [each.word for each in found])
    return list(zip(found, fragile, strict=True))


def _before_the_first_look(
    contrasts: Contrasts, values: Floats, seeds: tuple[int, ...], settings: Settings
) -> Tests:
    """Numbers of the runs that are there, and no words: a look that has not taken place decides nothing."""
    first = settings.looks[0]
    stage = Stage(looks=settings.looks, open=tuple(range(len(contrasts.names))))
    family = Family(pairs=contrasts.pairs, settings=settings, relations=contrasts.relations, stage=stage)
    found = compare_family(values[:, :first], family)
    why = f"the first look, at {first} seeds, takes place when the runs of every row have ended"
    rows = [Tested(comparison=each, fragile=False, seeds=seeds[:first], waiting=why) for each in found]
    return Tests(rows=dict(zip(contrasts.names, rows, strict=True)), values=values[:, :first])


def _at_its_look(course: Course, contrast: int, fragile: bool, seeds: tuple[int, ...]) -> Tested:
    last = last_word(course, contrast)
    return Tested(
        comparison=last.comparison,
        fragile=fragile,
        seeds=seeds[: last.seeds],
        settled_at=last.settled_at,
        trace=last.trace,
    )


def _fragile_at_the_end(
    course: Course, contrasts: Contrasts, outcomes: Outcomes, seeds: tuple[int, ...], settings: Settings
) -> dict[int, bool]:
    """Whether each contrast's word at its last look would be another without one seed of that look."""
    out: dict[int, bool] = {}
    for look in course.looks:
        ends = [k for k in look.words if course.settled_at.get(k) == look.seeds or look is course.looks[-1]]
        if not ends:
            continue
        family = Family(
            pairs=contrasts.pairs, settings=settings, relations=contrasts.relations, stage=look.stage
        )
        read = seeds[: look.seeds]
        failures = _seen(_failures(outcomes, contrasts.arms, read, look.values, settings), look)
        words = [found.word for found in look.comparisons.values()]
        fragile = dict(zip(look.words, fragile_pairs(look.values, failures, family, words), strict=True))
        out |= {k: fragile[k] for k in ends}
    return out


def _seen(table: Floats, look: TableLook) -> Floats:
    return np.where(look.visible, table, np.nan)


def _failures(
    outcomes: Outcomes, arms: Sequence[str], seeds: Sequence[int], values: Floats, settings: Settings
) -> Floats:
    """What lost runs count as in the sensitivity check, (A, S); NaN for all others.

    The zero of another metric than an accuracy may be good: there, the worst value of the table is taken.
    """
    out = np.full(values.shape, np.nan)
    metric, worst = settings.metric, 100.0 if settings.lower_is_better else NOTHING_LEARNT_PCT
    if not settings.in_percent and np.isfinite(values).any():
        worst = float(np.nanmax(values) if settings.lower_is_better else np.nanmin(values))
    for a, arm in enumerate(arms):
        for s, seed in enumerate(seeds):
            run = outcomes.get(arm, {}).get(seed)
            if run is not None and is_lost(run, metric):
                out[a, s] = run.metrics.get(metric, worst)
    return out
