"""The variance guard: an arm that is much noisier than the others pays with its own variance.

Pooling one variance over the whole table is what gives power at 3 seeds, and is unsafe where one arm is
noisier than the rest: its row then looks surer than it is, and a noisy reference spoils every row at once.
So each arm is tested against the others with the exact F ratio of `blockfit.fit`. An arm whose upper p is
below its threshold is flagged and gets max(own variance, pooled variance) with its own degrees of freedom.
The pooled variance is not purged of flagged arms (purging makes the others' intervals too short).

The threshold depends on how many contrasts rest on the arm, because an unlucky, unflagged estimate is
repeated in all of them, and on how little is known of the arm's variance (k = its degrees of freedom, one
less than its seeds):

    contrasts with the arm      flagged where p <           3 seeds   5 seeds   8 seeds
    1                           0.10                        0.10      0.10      0.10
    2                           max(0.10, 0.4 / k)          0.20      0.10      0.10
    3 or more, or all           max(0.10, 0.7 / k)          0.35      0.175     0.10

The constants are chosen by simulation so that the family-wise error stays at 5 % in every setting of
`benchmarks/validate_statistics.py`, which prints the trade. As measured there with 20,000 tables (9 arms,
every row against one reference, Holm, nominal 5 %; Monte-Carlo error about .0015):

                                          0.10 for every arm    these thresholds
    3 seeds, reference 3 times as noisy   .083                  .048
    5 seeds, reference twice as noisy     .058                  .046
    3 seeds, power of a row of 3 sigma    .56                   .44
    5 seeds                               .86                   .84
    10 seeds                              1.00                  1.00
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.analysis.blockfit import BlockFit
from harness.analysis.intervals import Estimate, Floats, satterthwaite

LEAST = 0.10
TWO_CONTRASTS, MANY_CONTRASTS = 0.4, 0.7  # divided by the arm's degrees of freedom


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """The variance that each arm's contrasts use. Leading axes are tables."""

    variance: Floats  # (..., A)
    flagged: NDArray[np.bool_]  # (..., A)


def thresholds(own_df: NDArray[np.intp], contrasts: Sequence[tuple[int, int]]) -> Floats:
    """The (A,) guard threshold of each arm, given its df (A,) and the (arm, versus) pairs of the table."""
    uses = np.bincount(np.ravel(contrasts).astype(int), minlength=len(own_df))
    many = (uses >= 3) | ((uses == 2) & (uses == len(contrasts)))
    scale = np.where(many, MANY_CONTRASTS, np.where(uses == 2, TWO_CONTRASTS, 0.0))
    return np.maximum(LEAST, scale / np.maximum(own_df, 1))


def guard(fitted: BlockFit, threshold: Floats) -> Guarded:
    """Flag arms and choose their variances; `threshold` as from `thresholds`."""
    rest_df = fitted.design.df - fitted.own_df
    testable = (fitted.own_df > 0) & (rest_df > 0)
    p = special.fdtrc(np.maximum(fitted.own_df, 1), np.maximum(rest_df, 1), fitted.ratio)
    flagged = testable & (p < threshold)
    pooled = fitted.pooled[..., None]
    return Guarded(variance=np.where(flagged, np.maximum(fitted.own, pooled), pooled), flagged=flagged)


def contrast(fitted: BlockFit, guarded: Guarded, arm: int, versus: int) -> Estimate | None:
    """tau_arm - tau_versus with its guarded standard error; None where no shared seeds link the two.

    Var = sum over runs of (least-squares weight)^2 times the variance of the run's arm; complete tables
    give (v_arm + v_versus) / S. The unflagged arms share one variance estimate and count as one part of
    Satterthwaite's formula, each flagged arm as another; the result is capped at the pooled df.
    """
    weights = fitted.design.weights(arm, versus)
    if weights is None or fitted.design.df < 1:
        return None
    arms = guarded.variance.shape[-1]
    squared = np.bincount(fitted.design.arm_of, weights=weights**2, minlength=arms)
    shares = squared * guarded.variance
    pooled = np.where(guarded.flagged, 0.0, shares).sum(axis=-1)
    own = np.moveaxis(np.where(guarded.flagged, shares, 0.0), -1, 0)
    parts = np.concatenate([own, pooled[None]])
    own_df = np.maximum(fitted.own_df, 1).reshape(arms, *[1] * pooled.ndim)
    df = np.concatenate([own_df * np.ones_like(own), np.full_like(pooled, fitted.design.df)[None]])
    return Estimate(
        value=fitted.runs @ weights,
        se=np.sqrt(shares.sum(axis=-1)),
        df=np.minimum(satterthwaite(parts, df), fitted.design.df),
    )
