"""Every contrast of one table at once: block fit, guard, Holm and words, on a matrix of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.blockfit import BlockDesign, BlockFit, fit, seed_correlation
from harness.analysis.findings import NOT_EVALUABLE, Settings
from harness.analysis.guard import Guarded, contrast, guard, thresholds
from harness.analysis.intervals import Estimate, Floats, p_value, welch
from harness.analysis.sharing import UNRELATED, Relations, paired
from harness.analysis.spending import ONE_LOOK, Stage
from harness.analysis.verdicts import EQUIVALENCE_ALPHA, FEWEST_SEEDS, word_for

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
    one_run_sd: float | None = None  # of the difference of two runs, one of each arm; None: not known
    stage: Stage = ONE_LOOK  # the look at which this was found

    @property
    def equivalence_level(self) -> float:
        """The level of each of the two one-sided tests."""
        return self.stage.nominal(EQUIVALENCE_ALPHA, sides=1)

    @property
    def interval_level(self) -> float:
        """The level of an interval that covers in 95 % of studies, however many looks there were."""
        return self.stage.nominal(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is tested together, and how."""

    pairs: Sequence[Pair]
    settings: Settings
    relations: Relations = UNRELATED
    stage: Stage = ONE_LOOK


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
) -> list[Comparison]:
    """One comparison per distinct pair of rows of `values` (A, S) in percent, NaN where there is no value.

    The pairs are the whole Holm family, tested once. The block fit is used from 3 arms and 3 seeds on. With
    two arms their residuals mirror each other, so that no guard is possible, and with two seeds a guard has
    no power: there, Welch's test. Which arms are fitted together `sharing` says, from their `relations`.
    """
    return compare_family(values, Family(pairs=pairs, settings=settings, relations=relations))


def compare_family(values: Floats, family: Family, block_from: int = FEWEST_SEEDS) -> list[Comparison]:
    """As `compare`, at a look: one comparison for each contrast that is open there, in their order.

    At a look only contrasts with `block_from` seeds can be found to help or hurt.
    """
    pairs, settings, stage = family.pairs, family.settings, family.stage
    tested = range(len(pairs)) if stage.open is None else stage.open
    if not tested:
        return []
    table = _Table(values=values, family=family, block_from=block_from)
    rows = [table.see(pairs[k]) for k in tested]
    raw = [1.0 if row.estimate is None else float(p_value(row.estimate)) for row in rows]
    held = [
        stage.is_fixed or (row.seeds >= block_from and k not in stage.barred)
        for k, row in zip(tested, rows, strict=True)
    ]
    p = np.where(held, raw, 1.0)
    found = stage.step_down(p, len(pairs), settings.alpha)
    return [
        Comparison(
            seeds=row.seeds,
            difference=_difference(values, pairs[k]) if row.estimate is None else float(row.estimate.value),
            estimate=row.estimate,
            flagged=row.flagged,
            p=None if row.estimate is None else raw[place],
            p_holm=None if row.estimate is None else float(found.p[place]),
            level=float(found.level[place]),
            word=_word(row.estimate, float(found.level[place]), settings, stage),
            one_run_sd=row.one_run_sd,
            stage=stage,
        )
        for place, (k, row) in enumerate(zip(tested, rows, strict=True))
    ]


@dataclass(frozen=True, slots=True)
class _Row:
    """What the runs say about one pair."""

    seeds: int
    estimate: Estimate | None = None  # None without a spread
    flagged: bool = False  # the guard gave one of the two arms its own variance
    one_run_sd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """One table's values, and the block fits over parts of it that have been needed so far."""

    values: Floats
    family: Family
    block_from: int
    fits: dict[tuple[int, ...], _Fit] = field(default_factory=dict)

    def see(self, pair: Pair) -> _Row:
        there = np.isfinite(self.values[list(pair)])
        seeds = int(there.sum(axis=1).min())
        if self.family.relations.share(*pair):
            seeds = int(there.all(axis=0).sum())
            row = _Row(seeds, paired(self.values, *pair))
        else:
            blocked = self._fit_with(pair).contrast(pair, seeds) if seeds >= self.block_from else None
            row = blocked or (_welch(self.values, pair, seeds) if seeds > 1 else _Row(seeds))
        return row if row.estimate is not None and row.estimate.se > NO_SPREAD_PP else _Row(seeds)

    def _fit_with(self, pair: Pair) -> _Fit:
        chosen = self.family.relations.fitted_with(pair, len(self.values))
        if chosen not in self.fits:
            self.fits[chosen] = _Fit.of(self.values, self.family, chosen)
        return self.fits[chosen]


@dataclass(frozen=True, slots=True)
class _Fit:
    """The block fit over some arms of a table, and its guard."""

    arms: tuple[int, ...]  # rows of the table's matrix, ascending
    fitted: BlockFit
    guarded: Guarded
    several: bool  # more than two arms have a value

    @staticmethod
    def of(values: Floats, family: Family, arms: tuple[int, ...]) -> _Fit:
        place = {arm: k for k, arm in enumerate(arms)}
        inside = [(place[arm], place[other]) for arm, other in family.pairs if {arm, other} <= place.keys()]
        part = values[list(arms)]
        fitted = _fit(part)
        several = int(np.isfinite(part).any(axis=1).sum()) > 2
        threshold = thresholds(fitted.own_df, inside, several_looks=not family.stage.is_fixed)
        return _Fit(arms, fitted, guard(fitted, threshold), several)

    def contrast(self, pair: Pair, seeds: int) -> _Row | None:
        """None where no shared seeds link the two."""
        places = [self.arms.index(arm) for arm in pair]
        estimate = contrast(self.fitted, self.guarded, *places) if self.several else None
        if estimate is None:
            return None
        one_run_sd = float(np.sqrt(self.guarded.variance[places].sum()))
        return _Row(seeds, estimate, bool(self.guarded.flagged[places].any()), one_run_sd)


def words_without_seed(values: Floats, family: Family, column: int) -> list[str]:
    """The words of the same table with one seed left out. Two seeds suffice for the block fit here."""
    rest = np.delete(values, column, axis=1)
    return [each.word for each in compare_family(rest, family, block_from=2)]


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


def _welch(values: Floats, pair: Pair, seeds: int) -> _Row:
    one, other = (_finite(values[arm]) for arm in pair)
    return _Row(seeds, welch(one, other), one_run_sd=float(np.hypot(one.std(ddof=1), other.std(ddof=1))))


def _difference(values: Floats, pair: Pair) -> float | None:
    one, other = (_finite(values[arm]) for arm in pair)
    return float(one.mean() - other.mean()) if one.size and other.size else None


def _finite(row: Floats) -> Floats:
    return row[np.isfinite(row)]


def _word(estimate: Estimate | None, level: float, settings: Settings, stage: Stage) -> str:
    if estimate is None:
        return NOT_EVALUABLE
    return word_for(estimate, level, settings.smallest_effect_pp, stage.nominal(EQUIVALENCE_ALPHA, sides=1))
