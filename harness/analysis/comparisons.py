"""Every contrast of one table at once: block fit, guard, Holm and words, on a matrix of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.blockfit import BlockDesign, BlockFit, fit, seed_correlation
from harness.analysis.findings import NOT_EVALUABLE, Settings
from harness.analysis.guard import Guarded, contrast, guard, thresholds
from harness.analysis.intervals import Estimate, Floats, holm, p_value, welch
from harness.analysis.sharing import UNRELATED, Relations, paired
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
    values: Floats,
    pairs: Sequence[Pair],
    settings: Settings,
    *,
    relations: Relations = UNRELATED,
    block_from: int = FEWEST_SEEDS,
) -> list[Comparison]:
    """One comparison per distinct pair of rows of `values` (A, S) in percent, NaN where there is no value.

    The pairs are the whole Holm family. The block fit is used from 3 arms and `block_from` seeds on. With two
    arms their residuals mirror each other, so that no guard is possible, and with two seeds a guard has no
    power: there, Welch's test. Which arms are fitted together `sharing` says, from their `relations`.
    """
    if not pairs:
        return []
    table = _Table(values=values, pairs=pairs, relations=relations, block_from=block_from)
    rows = [table.estimate(pair) for pair in pairs]
    p = [1.0 if estimate is None else float(p_value(estimate)) for _, estimate, _ in rows]
    family = holm(p, settings.alpha)
    return [
        Comparison(
            seeds=seeds,
            difference=_difference(values, pair) if estimate is None else float(estimate.value),
            estimate=estimate,
            flagged=flagged,
            p=None if estimate is None else p[k],
            p_holm=None if estimate is None else float(family.p[k]),
            level=float(family.level[k]),
            word=_word(estimate, float(family.level[k]), settings),
        )
        for k, (pair, (seeds, estimate, flagged)) in enumerate(zip(pairs, rows, strict=True))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """One table's values, and the block fits over parts of it that have been needed so far."""

    values: Floats
    pairs: Sequence[Pair]
    relations: Relations
    block_from: int
    fits: dict[tuple[int, ...], _Fit] = field(default_factory=dict)

    def estimate(self, pair: Pair) -> tuple[int, Estimate | None, bool]:
        """Seeds, the estimate (None without a spread), and whether the guard flagged one of the two arms."""
        there = np.isfinite(self.values[list(pair)])
        seeds, flagged = int(there.sum(axis=1).min()), False
        if self.relations.share(*pair):
            seeds, estimate = int(there.all(axis=0).sum()), paired(self.values, *pair)
        else:
            blocked = self._fit_with(pair).contrast(pair) if seeds >= self.block_from else None
            estimate, flagged = blocked or (_welch(self.values, pair) if seeds > 1 else None, False)
        if estimate is None or estimate.se <= NO_SPREAD_PP:
            return seeds, None, False
        return seeds, estimate, flagged

    def _fit_with(self, pair: Pair) -> _Fit:
        chosen = self.relations.fitted_with(pair, len(self.values))
        if chosen not in self.fits:
            self.fits[chosen] = _Fit.of(self.values, self.pairs, chosen)
        return self.fits[chosen]


@dataclass(frozen=True, slots=True)
class _Fit:
    """The block fit over some arms of a table, and its guard."""

    arms: tuple[int, ...]  # rows of the table's matrix, ascending
    fitted: BlockFit
    guarded: Guarded
    several: bool  # more than two arms have a value

    @staticmethod
    def of(values: Floats, pairs: Sequence[Pair], arms: tuple[int, ...]) -> _Fit:
        place = {arm: k for k, arm in enumerate(arms)}
        inside = [(place[arm], place[versus]) for arm, versus in pairs if {arm, versus} <= place.keys()]
        part = values[list(arms)]
        fitted = _fit(part)
        several = int(np.isfinite(part).any(axis=1).sum()) > 2
        return _Fit(arms, fitted, guard(fitted, thresholds(fitted.own_df, inside)), several)

    def contrast(self, pair: Pair) -> tuple[Estimate, bool] | None:
        """The estimate, and whether the guard flagged one of the two arms."""
        places = [self.arms.index(arm) for arm in pair]
        estimate = contrast(self.fitted, self.guarded, *places) if self.several else None
        return None if estimate is None else (estimate, bool(self.guarded.flagged[places].any()))


def words_without_seed(
    values: Floats, pairs: Sequence[Pair], settings: Settings, column: int, relations: Relations = UNRELATED
) -> list[str]:
    """The words of the same table with one seed left out. Two seeds suffice for the block fit here."""
    rest = np.delete(values, column, axis=1)
    return [each.word for each in compare(rest, pairs, settings, relations=relations, block_from=2)]


def noise(values: Floats, relations: Relations = UNRELATED) -> Noise:
    """Over a whole table: pooled residual sd, the seeds' share of the variance, what fitting them costs."""
    fitted = _fit(values[list(relations.fitted_with((), len(values)))])
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
