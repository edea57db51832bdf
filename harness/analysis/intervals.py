"""t intervals, Welch's test and Holm's step-down rule. All functions broadcast over arrays.

Student's t and never a bootstrap: a percentile bootstrap over 3 seeds covers about 74 % where it says 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its standard error, in the value's units, and the degrees of freedom of that error.

    Plain floats for one contrast; arrays of one shape for many tables.
    """

    value: Floats
    se: Floats
    df: Floats


def quantile(confidence: ArrayLike, df: ArrayLike) -> Floats:
    """The quantile of Student's t with df degrees of freedom at `confidence` in (0, 1)."""
    out: Floats = special.stdtrit(np.asarray(df, dtype=np.float64), np.asarray(confidence, dtype=np.float64))
    return out


def half_width(estimate: Estimate, alpha: ArrayLike) -> Floats:
    """Half the length of the two-sided 1 - alpha interval: t_{1 - alpha/2, df} se."""
    return quantile(1.0 - np.asarray(alpha) / 2.0, estimate.df) * estimate.se


def p_value(estimate: Estimate) -> Floats:
    """Two-sided p of "the value is 0". With a standard error of 0: 1 where the value is 0, else 0."""
    value, se = np.broadcast_arrays(np.abs(estimate.value), np.asarray(estimate.se, dtype=float))
    t = np.divide(value, se, out=np.where(value > 0, np.inf, 0.0), where=se > 0)
    out: Floats = 2.0 * special.stdtr(estimate.df, -t)
    return out


def mean(values: ArrayLike) -> Estimate:
    """The mean of one sample (at least two values) with its own standard error and n - 1 df."""
    x = np.asarray(values, dtype=float)
    return Estimate(
        value=np.asarray(x.mean()),
        se=np.asarray(x.std(ddof=1) / np.sqrt(x.size)),
        df=np.asarray(x.size - 1.0),
    )


def welch(values: ArrayLike, versus: ArrayLike) -> Estimate:
    """Difference of two means (at least two values each) with unequal variances.

    Degrees of freedom by Welch and Satterthwaite (Welch, Biometrika 34, 1947).
    """
    one, other = mean(values), mean(versus)
    return Estimate(
        value=one.value - other.value,
        se=np.hypot(one.se, other.se),
        df=satterthwaite(np.stack([one.se**2, other.se**2]), np.stack([one.df, other.df])),
    )


def satterthwaite(parts: Floats, df: Floats) -> Floats:
    """Degrees of freedom of a sum of independent variance estimates; both arguments (parts, ...).

    (sum_k p_k)^2 / sum_k p_k^2 / df_k; a part of 0 does not count (Satterthwaite, Biometrics 2, 1946).
    The df of the last part stands in where every part is 0.
    """
    below = np.divide(parts**2, df, out=np.zeros_like(parts), where=parts > 0).sum(axis=0)
    last = np.broadcast_to(df[-1], below.shape).astype(float)
    return np.divide(parts.sum(axis=0) ** 2, below, out=last.copy(), where=below > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holm:
    """Holm's rule over one family; the last axis is the family of m contrasts."""

    p: Floats  # (..., m) adjusted p values
    level: Floats  # (..., m) the alpha that each contrast is tested and reported at


def holm(p: ArrayLike, alpha: float) -> Holm:
    """Holm (Scandinavian J. Statistics 6, 1979): the k-th smallest p is compared with alpha / (m - k + 1).

    `level` is that alpha for every rejected contrast and alpha / (m - rejected) for all others, so that an
    interval at `level` excludes 0 exactly where the adjusted p is below alpha. The interval shows the
    decision; it is not a simultaneous confidence interval for rejected contrasts.
    """
    raw = np.asarray(p, dtype=float)
    m = raw.shape[-1]
    order = np.argsort(raw, axis=-1, kind="stable")
    left = m - np.arange(m)
    ranked = np.minimum(np.maximum.accumulate(np.take_along_axis(raw, order, axis=-1) * left, axis=-1), 1.0)
    rejected = (ranked <= alpha).sum(axis=-1, keepdims=True)
    levels = alpha / np.maximum(left, m - rejected)
    adjusted, level = np.empty_like(raw), np.empty_like(raw)
    np.put_along_axis(adjusted, order, ranked, axis=-1)
    np.put_along_axis(level, order, np.broadcast_to(levels, raw.shape), axis=-1)
    return Holm(p=adjusted, level=level)
