"""Every contrast of one table after its test: in a fixed design at once, in an adaptive one at its look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.comparisons import Comparison, Family, compare_family
from harness.analysis.contrasts import Contrasts
from harness.analysis.course import Course, Look, Runs, follow
from harness.analysis.findings import LookResult, Settings
from harness.analysis.intervals import Floats
from harness.analysis.looks import last_word
from harness.analysis.outcomes import Outcomes, is_lost, matrix
from harness.analysis.robustness import NOTHING_LEARNT_PCT, fragile_pairs
from harness.analysis.spending import Stage

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


def _seen(table: Floats, look: Look) -> Floats:
    return np.where(look.visible, table, np.nan)


def _failures(
    outcomes: Outcomes, arms: Sequence[str], seeds: Sequence[int], values: Floats, settings: Settings
) -> Floats:
    """What lost runs count as in the sensitivity check, (A, S); NaN for all others.

    The zero of another metric than an accuracy may be good: there, the worst value of the table is taken.
    """
    out = np.full(values.shape, np.nan)
    metric, worst = settings.metric, NOTHING_LEARNT_PCT
    if not settings.in_percent and np.isfinite(values).any():
        worst = float(np.nanmin(values))
    for a, arm in enumerate(arms):
        for s, seed in enumerate(seeds):
            run = outcomes.get(arm, {}).get(seed)
            if run is not None and is_lost(run, metric):
                out[a, s] = run.metrics.get(metric, worst)
    return out
