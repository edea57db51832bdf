"""Every contrast of one table at once: block fit, guard, Holm and words, on a matrix of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.blockfit import BlockDesign, BlockFit, fit, seed_correlation
from harness.analysis.findings import NOT_EVALUABLE, Settings
from harness.analysis.guard import contrast, guard, thresholds
from harness.analysis.intervals import Estimate, Floats, holm, p_value, welch
from harness.analysis.verdicts import FEWEST_SEEDS, word_for

Pair = tuple[int, int]  # (arm, the arm it is compared with), as rows of the matrix
NO_SPREAD_PP = 1e-9  # standard errors below this are rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the seeds say about one contrast, in percentage points."""

    seeds: int  # of the arm with fewer
    difference: float | None  # None where one arm has no value
    estimate: Estimate | None  # None without a standard error above 0
    flagged: bool = False
    p: float | None = None
    p_holm: float | None = None
    level: float  # the alpha that Holm's rule leaves to this contrast
    word: str  # before the rules about seeds and failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The spread of one table between seeds."""

    pooled_sd: float | None
    seed_correlation: float | None
    paired_df_cost: int | None  # degrees of freedom spent on the seeds' own effects


def compare(
    values: Floats, pairs: Sequence[Pair], settings: Settings, *, block_from: int = FEWEST_SEEDS
) -> list[Comparison]:
    """One comparison per distinct pair of rows of `values` (A, S) in percent, NaN where there is no value.

    The pairs are the whole Holm family. The block fit is used from 3 arms and `block_from` seeds on. With two
    arms their residuals mirror each other, so that no guard is possible, and with two seeds a guard has no
    power: there, Welch's test.
    """
    if not pairs:
        return []
    counts = np.isfinite(values).sum(axis=1)
    fitted = _fit(values)
    guarded = guard(fitted, thresholds(fitted.own_df, pairs))
    several_arms = int((counts > 0).sum()) > 2
    rows = []
    for pair in pairs:
        seeds = int(counts[list(pair)].min())
        blocked = contrast(fitted, guarded, *pair) if several_arms and seeds >= block_from else None
        estimate = blocked or (_welch(values, pair) if seeds > 1 else None)
        if estimate is not None and estimate.se <= NO_SPREAD_PP:
            estimate = None
        flagged = blocked is not None and bool(guarded.flagged[list(pair)].any())
        rows.append((seeds, estimate, flagged))
    p = [1.0 if estimate is None else float(p_value(estimate)) for _, estimate, _ in rows]
    family = holm(p, settings.alpha)
    return [
        Comparison(
            seeds=seeds,
            difference=_difference(values, pair) if estimate is None else float(estimate.value),
            estimate=estimate,
            flagged=flagged and estimate is not None,
            p=None if estimate is None else p[k],
            p_holm=None if estimate is None else float(family.p[k]),
            level=float(family.level[k]),
            word=_word(estimate, float(family.level[k]), settings),
        )
        for k, (pair, (seeds, estimate, flagged)) in enumerate(zip(pairs, rows, strict=True))
    ]


def words_without_seed(values: Floats, pairs: Sequence[Pair], settings: Settings, column: int) -> list[str]:
    """The words of the same table with one seed left out. Two seeds suffice for the block fit here."""
    rest = np.delete(values, column, axis=1)
    return [each.word for each in compare(rest, pairs, settings, block_from=2)]


def noise(values: Floats) -> Noise:
    """Pooled residual sd, the seeds' share of the variance and what it costs to fit the seeds."""
    fitted = _fit(values)
    design = fitted.design
    if design.df < 1:
        return Noise(pooled_sd=None, seed_correlation=None, paired_df_cost=None)
    runs, arms = design.arm_of.size, np.unique(design.arm_of).size
    return Noise(
        pooled_sd=float(np.sqrt(fitted.pooled)),
        seed_correlation=float(seed_correlation(fitted)),
        paired_df_cost=int(runs - arms - design.df),
    )


def _fit(values: Floats) -> BlockFit:
    return fit(BlockDesign.of(np.isfinite(values)), values)


def _welch(values: Floats, pair: Pair) -> Estimate:
    return welch(_finite(values[pair[0]]), _finite(values[pair[1]]))


def _difference(values: Floats, pair: Pair) -> float | None:
    one, other = (_finite(values[arm]) for arm in pair)
    return float(one.mean() - other.mean()) if one.size and other.size else None


def _finite(row: Floats) -> Floats:
    return row[np.isfinite(row)]


def _word(estimate: Estimate | None, level: float, settings: Settings) -> str:
    return NOT_EVALUABLE if estimate is None else word_for(estimate, level, settings.smallest_effect_pp)
