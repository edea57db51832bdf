"""The two-way fit of one table (accuracy = arm effect + seed effect + error), the variance guard, and which
arms are fitted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from harness.analysis.intervals import Estimate, Floats, mean, satterthwaite
from harness.spec import Arm

# The two-way fit of one table: accuracy = arm effect + seed (block) effect + error.
#
# Model y_as = mu + tau_a + b_s + e_as by ordinary least squares over whatever runs are there (randomised
# block design; Montgomery, Design and Analysis of Experiments, Sec. 4.1). With every seed in every arm the
# arm means are plain means; with gaps they are adjusted for the seeds an arm lacks.
#
# Everything that depends only on which runs exist is in `BlockDesign`; `BlockFit` applies it to values, and
# broadcasts over leading axes, so that one table and 10,000 simulated tables run through the same code.


RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDesign:
    """Which (arm, seed) runs there are, and the projections that follow from it.

    N is the number of runs, A of arms, S of seeds; runs are in arm-major order.
    """

    present: NDArray[np.bool_]  # (A, S)
    arm_of: NDArray[np.intp]  # (N,) the arm of each run
    x: Floats  # (N, A + S) which arm and which seed each run has
    solve: Floats  # (A + S, N) least-squares solution of the design
    estimable: Floats  # (A + S, A + S) projection onto what the design can estimate
    df: int  # residual degrees of freedom, (A - 1)(S - 1) where complete

    @staticmethod
    def of(present: ArrayLike) -> BlockDesign:
        """The design of a mask (A, S): True where the run has a value. Its arrays cannot be written to."""
        mask = np.asarray(present, dtype=bool)
        return _design(mask.shape, mask.tobytes())

    def weights(self, arm: int, versus: int) -> Floats | None:
        """The (N,) weights whose product with the runs estimates tau_arm - tau_versus.

        None where no chain of shared seeds links the two arms.
        """
        contrast = np.zeros(self.solve.shape[0])
        contrast[arm] += 1.0
        contrast[versus] -= 1.0
        if np.abs(self.estimable[arm] - self.estimable[versus] - contrast).max() > RANK_TOLERANCE:
            return None
        weights: Floats = self.solve[arm] - self.solve[versus]
        return weights

    def weights_of(self, contrast: Floats) -> Floats | None:
        """The same for any contrast (A,) of the arm effects, whose entries sum to 0.

        None where the runs cannot tell it from the seeds' effects.
        """
        full = np.concatenate([contrast, np.zeros(self.present.shape[1])])
        if np.abs(full @ self.estimable - full).max() > RANK_TOLERANCE:
            return None
        weights: Floats = full @ self.solve
        return weights

    def residuals(self, runs: Floats) -> Floats:
        """What the fit leaves of runs (..., N): (I - X X^+) applied to them; the projection is symmetric."""
        left: Floats = runs - (runs @ self.x) @ self.solve
        return left

    def residual_block(self, members: NDArray[np.intp]) -> Floats:
        """The part (n, n) of the projection onto the residuals that belongs to some runs."""
        block: Floats = np.eye(members.size) - self.x[members] @ self.solve[:, members]
        return block


@lru_cache(maxsize=8)  # a complete table without any one of its seeds is the same design
def _design(shape: tuple[int, int], mask: bytes) -> BlockDesign:
    """The pseudo-inverse X^+ = (X'X)^+ X': the small matrix has one row per arm and seed, not per run."""
    arms, seeds = shape
    present = np.frombuffer(mask, dtype=bool).reshape(shape)
    arm_of, seed_of = np.nonzero(present)
    rows = np.arange(arm_of.size)
    x = np.zeros((arm_of.size, arms + seeds))
    x[rows, arm_of] = 1.0
    x[rows, arms + seed_of] = 1.0
    normal = x.T @ x
    inverse = np.linalg.pinv(normal, rcond=RANK_TOLERANCE, hermitian=True)
    estimable = inverse @ normal
    solve = inverse @ x.T
    for array in (x, solve, estimable, arm_of):
        array.flags.writeable = False
    return BlockDesign(
        present=present,
        arm_of=arm_of,
        x=x,
        solve=solve,
        estimable=estimable,
        df=arm_of.size - round(float(np.trace(estimable))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFit:
    """The residual variances of one table, pooled and arm by arm. Leading axes are tables."""

    design: BlockDesign
    runs: Floats  # (..., N) the values, in the design's order
    pooled: Floats  # (...) residual variance s2 of the arms that are not wild; 0 where nothing is left over
    df: Floats  # (...) its degrees of freedom
    own: Floats  # (..., A) each arm's own variance, from its residuals
    own_df: NDArray[np.intp]  # (..., A)
    ratio: Floats  # (..., A) own part of the residual variance over that of the other arms; infinite: wild
    wild: NDArray[np.bool_]  # (..., A) the arms that the pool does without


def fit(design: BlockDesign, values: ArrayLike) -> BlockFit:
    """Fit tables of values (..., A, S); entries outside the design's mask are not read.

    Arms that are wild (see `wild_arms`) keep their variances; the other arms' variances, and the pool, are
    those of the table without them.
    """
    table = np.asarray(values, dtype=float)
    found = block_fit(design, table)
    wild = wild_arms(design, table, found.ratio)
    if not wild.any():
        return found
    pooled, df, own = np.array(found.pooled), np.array(found.df), np.array(found.own)
    own_df, ratio = np.array(found.own_df), np.array(found.ratio)
    for left_out in np.unique(wild[wild.any(axis=-1)], axis=0):
        where = np.equal(wild, left_out).all(axis=-1)
        without = block_fit(BlockDesign.of(design.present & ~left_out[:, None]), table[where])
        pooled[where], df[where] = without.pooled, without.df
        own[where] = np.where(left_out, own[where], without.own)
        own_df[where] = np.where(left_out, own_df[where], without.own_df)
        ratio[where] = np.where(left_out, np.inf, without.ratio)
    return replace(found, pooled=pooled, df=df, own=own, own_df=own_df, ratio=ratio, wild=wild)


# Wild arms: a collapsed recipe can be a hundred times as noisy as the rest (20 and 45 % where the others end
# at 85 with a standard deviation of 0.1), and with one pool for all of them every difference in the table
# would be undecided. Purging noisy arms from the pool makes the others' intervals too short where an arm was
# noisy by chance (see the guard below), so an arm is left out only where chance is out of the question: the
# probability that any arm of a table of equal variances is called wild is at most WILD. Two wild arms hide
# each other, so sets are tested: the k noisiest arms against the others, by `block_fit`'s F ratio, each k
# with its share of WILD, divided by the C(A, k) sets from which the noisiest was taken (Bonferroni).
WILD = 1e-4
FEWEST_CALM = 4  # arms that the pool keeps
NO_VARIANCE = 1e-18  # as a share of the whole table's sum of squares


def wild_arms(design: BlockDesign, table: Floats, ratio: Floats) -> NDArray[np.bool_]:
    """Which arms (..., A) of the tables (..., A, S) are wild; `ratio` (..., A) orders them by their noise.

    The sums of squares are exact for complete tables. With gaps that of the other arms is a little too large
    (the seeds' effects are fitted after the arms', not with them), so that fewer arms are called wild.
    """
    there = design.present
    arms, largest = len(there), int(there.any(axis=1).sum()) - FEWEST_CALM
    none = np.zeros(ratio.shape, dtype=bool)
    if largest < 1 or design.df < 1:
        return none
    runs = np.where(there, table, 0.0)
    runs = np.where(there, runs - (runs.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))[..., None], 0.0)
    order = np.argsort(-ratio, axis=-1, kind="stable")
    runs = np.take_along_axis(runs, order[..., None], axis=-2)
    held = there[order]

    def from_here(each: Floats) -> Floats:
        """Sums over this arm and all that are less noisy: (..., A, S) -> (..., A, S)."""
        return np.flip(np.cumsum(np.flip(each, axis=-2), axis=-2), axis=-2)

    count = from_here(held.astype(float))
    squares = (from_here(runs**2) - from_here(runs) ** 2 / np.maximum(count, 1)).sum(axis=-1)
    left = from_here(held.any(axis=-1, keepdims=True).astype(float))[..., 0]
    df = np.maximum(count - 1, 0).sum(axis=-1) - (left - 1)
    best, chance = np.zeros(ratio.shape[:-1], dtype=int), np.full(ratio.shape[:-1], np.inf)
    for k in range(1, largest + 1):
        top_df, rest_df = df[..., 0] - df[..., k], df[..., k]
        with np.errstate(divide="ignore", invalid="ignore"):
            f = ((squares[..., 0] - squares[..., k]) / top_df) / (squares[..., k] / rest_df)
        # Arms whose runs are equal to the last bit have no variance to compare with.
        usable = (top_df > 0) & (rest_df > 0) & (squares[..., k] > NO_VARIANCE * squares[..., 0])
        p = special.fdtrc(np.where(usable, top_df, 1), np.where(usable, rest_df, 1), np.where(usable, f, 0.0))
        p = np.where(usable, p * comb(arms, k), np.inf)
        best, chance = np.where(p < chance, k, best), np.minimum(p, chance)
    many = np.where(chance <= WILD / largest, best, 0)
    np.put_along_axis(none, order, np.arange(arms) < many[..., None], axis=-1)
    return none


def block_fit(design: BlockDesign, values: ArrayLike) -> BlockFit:
    """The fit with all arms in one pool.

    The residual sum of squares Q splits into the part that vanishes when arm a is left out of the table,
    Q_a = e_a' R_aa^+ e_a (deletion formula of least squares, e residuals, R their projection), and the
    rest. With equal variances the two are independent and chi-squared, so that
    `ratio` = [Q_a / df_a] / [(Q - Q_a) / (df - df_a)] is exactly F(df_a, df - df_a).

    `own` is the unbiased estimate of the arm's own variance under unequal variances,
    [Q_a - (df_a - g_a) Q_rest / df_rest] / g_a with g_a = trace(R_aa): for complete tables Grubbs (1948),
    J. Am. Stat. Assoc. 43. It may be negative by chance.
    """
    table = np.asarray(values, dtype=float)
    runs = table[..., design.present]
    residuals = design.residuals(runs)
    total = (residuals**2).sum(axis=-1)
    shape = (*total.shape, len(design.present))
    own, ratio, own_df = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.intp)
    alike: dict[bytes, tuple[Floats, float, int]] = {}  # arms with the same seeds have the same block
    for arm in range(shape[-1]):
        members = np.flatnonzero(design.arm_of == arm)
        seeds = design.present[arm].tobytes()
        if seeds not in alike:
            alike[seeds] = _inverse_block(design.residual_block(members))
        inverse, share, df = alike[seeds]
        rest_df = design.df - df
        if df < 1 or rest_df < 1:
            continue
        part = np.einsum("...i,ij,...j->...", residuals[..., members], inverse, residuals[..., members])
        rest = np.maximum(total - part, 0.0) / rest_df
        own_df[..., arm] = df
        own[..., arm] = (part - (df - share) * rest) / share
        ratio[..., arm] = _divide(part / df, rest)
    pooled = total / design.df if design.df else np.zeros_like(total)
    every = {"own": own, "own_df": own_df, "ratio": ratio, "wild": np.zeros(shape, dtype=bool)}
    return BlockFit(design=design, runs=runs, pooled=pooled, df=np.full_like(pooled, design.df), **every)


def _inverse_block(block: Floats) -> tuple[Floats, float, int]:
    """The generalised inverse of an arm's residual block, the block's trace, and its degrees of freedom."""
    inverse = np.asarray(np.linalg.pinv(block, rcond=RANK_TOLERANCE, hermitian=True), dtype=np.float64)
    no_residual = len(block) < 2 or float(np.trace(block)) < RANK_TOLERANCE
    df = 0 if no_residual else round(float(np.trace(inverse @ block)))
    return inverse, float(np.trace(block)), df


def seed_correlation(fitted: BlockFit) -> Floats:
    """The seed's share of the variance, sigma_b^2 / (sigma_b^2 + sigma_e^2), estimated; shape (...).

    Of a `block_fit`.

    sigma_b^2 by Henderson's method 3 (Biometrics 9, 1953): the reduction in the residual sum of squares
    when seeds join a fit that has the arms. 0 where arms and seeds cannot be told apart.
    """
    arm_means = np.stack(
        [fitted.runs[..., fitted.design.arm_of == arm].mean(axis=-1) for arm in _filled(fitted.design)],
        axis=-1,
    )
    position = np.unique(fitted.design.arm_of, return_inverse=True)[1]
    around_arms = ((fitted.runs - arm_means[..., position]) ** 2).sum(axis=-1)
    spare = fitted.runs.shape[-1] - arm_means.shape[-1]
    reduction = around_arms - fitted.pooled * fitted.design.df
    between = np.maximum(reduction - (spare - fitted.design.df) * fitted.pooled, 0.0)
    variance = between / spare if spare else np.zeros_like(between)
    return _divide(variance, variance + fitted.pooled)


def _filled(design: BlockDesign) -> Sequence[int]:
    return [int(arm) for arm in np.unique(design.arm_of)]


def _divide(top: Floats, bottom: Floats) -> Floats:
    """top / bottom; 0 for 0 / 0 and infinity for anything else over 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, float), np.asarray(bottom, float))
    out = np.where(top > 0, np.inf, 0.0)
    return np.divide(top, bottom, out=out, where=bottom > 0)


