"""Contrasts of many arms at once: any weights over the arms of one table, with a guarded standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.blockfit import BlockDesign, BlockFit, fit
from harness.analysis.guard import Guarded, combination, guard, thresholds_for
from harness.analysis.intervals import Estimate, Floats, mean, satterthwaite
from harness.analysis.verdicts import FEWEST_SEEDS

NO_SPREAD_PP = 1e-9  # standard errors below this are rounding, as in `comparisons`
NO_WEIGHT = 1e-12
RESTS_ON = 0.1  # share of a contrast's variance from which on it counts as resting on the arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """What the seeds say about one contrast, in percentage points."""

    seeds: int  # of the arm with fewest; 0 where one has no value
    value: float | None  # None where an arm has no value
    estimate: Estimate | None  # None without a standard error above 0
    flagged: bool = False  # the variance guard gave an arm that it rests on its own variance


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """The values of some arms (A, S) in percent, NaN where there is none, and their block fit.

    The fit is used from 3 arms and 3 seeds on; with fewer, every arm's own variance (Welch). Where arms
    evaluate the same trained networks, neither holds: then the contrast itself is taken seed by seed.
    """

    values: Floats
    fitted: BlockFit
    guarded: Guarded
    share_networks: bool

    @staticmethod
    def of(values: Floats, contrasts: Floats, share_networks: bool = False) -> Arms:
        """`contrasts` (K, A): the family whose weights say how much rests on each arm (see `guard`)."""
        fitted = fit(BlockDesign.of(np.isfinite(values)), values)
        guarded = Arms.guard_of(fitted, contrasts)
        return Arms(values=values, fitted=fitted, guarded=guarded, share_networks=share_networks)

    @staticmethod
    def guard_of(fitted: BlockFit, contrasts: Floats) -> Guarded:
        """The guard for a family of contrasts (K, A); leading axes of the fit are tables."""
        uses = _rests_on(contrasts).sum(axis=0)
        return guard(fitted, thresholds_for(fitted.own_df, uses, len(contrasts)))

    def combine(self, weights: Floats) -> Combined:
        """The contrast with these weights (A,), which sum to 0."""
        used = np.flatnonzero(np.abs(weights) > NO_WEIGHT)
        there = np.isfinite(self.values)
        if used.size == 0:  # the arms cancel: 0 by construction
            return Combined(seeds=int(there.sum(axis=1).min()), value=0.0, estimate=None)
        if self.share_networks:
            return self._seed_by_seed(used, weights[used])
        seeds = int(there[used].sum(axis=1).min())
        if seeds == 0:
            return Combined(seeds=0, value=None, estimate=None)
        estimate = None
        if seeds >= FEWEST_SEEDS and there.any(axis=1).sum() > 2:
            estimate = combination(self.fitted, self.guarded, weights)
        flagged = estimate is not None and bool((self.guarded.flagged & _rests_on(weights)).any())
        if estimate is None:
            estimate = _welch(self.values[used], weights[used]) if seeds > 1 else None
        if estimate is None:
            return Combined(seeds=seeds, value=_plain(self.values[used], weights[used]), estimate=None)
        return _with_spread(seeds, estimate, flagged)

    def _seed_by_seed(self, used: NDArray[np.intp], weights: Floats) -> Combined:
        per_seed = weights @ self.values[used]
        per_seed = per_seed[np.isfinite(per_seed)]
        if per_seed.size < 2:
            value = float(per_seed[0]) if per_seed.size else None
            return Combined(seeds=per_seed.size, value=value, estimate=None)
        return _with_spread(per_seed.size, mean(per_seed), False)


def _rests_on(contrasts: Floats) -> NDArray[np.bool_]:
    """Which arms carry a share of a contrast's variance that counts; both (..., A)."""
    squares = contrasts**2
    rests: NDArray[np.bool_] = squares >= RESTS_ON * np.maximum(
        squares.sum(axis=-1, keepdims=True), NO_WEIGHT
    )
    return rests


def _with_spread(seeds: int, estimate: Estimate, flagged: bool) -> Combined:
    value = float(estimate.value)
    if estimate.se <= NO_SPREAD_PP:
        return Combined(seeds=seeds, value=value, estimate=None)
    return Combined(seeds=seeds, value=value, estimate=estimate, flagged=flagged)


def _plain(values: Floats, weights: Floats) -> float:
    """From the arms' own means."""
    return float(weights @ np.nanmean(values, axis=1))


def _welch(values: Floats, weights: Floats) -> Estimate:
    """Welch's test for any contrast: each arm has its own variance (at least two values each)."""
    count = np.isfinite(values).sum(axis=1)
    parts = weights**2 * np.nanvar(values, axis=1, ddof=1) / count
    return Estimate(
        value=np.asarray(_plain(values, weights)),
        se=np.sqrt(parts.sum()),
        df=satterthwaite(parts, count - 1.0),
    )
