"""Many tables at once: the decision as an array operation, and the false-alarm rate on real A/A tables.

An A/A table is made of runs of one recipe, so that every true effect in it is 0 and every "helps" or "hurts"
is a false alarm. Its arms are drawn without replacement from a pool of identical trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.analysis.contrasts import Pair
from harness.analysis.fit import BlockDesign, contrast, fit, guard, thresholds
from harness.analysis.intervals import Estimate, Floats, Holm, half_width, holm, p_value
from harness.analysis.verdicts import FEWEST_SEEDS
from harness.study.declaration import ALPHA

FEWEST_ARMS = 3  # with two arms their residuals mirror each other and the fit is not used
OUTLIER_SD = 3.5  # of the robust standard deviation, from the median (Iglewicz and Hoaglin 1993)
MAD_TO_SD = 1.4826  # of a normal distribution
GAUSSIAN_POOLS, MOST_OF_EACH = 40, 4000  # tables drawn from each
BATCH = 2000  # tables that are analysed together


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyTables:
    """The contrasts of R tables of one design, m in each."""

    estimates: tuple[Estimate, ...]  # m, each of shape (R,)
    variances: Floats  # (R, A) what the guard left to each arm
    holm: Holm  # (R, m)

    def rejected(self, alpha: float) -> NDArray[np.bool_]:
        """(R, m) whether a contrast is said to help or to hurt."""
        return np.asarray(self.holm.p <= alpha)

    def covered(self, truth: Floats, alpha: float) -> NDArray[np.bool_]:
        """(R, m) whether the unadjusted 1 - alpha interval of a contrast holds its true value (m,)."""
        return np.stack(
            [
                np.abs(estimate.value - true) <= half_width(estimate, alpha)
                for estimate, true in zip(self.estimates, truth, strict=True)
            ],
            axis=-1,
        )


def judge_tables(
    values: Floats,
    pairs: Sequence[Pair],
    alpha: float,
    present: NDArray[np.bool_] | None = None,
    *,
    several_looks: bool = False,
) -> ManyTables:
    """What `comparisons.compare` says of each of R tables with the same runs, in one pass.

    Args:
        values: (R, A, S), at least 3 arms and 3 seeds.
        present: (A, S) which runs there are; by default all.
        several_looks: whether this is one of several looks (see `guard`); Holm's rule is that of one look.
    Raises:
        ValueError: fewer arms or seeds, or two arms that no shared seeds link.
    """
    mask = np.ones(values.shape[1:], dtype=bool) if present is None else present
    if mask.shape[0] < FEWEST_ARMS or mask.shape[1] < FEWEST_SEEDS:
        raise ValueError(f"a table needs {FEWEST_ARMS} arms and {FEWEST_SEEDS} seeds, this has {mask.shape}")
    fitted = fit(BlockDesign.of(mask), values)
    guarded = guard(fitted, thresholds(fitted.own_df, pairs, several_looks=several_looks))
    estimates = [contrast(fitted, guarded, *pair) for pair in pairs]
    if any(estimate is None for estimate in estimates):
        raise ValueError("two arms of a pair are linked by no shared seeds")
    found = tuple(estimate for estimate in estimates if estimate is not None)
    p = np.stack([p_value(estimate) for estimate in found], axis=-1)
    return ManyTables(estimates=found, variances=guarded.variance, holm=holm(p, alpha))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPool:
    """How the values of identical trainings are spread."""

    runs: int
    mean: float
    sd: float
    skew: float
    skew_se: float  # what a normal sample of this size would scatter by
    excess_kurtosis: float
    kurtosis_se: float
    outliers: int  # more than 3.5 robust standard deviations from the median


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The decision on A/A tables. Rates are shares; bounds are at 95 %."""

    arms: int
    seeds: int
    tables: int
    alpha: float
    pool: TrainingPool
    false_alarms: int  # tables with at least one "helps" or "hurts"
    rate: float
    rate_upper: float  # one-sided Clopper-Pearson: how well these tables measure this pool
    disjoint_tables: int  # that the pool could fill without using a run twice
    pool_sd: float  # by how much the rate differs between pools of this size of normal noise
    rate_upper_with_pool: float  # one-sided, both kinds of uncertainty (normal approximation)
    coverage: float  # of 0 by the unadjusted 95 % intervals, over all contrasts
    worst_coverage: float  # of the contrast that is covered least