# The variance guard: an arm that is much noisier than the others pays with its own variance.
#
# Pooling one variance over the whole table is what gives power at 3 seeds, and is unsafe where one arm is
# noisier than the rest: its row then looks surer than it is, and a noisy reference spoils every row at
# once. So each arm is tested against the others with the exact F ratio of `block_fit`. Its variance is
#
#     v = (1 - w) pooled + w max(own, pooled)
#
# with a weight w that follows the upper p of that test: 0 where p >= H, 1 where p <= L, and in between
# log(p / H) / log(L / H). The two parts have their own degrees of freedom in Satterthwaite's formula, so
# that an arm that is a little suspicious loses a little. (A yes-or-no rule, which the first version had,
# gives it at once a variance with 2 degrees of freedom at 3 seeds.) The pooled variance is not purged of
# noisy arms, but for wild ones: purging makes the others' intervals too short.
#
# H depends on how many contrasts rest on the arm, because an unlucky estimate is repeated in all of them,
# and, like L, on how much is known of the arm's variance (k = its degrees of freedom, one less than its
# seeds):
#
#     contrasts with the arm    H                          3 seeds   5 seeds   10 seeds
#     1                         0.14                       0.14      0.14      0.14
#     2                         max(0.14, 0.38 / sqrt k)   0.27      0.19      0.14
#     3 or more, or all         max(0.14, 0.70 / sqrt k)   0.49      0.35      0.23
#     L / H                     1.2 / k, at most 0.95      0.60      0.30      0.13
#
# A table that is looked at several times is tested at smaller levels, farther out in the tails, where a
# wrong variance does more harm; there H is 1.7 times as large.
#
# The constants are chosen by simulation so that the family-wise error stays at 5 % in every setting of
# `benchmarks/validate_statistics.py`, which prints it. As measured with 20,000 tables (9 arms, every row
# against one reference, Holm, nominal 5 %; Monte-Carlo error about .0015):
#
#                                           flagged at p < .10   yes or no, stricter   these weights
#     3 seeds, reference 3 times as noisy   .086                 .051                  .052
#     worst of 66 settings                  .086                 .052                  .052
#     3 seeds, power of a row of 3 sigma    .56                  .44                   .44
#     4 seeds                               .74                  .68                   .70
#     5 seeds                               .855                 .835                  .855
#     10 seeds                              1.00                 1.00                  1.00


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
    """The (..., A) H of each arm (see above), given its df and the (arm, versus) pairs of the table."""
    uses = np.bincount(np.ravel(contrasts).astype(int), minlength=own_df.shape[-1])
    once = thresholds_for(own_df, uses, len(contrasts))
    return np.minimum(SEVERAL_LOOKS * once, HIGHEST) if several_looks else once


