"""t intervals, Welch's test, Holm's rule, equivalence, signs, power. All broadcast over arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

# t intervals, Welch's test and Holm's step-down rule. All functions broadcast over arrays.
#
# Student's t and never a bootstrap: a percentile bootstrap over 3 seeds covers about
# 74 % where it says 95 %.


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


# Two one-sided tests: is the effect smaller than the smallest effect of interest?


def is_equivalent(estimate: Estimate, margin: float, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Whether both one-sided tests reject |effect| >= margin at `alpha` (shape of the estimate).

    The same as: the two-sided 1 - 2 alpha interval lies strictly inside (-margin, margin)
    (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987).
    """
    width = half_width(estimate, 2.0 * alpha)
    return np.asarray((estimate.value - width > -margin) & (estimate.value + width < margin))


# The exact sign test, for differences of which only the direction is known.


def sign_test(signs: Sequence[int]) -> float:
    """Two-sided exact p of "either direction is equally likely"; zeros do not count. 1 without any sign.

    >>> sign_test([1, 1, 1]), sign_test([-1] * 6), sign_test([])
    (0.25, 0.03125, 1.0)
    """
    up, down = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    n = up + down
    return min(1.0, 2.0 * sum(comb(n, k) for k in range(min(up, down) + 1)) / 2**n)


def fewest_for(alpha: float) -> int:
    """How many equal signs the test needs at least to stay below `alpha`.

    >>> fewest_for(0.05)
    6
    """
    n = 1
    while 2.0 / 2**n > alpha:
        n += 1
    return n


# What these seeds could have seen, and how many more it would take.


POWER = 0.80
SHIFT = 1e-4  # of a noncentrality, for its slope
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
    return noncentrality(1.0 - POWER, df, critical) * se


def noncentrality(p: float, df: float, t: float) -> float:
    """The noncentrality at which P(T <= t) = p, for Student's noncentral t with `df` degrees of freedom.

    scipy's inverse stops after some eight digits, and two CPUs stop at different places. A Newton step, with
    the slope from both sides, doubles the digits; the second one takes what rounding left.
    """
    found = float(special.nctdtrinc(df, p, t))
    for _ in range(2):
        below, here, above = (float(special.nctdtr(df, found + shift, t)) for shift in (-SHIFT, 0.0, SHIFT))
        if not above < below:
            break
        found -= (here - p) * 2.0 * SHIFT / (above - below)
    return found


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


# The second question (T2): would the effect hold on new test images too, not only on re-training?
#
# Seeds and images are crossed random effects, as readers and cases are in radiology (multi-reader multi-
# case analysis; Gallas, Academic Radiology 13, 2006). Mean squares of the two-way table of d_is =
# correct(row, image i, seed s) - correct(versus, i, s), a number in {-1, 0, 1}.


Differences = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSquares:
    """The two-way analysis of variance of d (S, N), in squared fractions of an image."""

    mean: float
    images: float
    seeds: float
    residual: float
    n_seeds: int
    n_images: int