def calibrate(pool: Floats, arms: int, seeds: int, tables: int, seed: int = 0) -> Calibration:
    """Resample `tables` A/A tables (every arm against the first) from `pool` (n,) and decide each.

    Raises:
        ValueError: fewer than 3 arms or 3 seeds, a pool smaller than one table, or one without any spread.
    """
    values = np.asarray(pool, dtype=float)
    if arms * seeds > values.size:
        raise ValueError(f"{arms} arms of {seeds} seeds need {arms * seeds} runs, the pool has {values.size}")
    if np.ptp(values) == 0.0:
        raise ValueError("every run of the pool gave the same value: there is no noise to test with")
    rng = np.random.default_rng(seed)
    alarms, covered = _alarms(rng, values, (arms, seeds), tables)
    rate, between = alarms / tables, _between_pools(rng, values.size, (arms, seeds), tables)
    upper = _clopper_pearson_upper(alarms, tables)
    both = math.hypot((upper - rate) / special.ndtri(0.95), between)
    return Calibration(
        arms=arms,
        seeds=seeds,
        tables=tables,
        alpha=ALPHA,
        pool=describe(values),
        false_alarms=alarms,
        rate=rate,
        rate_upper=upper,
        disjoint_tables=values.size // (arms * seeds),
        pool_sd=between,
        rate_upper_with_pool=min(1.0, rate + float(special.ndtri(0.95)) * both),
        coverage=float(covered.mean()),
        worst_coverage=float(covered.min()),
    )


def describe(values: Floats) -> TrainingPool:
    """The shape of a pool of at least 4 values; standard errors are those of a normal sample."""

    # Imported here: half a second of every report that needs none of it.
    from scipy import stats

    n, center = values.size, float(np.median(values))
    robust_sd = MAD_TO_SD * float(np.median(np.abs(values - center)))
    skew_se = math.sqrt(6.0 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    return TrainingPool(
        runs=n,
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)),
        skew=float(stats.skew(values, bias=False)),
        skew_se=skew_se,
        excess_kurtosis=float(stats.kurtosis(values, bias=False)),
        kurtosis_se=2.0 * skew_se * math.sqrt((n * n - 1) / ((n - 3) * (n + 5))),
        outliers=int((np.abs(values - center) > OUTLIER_SD * robust_sd).sum()),
    )


def badge(found: Mapping[str, object]) -> str:
    """One line about a stored calibration, for a report: keys of `Calibration`, with `runs` and `recipe`."""
    rate, upper, nominal = (
        f"{100.0 * float(str(found[key])):.1f} %" for key in ("rate", "rate_upper", "alpha")
    )
    return (
        f"A/A self-test on this machine, {found['runs']} identical trainings of {found['recipe']}, "
        f"{int(str(found['tables'])):,} tables of {found['arms']} arms x {found['seeds']} seeds: "
        f"false alarms {rate} (upper bound {upper}) at nominal {nominal.replace('.0 %', ' %')}"
    )


def _alarms(
    rng: np.random.Generator, pool: Floats, shape: tuple[int, int], tables: int
) -> tuple[int, Floats]:
    """Tables with a false alarm, and the coverage of 0 for each contrast (m,)."""
    arms, seeds = shape
    pairs = [(arm, 0) for arm in range(1, arms)]
    alarms, covered = 0, np.zeros(len(pairs))
    for start in range(0, tables, BATCH):
        count = min(BATCH, tables - start)
        drawn = np.stack([rng.choice(pool, arms * seeds, replace=False) for _ in range(count)])
        found = judge_tables(drawn.reshape(count, arms, seeds), pairs, ALPHA)
        alarms += int(found.rejected(ALPHA).any(axis=1).sum())
        covered += found.covered(np.zeros(len(pairs)), ALPHA).sum(axis=0)
    return alarms, covered / tables


def _between_pools(rng: np.random.Generator, runs: int, shape: tuple[int, int], tables: int) -> float:
    """The sd of the rate over pools of normal noise of this size, the Monte-Carlo part removed."""
    each = min(tables, MOST_OF_EACH)
    pools = (rng.standard_normal(runs) for _ in range(GAUSSIAN_POOLS))
    rates = np.array([_alarms(rng, pool, shape, each)[0] / each for pool in pools])
    monte_carlo = float(rates.mean() * (1.0 - rates.mean())) / each
    return math.sqrt(max(float(rates.var(ddof=1)) - monte_carlo, 0.0))


def _clopper_pearson_upper(count: int, trials: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    return 1.0 if count == trials else float(special.betaincinv(count + 1.0, trials - count, confidence))