def thresholds_for(own_df: NDArray[np.intp], uses: NDArray[np.intp], contrasts: int) -> Floats:
    """The same from the number of contrasts that rest on each arm (A,), of how many there are."""
    many = (uses >= 3) | ((uses == 2) & (uses == contrasts))
    scale = np.where(many, MANY_CONTRASTS, np.where(uses == 2, TWO_CONTRASTS, 0.0))
    return np.maximum(LEAST, scale / np.sqrt(np.maximum(own_df, 1)))


def guard(fitted: BlockFit, threshold: Floats) -> Guarded:
    """Weigh each arm's own variance against the pooled one; `threshold` (..., A): H, as from `thresholds`."""
    rest_df = fitted.df[..., None] - fitted.own_df
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
    own_df = np.moveaxis(np.maximum(fitted.own_df, 1), -1, 0)
    df = np.concatenate([own_df * np.ones_like(own), (fitted.df * np.ones_like(pooled))[None]])
    return Estimate(
        value=fitted.runs @ weights,
        se=np.sqrt(shares.sum(axis=-1)),
        df=np.minimum(satterthwaite(parts, df), fitted.df),
    )


# Which arms of a table are fitted together: those of one column, and one row of each trained network.
#
# Columns are other networks or other batches, with another spread between seeds, and no contrast crosses
# them. So each column has its own block fit and its own variance; the Holm family is the table. (One
# unstable network in one column would otherwise leave every row of every column undecided.) A column with
# fewer than three arms is fitted with the whole table.
#
# Rows that evaluate the same trained networks (other crops, ensembles) are no independent trainings.
#
# Their values rise and fall together from seed to seed. Treated as independent trainings they make the
# pooled variance of a block fit too small for contrasts between different networks, and far too large for
# contrasts of one network with itself. Measured with three networks, three evaluations of each, 3 seeds,
# 300 tables: 95 % intervals of the plain fit miss in 11 to 14 % between networks and are 8 times too long
# within one; treated as follows, they miss in 4 to 6 %.
#   two arms that share a network are compared by their paired differences alone, with a paired t interval;
#   every other contrast uses the block fit over its two arms and those arms of the table that share
#   no network with each other or with the two.


