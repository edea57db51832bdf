"""The variance guard: an arm that is much noisier than the others pays with its own variance.

Pooling one variance over the whole table is what gives power at 3 seeds, and is unsafe where one arm is
noisier than the rest: its row then looks surer than it is, and a noisy reference spoils every row at once.
So each arm is tested against the others with the exact F ratio of `blockfit.fit`. Its variance is

    v = (1 - w) pooled + w max(own, pooled)

with a weight w that follows the upper p of that test: 0 where p >= H, 1 where p <= L, and in between
log(p / H) / log(L / H). The two parts have their own degrees of freedom in Satterthwaite's formula, so
that an arm that is a little suspicious loses a little. (A yes-or-no rule, which the first version had,
gives it at once a variance with 2 degrees of freedom at 3 seeds.) The pooled variance is not purged of
noisy arms: purging makes the others' intervals too short.

H depends on how many contrasts rest on the arm, because an unlucky estimate is repeated in all of them, and,
like L, on how much is known of the arm's variance (k = its degrees of freedom, one less than its seeds):

    contrasts with the arm    H                          3 seeds   5 seeds   10 seeds
    1                         0.14                       0.14      0.14      0.14
    2                         max(0.14, 0.38 / sqrt k)   0.27      0.19      0.14
    3 or more, or all         max(0.14, 0.70 / sqrt k)   0.49      0.35      0.23
    L / H                     1.2 / k, at most 0.95      0.60      0.30      0.13

A table that is looked at several times is tested at smaller levels, farther out in the tails, where a wrong
variance does more harm; there H is 1.7 times as large.

The constants are chosen by simulation so that the family-wise error stays at 5 % in every setting of
`benchmarks/validate_statistics.py`, which prints it. As measured with 20,000 tables (9 arms, every row
against one reference, Holm, nominal 5 %; Monte-Carlo error about .0015):

                                          flagged at p < .10   yes or no, stricter   these weights
    3 seeds, reference 3 times as noisy   .086                 .051                  .052
    worst of 66 settings                  .086                 .052                  .052
    3 seeds, power of a row of 3 sigma    .56                  .44                   .44
    4 seeds                               .74                  .68                   .70
    5 seeds                               .855                 .835                  .855
    10 seeds                              1.00                 1.00                  1.00
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.analysis.blockfit import BlockFit
from harness.analysis.intervals import Estimate, Floats, satterthwaite

LEAST = 0.14
TWO_CONTRASTS, MANY_CONTRASTS = 0.38, 0.70  # divided by the square root of the arm's degrees of freedom
SEVERAL_LOOKS, HIGHEST = 1.7, 0.97
FULL, LATEST_FULL = 1.2, 0.95  # where the weight reaches 1, as a share of where it leaves 0
SMALLEST_P = 1e-300  # below it logarithms are not taken
MOSTLY_OWN = 0.5  # weight from which on an arm is called flagged


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """The variance that each arm's contrasts use. Leading axes are tables."""

    variance: Floats  # (..., A)
    weight: Floats  # (..., A) of the arm's own variance: 0 pooled, 1 own

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(..., A) the arms whose own variance has at least half of the weight."""
        return self.weight >= MOSTLY_OWN


def thresholds(
    own_df: NDArray[np.intp], contrasts: Sequence[tuple[int, int]], *, several_looks: bool = False
) -> Floats:
    """The (A,) H of each arm (see above), given its df (A,) and the (arm, versus) pairs of the table."""
    uses = np.bincount(np.ravel(contrasts).astype(int), minlength=len(own_df))
    once = thresholds_for(own_df, uses, len(contrasts))
    return np.minimum(SEVERAL_LOOKS * once, HIGHEST) if several_looks else once


def thresholds_for(own_df: NDArray[np.intp], uses: NDArray[np.intp], contrasts: int) -> Floats:
    """The same from the number of contrasts that rest on each arm (A,), of how many there are."""
    many = (uses >= 3) | ((uses == 2) & (uses == contrasts))
    scale = np.where(many, MANY_CONTRASTS, np.where(uses == 2, TWO_CONTRASTS, 0.0))
    return np.maximum(LEAST, scale / np.sqrt(np.maximum(own_df, 1)))


def guard(fitted: BlockFit, threshold: Floats) -> Guarded:
    """Weigh each arm's own variance against the pooled one; `threshold` (A,): H, as from `thresholds`."""
    rest_df = fitted.design.df - fitted.own_df
    testable = (fitted.own_df > 0) & (rest_df > 0)
    p = special.fdtrc(np.maximum(fitted.own_df, 1), np.maximum(rest_df, 1), fitted.ratio)
    ramp = np.log(np.minimum(FULL / np.maximum(fitted.own_df, 1), LATEST_FULL))
    below = testable & (p < threshold)
    ratio = np.divide(p, threshold, out=np.ones_like(p), where=below)
    weight = np.clip(np.log(np.maximum(ratio, SMALLEST_P)) / ramp, 0.0, 1.0)
    pooled = fitted.pooled[..., None]
    return Guarded(variance=(1.0 - weight) * pooled + weight * np.maximum(fitted.own, pooled), weight=weight)


def contrast(fitted: BlockFit, guarded: Guarded, arm: int, versus: int) -> Estimate | None:
    """tau_arm - tau_versus with its guarded standard error; None where no shared seeds link the two.

    Var = sum over runs of (least-squares weight)^2 times the variance of the run's arm; complete tables
    give (v_arm + v_versus) / S. What the arms take from the pooled variance is one part of Satterthwaite's
    formula, what each takes from its own another; the result is capped at the pooled df.
    """
    return _estimate(fitted, guarded, fitted.design.weights(arm, versus))


def combination(fitted: BlockFit, guarded: Guarded, contrast_of_arms: Floats) -> Estimate | None:
    """The same for any contrast (A,) of the arm effects, whose entries sum to 0."""
    return _estimate(fitted, guarded, fitted.design.weights_of(contrast_of_arms))


def _estimate(fitted: BlockFit, guarded: Guarded, weights: Floats | None) -> Estimate | None:
    if weights is None or fitted.design.df < 1:
        return None
    arms = guarded.variance.shape[-1]
    squared = np.bincount(fitted.design.arm_of, weights=weights**2, minlength=arms)
    shares = squared * guarded.variance
    of_pool = squared * (1.0 - guarded.weight) * fitted.pooled[..., None]
    pooled = of_pool.sum(axis=-1)
    own = np.moveaxis(np.maximum(shares - of_pool, 0.0), -1, 0)
    parts = np.concatenate([own, pooled[None]])
    own_df = np.maximum(fitted.own_df, 1).reshape(arms, *[1] * pooled.ndim)
    df = np.concatenate([own_df * np.ones_like(own), np.full_like(pooled, fitted.design.df)[None]])
    return Estimate(
        value=fitted.runs @ weights,
        se=np.sqrt(shares.sum(axis=-1)),
        df=np.minimum(satterthwaite(parts, df), fitted.design.df),
    )
