"""What this study could have seen: the effect resolved with 80 % power, by the number of seeds per arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from harness.analysis.findings import Settings
from harness.analysis.further_findings import Resolvable
from harness.analysis.intervals import Estimate
from harness.analysis.power import MOST_SEEDS, detectable_effect

FEWEST = 2
SHOWN = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


def resolvable(
    measured: Iterable[tuple[Estimate | None, int]], contrasts: int, settings: Settings
) -> Resolvable | None:
    """The curve of one table. `measured`: each comparison's estimate, and its seeds per arm.

    At n seeds a comparison has the standard error sd sqrt(2 / n) and df_per_seed (n - 1) degrees of freedom,
    sd and df_per_seed being the medians over the table: in a complete table of A arms the pooled sd of the
    block fit and A - 1. The effect is `power.detectable_effect` at alpha / contrasts.
    Returns: None where no comparison of two or more seeds has a standard error.
    """
    known = [(estimate, n) for estimate, n in measured if estimate is not None and n >= FEWEST]
    if not known or contrasts < 1:
        return None
    sd = float(np.median([float(estimate.se) * math.sqrt(n / 2) for estimate, n in known]))
    df_per_seed = float(np.median([float(estimate.df) / (n - 1) for estimate, n in known]))
    level = settings.alpha / contrasts
    now = max(n for _, n in known)

    def effect(seeds: int) -> float:
        return effect_at(seeds, sd, df_per_seed, level)

    needed = _fewest(effect, settings.smallest_effect_pp)
    seeds = sorted({*SHOWN, now})
    return Resolvable(
        level=level,
        sd=sd,
        df_per_seed=df_per_seed,
        seeds_now=now,
        effect_now=effect(now),
        seeds_needed=needed,
        seeds=tuple(seeds),
        effects=tuple(effect(n) for n in seeds),
    )


def effect_at(seeds: int, sd: float, df_per_seed: float, level: float) -> float:
    """The effect that `seeds` >= 2 runs per arm find with 80 % power at a two-sided `level`."""
    se, df = sd * math.sqrt(2 / seeds), df_per_seed * (seeds - 1)
    found = detectable_effect(Estimate(value=np.asarray(0.0), se=np.asarray(se), df=np.asarray(df)), level)
    assert found is not None  # the standard error is above 0
    return found


def _fewest(effect: Callable[[int], float], size: float) -> int | None:
    """The smallest number of seeds whose effect is at most `size`; the effect falls with the seeds."""
    if not effect(MOST_SEEDS) <= size:
        return None
    low, high = FEWEST - 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if effect(middle) <= size else (middle, high)
    return high