Roots = Sequence[frozenset[str]]  # per arm of a table: the trained arms whose networks it evaluates
Columns = Sequence[frozenset[str | None]]  # per arm of a table: the columns that show it
FEWEST_IN_A_FIT = 3  # with two arms the residuals mirror each other


@dataclass(frozen=True, slots=True)
class Relations:
    """What the arms of a table have in common. None: no two share a network; all are in one column."""

    roots: Roots | None = None
    columns: Columns | None = None

    def share(self, arm: int, other: int) -> bool:
        """Whether two arms (positions in the table) evaluate a network in common."""
        return share(self.roots, arm, other)

    def fitted_with(self, pair: Sequence[int], arms: int) -> tuple[int, ...]:
        """The arms whose noise the contrast of a pair is judged by; `arms` is how many the table has."""
        everything = range(arms)
        if self.columns is not None and pair:
            common = frozenset.intersection(*(self.columns[arm] for arm in pair))
            column = [arm for arm in everything if self.columns[arm] & common]
            chosen = independent(self.roots, pair, column)
            if len(chosen) >= FEWEST_IN_A_FIT:
                return chosen
        return independent(self.roots, pair, everything)


UNRELATED = Relations()


def roots_of(arms: Mapping[str, Arm]) -> dict[str, frozenset[str]]:
    """arm_id -> the trained arms behind it: itself, or those that an evaluation-only arm observes."""
    return {
        arm_id: frozenset(member.arm for member in arm.observes) or frozenset({arm_id})
        for arm_id, arm in arms.items()
    }