def unpack(predictions: bytes, test_images: int) -> NDArray[np.uint8] | None:
    """The (N,) bits of one run, or None where their number does not fit the number of test images."""
    packed = np.frombuffer(predictions, dtype=np.uint8)
    if test_images < 1 or packed.size != -(-test_images // 8):
        return None
    return np.unpackbits(packed, count=test_images)


def mean_squares(differences: Differences) -> MeanSquares:
    """Mean squares of `differences` (S >= 2 seeds, N >= 2 images)."""
    seeds, images = differences.shape
    by_image, by_seed = (differences.sum(axis=axis, dtype=np.int64) for axis in (0, 1))  # exact sums
    total = float(np.count_nonzero(differences))  # the squares of -1, 0 and 1
    grand = float(by_seed.sum()) ** 2 / (seeds * images)
    over_images = float((by_image**2).sum()) / seeds - grand
    over_seeds = float((by_seed**2).sum()) / images - grand
    left = max(total - grand - over_images - over_seeds, 0.0)
    return MeanSquares(
        mean=float(by_seed.sum()) / (seeds * images),
        images=over_images / (images - 1),
        seeds=over_seeds / (seeds - 1),
        residual=left / ((images - 1) * (seeds - 1)),
        n_seeds=seeds,
        n_images=images,
    )


def crossed(ms: MeanSquares) -> Estimate:
    """The mean of d over new seeds and new images, from these mean squares alone, as a fraction.

    Var = max(MS_images + MS_seeds - MS_residual, MS_images) / (N S), with Satterthwaite's df
    (MS_images + g)^2 / (g^2 / (S - 1) + MS_images^2 / (N - 1)), g = max(MS_seeds - MS_residual, 0).
    """
    extra = max(ms.seeds - ms.residual, 0.0)
    variance = (ms.images + extra) / (ms.n_images * ms.n_seeds)
    below = extra**2 / (ms.n_seeds - 1) + ms.images**2 / (ms.n_images - 1)
    df = (ms.images + extra) ** 2 / below if below else ms.n_seeds - 1.0
    return Estimate(value=np.asarray(ms.mean), se=np.asarray(np.sqrt(variance)), df=np.asarray(df))


def with_images(over_training: Estimate, ms: MeanSquares) -> Estimate:
    """A contrast in percentage points over re-training (T1), taken to new test images too (T2).

    `crossed` with its seed part MS_seeds / (N S), which has only S - 1 df, replaced by the squared standard
    error of the block fit, which has those of the whole table: Var = max(se^2 + 100^2 (MS_images -
    MS_residual) / (N S), 100^2 MS_images / (N S), se^2), with Satterthwaite's df.
    """
    scale = 100.0**2 / (ms.n_images * ms.n_seeds)
    seeds = float(over_training.se) ** 2
    images = max((ms.images - ms.residual) * scale, ms.images * scale - seeds, 0.0)
    parts = seeds**2 / float(over_training.df) + images**2 / (ms.n_images - 1)
    df = (seeds + images) ** 2 / parts if parts else float(over_training.df)
    return Estimate(value=over_training.value, se=np.asarray(np.sqrt(seeds + images)), df=np.asarray(df))


def new_images_half_width(over_training: Estimate, ms: MeanSquares, alpha: float) -> float:
    """Half the 1 - alpha interval for T2, in percentage points.

    Never below that for T1: T2 asks for more, and at 1 or 2 degrees of freedom the image part would
    otherwise shorten the interval by adding degrees of freedom.
    """
    wide = with_images(over_training, ms)
    return max(float(half_width(wide, alpha)), float(half_width(over_training, alpha)))


# Looking at the data more than once: how much error each look may spend, and what it is tested at.
#
# A test that may be made at several looks spends its level as a function of the share t of the runs that
# are there (Lan and DeMets, Biometrika 70, 1983). The critical values are those of the group-sequential
# normal process: Z_k at share t_k with Cov(Z_j, Z_k) = sqrt(t_j / t_k), by recursive numerical integration
# (Armitage, McPherson and Rowe, J. R. Stat. Soc. A 132, 1969; Jennison and Turnbull, Group Sequential
# Methods, 2000, ch. 19). The normal tail beyond the critical value is the nominal level, at which the t
# test of that look is made (the significance-level approach, ibid. sec. 3.8).


Looks = tuple[int, ...]  # seeds per arm at each look, ascending; the last is the budget

NODES = 128  # of the Gauss-Legendre rule: error below 1e-12, even for 100 looks
FAR = 8.5  # standard deviations beyond which the process has no mass that counts
LEAST_SPENT = 1e-300  # less than this at a look: nothing is rejected there
GRID = np.geomspace(1e-13, 0.999, 48)  # levels at which the boundary is computed to invert it


def pocock_spent(alpha: float, share: float) -> float:
    """alpha ln(1 + (e - 1) t), spent almost evenly over the looks (Lan and DeMets 1983, sec. 4)."""
    return alpha * math.log1p((math.e - 1.0) * share)


def obrien_fleming_spent(alpha: float, share: float) -> float:
    """2 - 2 Phi(z_{1 - alpha/2} / sqrt(t)): hardly anything early (Lan and DeMets 1983, sec. 4)."""
    return float(2.0 * special.ndtr(special.ndtri(alpha / 2.0) / math.sqrt(share)))


def critical_values(spent: Sequence[float], shares: Sequence[float], sides: int = 2) -> tuple[float, ...]:
    """The z_k that a standard normal process first exceeds at look k with the probability newly spent there.

    Args:
        spent: the probability spent up to and including each look, ascending.
        shares: the share t_k of the runs that is there at each look, ascending.
        sides: 2 where |Z_k| >= z_k stops the process, 1 where only Z_k >= z_k does.
    """
    x, w = _rule()
    nodes, mass = np.zeros(1), np.ones(1)  # before the first look the process is at 0
    out, before, at = [], 0.0, 0.0
    for total, share in zip(spent, shares, strict=True):
        step, scale = math.sqrt(share - at), math.sqrt(share)
        z = _solve(total - before, nodes, mass, (step, scale, sides))
        out.append(z)
        high = min(z, FAR) * scale
        low = -high if sides == 2 else -FAR * scale
        places = (high + low) / 2.0 + (high - low) / 2.0 * x
        gaps = (places[:, None] - nodes) / step
        density = np.exp(-0.5 * gaps**2) @ mass / (step * math.sqrt(2.0 * math.pi))
        nodes, mass = places, density * w * (high - low) / 2.0
        before, at = total, share
    return tuple(out)


def _solve(wanted: float, nodes: Floats, mass: Floats, how: tuple[float, float, int]) -> float:
    """The z whose exit probability is `wanted`, given where the process was and with which probability."""
    # Imported here, as below: only studies with looks need it, and it loads slowly.
    from scipy import optimize

    step, scale, sides = how
    if wanted < LEAST_SPENT:
        return math.inf

    def excess(z: float) -> float:
        leaving = special.ndtr((nodes - z * scale) / step)
        if sides == 2:
            leaving = leaving + special.ndtr((-nodes - z * scale) / step)
        return math.log(max(float(leaving @ mass), 1e-320)) - math.log(wanted)

    least = 0.0 if sides == 2 else -FAR
    if excess(least) <= 0.0:
        return least  # more is spent than is left: everything is rejected
    return float(optimize.brentq(excess, least, 38.0, xtol=1e-12))


@cache
def _rule() -> tuple[Floats, Floats]:
    """Places in [-1, 1] and weights."""
    return np.polynomial.legendre.leggauss(NODES)


@lru_cache(maxsize=4096)
def nominal_levels(alpha: float, looks: Looks, sides: int = 2) -> tuple[float, ...]:
    """The level of the t test at each look (of `sides` tails together), Pocock-type spending of `alpha`.

    A single look is tested at alpha itself.
    """
    if len(looks) < 2:
        return (alpha,)
    shares = [seeds / looks[-1] for seeds in looks]
    z = critical_values([pocock_spent(alpha, share) for share in shares], shares, sides)
    return tuple(sides * float(special.ndtr(-each)) for each in z)


def repeated_p(p: Floats, looks: Looks, number: int) -> Floats:
    """The smallest level whose boundary at look `number` (from 0) the two-sided p values reach.

    The repeated p value of Jennison and Turnbull (2000, sec. 9.5), for this look alone: it may be held
    against alpha whenever it is read. With a single look it is p itself. Interpolated, to about 1e-5.
    """
    if len(looks) < 2:
        return p
    out: Floats = np.clip(np.exp(_inverse(looks, number)(np.log(np.clip(p, 1e-300, 1.0)))), 0.0, 1.0)
    return np.maximum(out, p)


@lru_cache(maxsize=64)
def _inverse(looks: Looks, number: int) -> Callable[[Floats], Floats]:
    """log of the nominal level at a look -> log of alpha; in proportion beyond the grid."""
    from scipy import interpolate

    nominal = np.log([nominal_levels(float(alpha), looks)[number] for alpha in GRID])
    curve = interpolate.PchipInterpolator(nominal, np.log(GRID))
    low, high = (nominal[0], math.log(GRID[0])), (nominal[-1], math.log(GRID[-1]))

    def inverse(x: Floats) -> Floats:
        inside = curve(np.clip(x, low[0], high[0]))
        return np.asarray(inside + np.minimum(x - low[0], 0.0) + np.maximum(x - high[0], 0.0))

    return inverse


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One look at one table: which of its contrasts are still open, and what each of them is tested at.

    Without looks, or with a single one: a fixed design, in which every contrast is tested once.
    """

    looks: Looks = ()
    number: int = 0  # of this look, from 0
    open: tuple[int, ...] | None = None  # the contrasts that are tested, by position; None: all
    rejected: int = 0  # contrasts that helped or hurt at an earlier look: their share is the others'
    barred: frozenset[int] = frozenset()  # open, but with too many diverged runs for a verdict

    @property
    def is_fixed(self) -> bool:
        return len(self.looks) < 2

    def nominal(self, alpha: float, sides: int = 2) -> float:
        """The level of the t test of this look, of all `sides` tails together, for an error of alpha."""
        return alpha if self.is_fixed else nominal_levels(alpha, self.looks, sides)[self.number]

    def step_down(self, p: Floats, contrasts: int, alpha: float) -> Holm:
        """Holm's rule over the open contrasts (their p values), and over looks.

        The k-th smallest p is held against the nominal level of alpha / (contrasts - rejected - k + 1): what
        a rejected contrast had is shared by those that are left, at this look and at every later one
        (Maurer and Bretz, Stat. Biopharm. Res. 5, 2013). One that was settled in another way keeps its share.

        Returns:
            `level`: the nominal levels; `p`: adjusted p values, to be held against alpha at any look.
        """
        if self.is_fixed:
            return holm(p, alpha)
        left = contrasts - self.rejected - np.arange(p.size)
        order = np.argsort(p, kind="stable")
        found = 0
        while found < p.size and p[order[found]] <= self.nominal(alpha / left[found]):
            found += 1
        levels = [self.nominal(alpha / each) for each in left[:found]]
        if found < p.size:
            levels += [self.nominal(alpha / left[found])] * (p.size - found)
        adjusted, level = np.empty_like(p), np.empty_like(p)
        repeated = repeated_p(p[order], self.looks, self.number)
        adjusted[order] = np.minimum(np.maximum.accumulate(repeated * left), 1.0)
        level[order] = levels
        return Holm(p=adjusted, level=level)


ONE_LOOK = Stage()
