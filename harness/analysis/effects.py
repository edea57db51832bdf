"""One declared contrast as an `Effect`: numbers from the comparison, then words, robustness and the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import intervals, verdicts
from harness.analysis.contrasts import Comparison, Family, compare_family, words_without_seed
from harness.analysis.findings import (
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    CellFinding,
    Effect,
    Findings,
    Level,
    Outcome,
    Settings,
    TableFinding,
)
from harness.analysis.intervals import Estimate, Floats, MeanSquares
from harness.analysis.verdicts import PaperEffect, Verdict
from harness.spec import PER_CLASS

ON_THIS_TEST_SET = "on this test set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two arms of a contrast."""

    level: Level
    runs: Mapping[int, Outcome] = field(default_factory=dict)


def empty_effect(versus: str, verdict: Verdict, paper: PaperEffect | None, n: int = 0) -> Effect:
    """An effect without numbers of ours."""
    return Effect(
        versus=versus,
        n=n,
        estimate=None,
        low=None,
        high=None,
        adjusted_low=None,
        adjusted_high=None,
        p=None,
        p_holm=None,
        df=None,
        flagged=False,
        new_images_low=None,
        new_images_high=None,
        detectable=None,
        prob_better=None,
        verdict=verdict.word,
        qualifier=verdict.qualifier,
        more_seeds=verdict.more_seeds,
        fragile=False,
        differences={},
        paper=None if paper is None else paper.value,
        paper_status=None if paper is None else paper.status,
        gap=None,
        gap_low=None,
        gap_high=None,
        agreement=None,
    )


def same_run(versus: str, side: Side, paper: PaperEffect | None) -> Effect:
    """Row and reference are one arm at this size: the effect is 0 by construction, nothing is tested."""
    if side.level.n == 0:
        return empty_effect(versus, verdicts.not_evaluable(verdicts.why_no_value(side.level)), paper)
    blank = empty_effect(versus, Verdict(NO_DIFFERENCE, verdicts.SAME_RUN), paper, side.level.n)
    zeros = dict.fromkeys(side.level.values, 0.0)
    return dataclasses.replace(blank, estimate=0.0, low=0.0, high=0.0, differences=zeros)


def measured(
    comparison: Comparison,
    sides: tuple[Side, Side],
    paper: PaperEffect | None,
    settings: Settings,
    versus: str,
) -> Effect:
    """The effect of a row over its reference; `sides` are (row, reference)."""
    images = images_of(sides, settings)
    verdict = _verdict(comparison, sides, images, settings)
    effect = dataclasses.replace(
        empty_effect(versus, verdict, paper, comparison.seeds),
        estimate=comparison.difference,
        p=comparison.p,
        p_holm=comparison.p_holm,
        flagged=comparison.flagged,
        **_run_by_run(sides[0].level, sides[1].level, settings),
    )
    estimate = comparison.estimate
    if estimate is None:
        return effect
    level = comparison.interval_level
    low, high = _interval(estimate, level)
    adjusted_low, adjusted_high = _interval(estimate, comparison.level)
    new_width = None if images is None else intervals.new_images_half_width(estimate, images, level)
    effect = dataclasses.replace(
        effect,
        low=low,
        high=high,
        adjusted_low=adjusted_low,
        adjusted_high=adjusted_high,
        df=float(estimate.df),
        new_images_low=None if new_width is None else float(estimate.value) - new_width,
        new_images_high=None if new_width is None else float(estimate.value) + new_width,
        detectable=intervals.detectable_effect(estimate, comparison.level),
        **_better_interval(comparison, settings),
    )
    return _with_gap(effect, comparison, paper, settings)


def _run_by_run(row: Level, reference: Level, settings: Settings) -> dict[str, Any]:
    common = {
        seed: value - reference.values[seed]
        for seed, value in row.values.items()
        if seed in reference.values and settings.seeds_shared
    }
    if not row.n or not reference.n:
        return {"differences": common}
    better = verdicts.probability_better(list(row.values.values()), list(reference.values.values()))
    return {"differences": common, "prob_better": 1.0 - better if settings.lower_is_better else better}


def _better_interval(comparison: Comparison, settings: Settings) -> dict[str, Any]:
    found = verdicts.better_interval(comparison.estimate, comparison.one_run_sd, comparison.interval_level)
    if found is None:
        return {}
    low, high = (1.0 - found[1], 1.0 - found[0]) if settings.lower_is_better else found
    return {"prob_better_low": low, "prob_better_high": high}


def _verdict(
    comparison: Comparison, sides: tuple[Side, Side], images: MeanSquares | None, settings: Settings
) -> Verdict:
    for side in sides:
        if too_few := verdicts.why_too_few(side.level, settings.metric):
            return verdicts.not_evaluable(too_few)
        if side.level.n == 0:
            return verdicts.not_evaluable(verdicts.why_no_value(side.level))
    if comparison.seeds == 1:
        return verdicts.not_evaluable("1 seed: no verdict possible")
    if comparison.estimate is None:
        return verdicts.not_evaluable("every seed gave the same value: the spread between seeds is unknown")
    equivalence = comparison.equivalence_level
    verdict = verdicts.judge(comparison.estimate, comparison.level, comparison.seeds, settings, equivalence)
    if verdict.word in (HELPS, HURTS) and images is not None:
        width = intervals.new_images_half_width(comparison.estimate, images, comparison.level)
        if abs(comparison.estimate.value) <= width:
            return Verdict(verdict.word, " ".join(filter(None, (ON_THIS_TEST_SET, verdict.qualifier))))
    if verdict.word == UNDECIDED and not _includes_zero(
        comparison.estimate, comparison.stage.nominal(settings.alpha)
    ):
        note = "0 is excluded only before Holm's correction"
        return Verdict(verdict.word, f"{verdict.qualifier}; {note}", verdict.more_seeds)
    return verdict