def roots_where_shared(arms: Sequence[str], roots: Mapping[str, frozenset[str]]) -> Roots | None:
    """The roots of a table's arms (by default each its own), or None where no two arms share a network."""
    behind = [roots.get(arm, frozenset({arm})) for arm in arms]
    return behind if sum(map(len, behind)) > len(frozenset().union(*behind)) else None


def share(roots: Roots | None, arm: int, other: int) -> bool:
    """Whether two arms (positions in the table) evaluate a network in common."""
    return roots is not None and bool(roots[arm] & roots[other])


def independent(roots: Roots | None, first: Sequence[int], arms: Sequence[int]) -> tuple[int, ...]:
    """`first`, and then every arm in order that shares no network with one chosen before; sorted.

    >>> independent([frozenset("a"), frozenset("ab"), frozenset("b"), frozenset("c")], (1,), range(4))
    (1, 3)
    """
    if roots is None:
        return tuple(arms)
    chosen = list(first)
    taken = frozenset().union(*(roots[arm] for arm in chosen))
    for arm in arms:
        if arm not in chosen and not taken & roots[arm]:
            chosen.append(arm)
            taken |= roots[arm]
    return tuple(sorted(chosen))


def paired(values: Floats, arm: int, versus: int) -> Estimate | None:
    """The mean difference over the seeds that both arms have; None for fewer than two."""
    differences = values[arm] - values[versus]
    differences = differences[np.isfinite(differences)]
    return mean(differences) if differences.size > 1 else None
