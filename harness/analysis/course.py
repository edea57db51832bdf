"""How an adaptive table goes, look by look.

Look k reads the first S_k seeds of every arm that an open contrast needs, and takes place when all of those
runs have ended. A contrast is settled by a word (helps, hurts, no detectable difference) or given up (too
many diverged runs, no value at all), and then keeps what that look said. An arm that no open contrast needs
any more is read with the seeds that it had by then, whatever was run later for another table: so a decision
does not depend on when it is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.comparisons import Comparison, Family, Pair, compare_family
from harness.analysis.findings import HELPS, HURTS, NO_DIFFERENCE, NOT_EVALUABLE, UNDECIDED, Settings
from harness.analysis.intervals import Floats
from harness.analysis.outcomes import DIVERGED, FAILED, FINISHED, Outcomes, is_lost, matrix
from harness.analysis.sharing import Relations
from harness.analysis.spending import Stage
from harness.analysis.verdicts import FEWEST_SEEDS, too_many_diverged

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
class Look:
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

    looks: tuple[Look, ...]
    settled_at: Mapping[int, int]  # position of the contrast -> seeds at the look that settled it
    open: tuple[int, ...]  # contrasts that go on


def follow(runs: Runs, pairs: Sequence[Pair], settings: Settings, relations: Relations) -> Course:
    """Every look that took place, in order."""
    still_open, settled_at = tuple(range(len(pairs))), dict[int, int]()
    looks: list[Look] = []
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


def _look(values: Floats, visible: Mask, family: Family) -> Look:
    stage = family.stage
    tested = stage.open or ()
    comparisons = dict(zip(tested, compare_family(values, family), strict=True))
    return Look(
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