def images_of(sides: tuple[Side, Side], settings: Settings) -> MeanSquares | None:
    """For T2: the per-image bits of the seeds that both arms have; None without bits of two seeds."""
    # The bits are of the top-1 answer, also where the metric is one over classes; results from elsewhere,
    # whose metrics have any name, have bits only where the metric is their mean.
    if settings.metric in PER_CLASS or not (settings.metric == "top1" or settings.percent):
        return None
    pairs = []
    one, other = sides
    for seed in one.level.values:
        if seed not in other.level.values or (first := _bits(one.runs.get(seed))) is None:
            continue
        second = _bits(other.runs.get(seed))
        if second is not None and first.size == second.size:
            pairs.append(first.astype(np.int8) - second.astype(np.int8))
    if len(pairs) < 2 or len({pair.size for pair in pairs}) > 1 or pairs[0].size < 2:
        return None
    return intervals.mean_squares(np.stack(pairs))


def _bits(run: Outcome | None) -> NDArray[np.uint8] | None:
    return (
        None if run is None or run.predictions is None else intervals.unpack(run.predictions, run.test_images)
    )


def _with_gap(
    effect: Effect, comparison: Comparison, paper: PaperEffect | None, settings: Settings
) -> Effect:
    if paper is None or comparison.estimate is None or not settings.comparable_to_paper:
        return effect
    gap = verdicts.gap_to_paper(comparison.estimate, effect.n, paper, settings, comparison.interval_level)
    return dataclasses.replace(
        effect, gap=gap.value, gap_low=gap.low, gap_high=gap.high, agreement=gap.agreement
    )


def _interval(estimate: Estimate, alpha: float) -> tuple[float, float]:
    width = float(intervals.half_width(estimate, alpha))
    return float(estimate.value) - width, float(estimate.value) + width


def _includes_zero(estimate: Estimate, alpha: float) -> bool:
    low, high = _interval(estimate, alpha)
    return low <= 0.0 <= high


# Verdicts from contrasts that were not declared before results were there are marked as exploratory.


EXPLORATORY = " Exploratory: not declared before results were there."


def mark_exploratory(findings: Findings, keys: Collection[tuple[str, str | None, str]]) -> Findings:
    """The findings with `Effect.exploratory` set for these (table, column, row); no number changes.

    They stay in the Holm family, which is that of the plan as it is now: taking them out would make the
    tests of the other rows easier after results were seen.
    """
    if not keys:
        return findings
    tables = tuple(_marked(table, keys) for table in findings.tables)
    return dataclasses.replace(findings, tables=tables)


def _marked(table: TableFinding, keys: Collection[tuple[str, str | None, str]]) -> TableFinding:
    cells = tuple(
        _marked_cell(cell) if (table.key, cell.column, cell.row) in keys else cell for cell in table.cells
    )
    return dataclasses.replace(table, cells=cells)


def _marked_cell(cell: CellFinding) -> CellFinding:
    if cell.effect is None:
        return cell
    effect = dataclasses.replace(cell.effect, exploratory=True)
    return dataclasses.replace(cell, effect=effect, sentence=cell.sentence + EXPLORATORY)


# Would the verdict be another without one seed, or if diverged runs counted?


MOST_LEFT_OUT = 5_000  # seeds times comparisons of a table: beyond it, no single seed decides much
NOTHING_LEARNT_PCT = 0.0  # what a diverged run without a value counts as; chance is above it


def fragile_pairs(values: Floats, failures: Floats, family: Family, words: Sequence[str]) -> list[bool]:
    """For each open pair, whether its word changes when a seed of either arm is left out, or failures count.

    The word before the rules about the number of seeds is compared, so that 3 seeds can be tested against
    2. Pairs with fewer than 3 seeds, or without a word, are not called fragile. At a look, it is the word of
    that look that may change: what was settled before it stays. Beyond `MOST_LEFT_OUT` it is not tried.

    Args:
        values: (A, S) the metric in percent of converged runs; NaN elsewhere.
        failures: (A, S) what diverged runs count as, in percent; NaN elsewhere.
        words: the word of each open pair on `values`.
    """
    present = np.isfinite(values)
    if values.shape[1] * len(words) > MOST_LEFT_OUT:
        return [False] * len(words)
    without = [
        words_without_seed(values, family, s) if present[:, s].any() else None for s in range(values.shape[1])
    ]
    counted: dict[tuple[int, ...], list[str]] = {}  # arms whose failures count -> the words then
    out = []
    tested = family.pairs if family.stage.open is None else [family.pairs[k] for k in family.stage.open]
    for k, (arm, versus) in enumerate(tested):
        if words[k] == NOT_EVALUABLE or present[[arm, versus]].sum(axis=1).min() < verdicts.FEWEST_SEEDS:
            out.append(False)
            continue
        used = present[arm] | present[versus]
        left_out = [rest[k] for s, rest in enumerate(without) if rest is not None and used[s]]
        lossy = tuple(each for each in (arm, versus) if np.isfinite(failures[each]).any())
        if lossy:
            if lossy not in counted:
                filled = _with_failures(values, failures, lossy)
                counted[lossy] = [each.word for each in compare_family(filled, family)]
            left_out.append(counted[lossy][k])
        out.append(any(word != words[k] for word in left_out))
    return out


def _with_failures(values: Floats, failures: Floats, arms: Sequence[int]) -> Floats:
    """The table when the diverged runs of these arms count (those of other arms do not)."""
    filled = values.copy()
    for arm in arms:
        filled[arm] = np.where(np.isfinite(failures[arm]), failures[arm], values[arm])
    return filled
