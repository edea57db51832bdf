"""What these seeds could have seen, and how many more it would take."""

from __future__ import annotations

import math

from scipy import special

from harness.analysis.intervals import Estimate, quantile

POWER = 0.80
MOST_SEEDS = 10_000


def detectable_effect(estimate: Estimate, level: float) -> float | None:
    """The true effect that a two-sided t test at `level` would find with 80 % power, in the estimate's units.

    The noncentrality at which P(T > t_{1 - level/2, df}) = 0.80, times the standard error. Exact in the
    noncentral t distribution; the sum of quantiles t_{1 - level/2} + t_{.80} is its large-df limit.
    None where the standard error is 0.
    """
    se, df = float(estimate.se), float(estimate.df)
    if se == 0.0:
        return None
    critical = float(quantile(1.0 - level / 2.0, df))
    return float(special.nctdtrinc(df, 1.0 - POWER, critical)) * se


def seeds_to_resolve(estimate: Estimate, seeds: int, effect: float, level: float) -> int | None:
    """The smallest number of seeds per arm with which `effect` is found at `level` with 80 % power.

    n >= (t_{1 - level/2} + t_{.80})^2 (v_arm + v_versus) / effect^2 at the df that n seeds would have
    (in proportion to n - 1). The effect asked for is the smallest of interest, never the one observed:
    planning for the observed effect would repeat its luck.

    Args:
        estimate: from `seeds` >= 2 seeds per arm.
    Returns:
        At least 3; None where more than 10,000 would be needed.
    """
    variance = float(estimate.se) ** 2 * seeds
    df_per_seed = float(estimate.df) / (seeds - 1)

    def resolves(n: int) -> bool:
        df = df_per_seed * (n - 1)
        t = float(quantile(1.0 - level / 2.0, df) + quantile(POWER, df))
        return t * math.sqrt(variance / n) <= effect

    if not resolves(MOST_SEEDS):
        return None
    low, high = 2, MOST_SEEDS  # resolves(high) holds, and is monotone in n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if resolves(middle) else (middle, high)
    return high
