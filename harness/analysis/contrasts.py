"""The contrasts of one table: which are declared, and what the fit says of pairs and of any weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from harness.analysis.findings import NOT_EVALUABLE, Settings
from harness.analysis.fit import (
    UNRELATED,
    BlockDesign,
    BlockFit,
    Guarded,
    Relations,
    block_fit,
    combination,
    contrast,
    fit,
    guard,
    paired,
    roots_where_shared,
    seed_correlation,
    thresholds,
    thresholds_for,
)
from harness.analysis.intervals import ONE_LOOK, Estimate, Floats, Stage, mean, p_value, satterthwaite, welch
from harness.analysis.verdicts import EQUIVALENCE_ALPHA, FEWEST_SEEDS, word_for
from harness.study.plan import Cell, PlanTable

# Every contrast of one table at once: block fit, guard, Holm and words, on a matrix of accuracies.


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
            fits = seeds >= self.block_from and self.family.settings.seeds_shared
            blocked = self._fit_with(pair).contrast(pair, seeds) if fits else None
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
        fitted = fit(BlockDesign.of(np.isfinite(part)), part)
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


def noise(values: Floats, relations: Relations = UNRELATED, *, seeds_shared: bool = True) -> Noise:
    """Over a whole table: pooled residual sd, the seeds' share of the variance (both of the arms that are not
    wild, see `fit`), and what fitting them costs.

    seeds_shared: False: the sd is that of the runs around their own row's mean.
    """
    if not seeds_shared:
        return Noise(pooled_sd=_within(values), seed_correlation=None, paired_df_cost=None)
    part = values[list(relations.fitted_with((), len(values)))]
    fitted = fit(BlockDesign.of(np.isfinite(part)), part)
    design = fitted.design
    if design.df < 1:
        return Noise(pooled_sd=None, seed_correlation=None, paired_df_cost=None)
    runs, arms = design.arm_of.size, np.unique(design.arm_of).size
    calm = block_fit(BlockDesign.of(np.isfinite(part) & ~fitted.wild[:, None]), part)
    return Noise(
        pooled_sd=float(np.sqrt(fitted.pooled)),
        seed_correlation=float(seed_correlation(calm)),
        paired_df_cost=int(runs - arms - design.df),
    )


def _within(values: Floats) -> float | None:
    """The pooled sd of all rows with two values or more; None where there is none."""
    counts = np.isfinite(values).sum(axis=1)
    several = values[counts > 1]
    if not len(several):
        return None
    squares = np.nanvar(several, axis=1, ddof=1) * (counts[counts > 1] - 1)
    return float(np.sqrt(squares.sum() / (counts[counts > 1] - 1).sum()))


def _welch(values: Floats, pair: Pair, seeds: int) -> _Row:
    one, other = (row[np.isfinite(row)] for row in values[list(pair)])
    return _Row(seeds, welch(one, other), one_run_sd=float(np.hypot(one.std(ddof=1), other.std(ddof=1))))


def _difference(values: Floats, pair: Pair) -> float | None:
    one, other = (row[np.isfinite(row)] for row in values[list(pair)])
    return float(one.mean() - other.mean()) if one.size and other.size else None


def _word(estimate: Estimate | None, level: float, settings: Settings, stage: Stage) -> str:
    if estimate is None:
        return NOT_EVALUABLE
    return word_for(estimate, level, settings, stage.nominal(EQUIVALENCE_ALPHA, sides=1))


# The declared contrasts of one table: which distinct arms it has, and which is held against which.


Roots = Mapping[str, frozenset[str]]  # arm_id -> the trained arms whose networks it evaluates


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrasts:
    """One table's family of tests."""

    arms: tuple[str, ...]  # distinct arm_ids in reading order
    names: tuple[tuple[str, str], ...]  # distinct (arm_id, arm_id of its reference)
    relations: Relations

    @property
    def pairs(self) -> list[Pair]:
        """The same by position in `arms`."""
        place = {arm: k for k, arm in enumerate(self.arms)}
        return [(place[arm], place[versus]) for arm, versus in self.names]


def contrasts_of(table: PlanTable, roots: Roots) -> Contrasts:
    """Every contrast once. A row that is the same arm as its reference at this size is none."""
    columns = by_column(table)
    arms = tuple(dict.fromkeys(cell.arm_id for cell in table.cells if cell.arm_id is not None))
    names = [
        (cell.arm_id, reference.arm_id)
        for cell in table.cells
        if (reference := reference_of(cell, columns)) and cell.arm_id and reference.arm_id
    ]
    shown: dict[str | None, set[str | None]] = {}
    for cell in table.cells:
        shown.setdefault(cell.arm_id, set()).add(cell.column)
    several = [frozenset(shown[arm]) for arm in arms] if len(table.columns) > 1 else None
    return Contrasts(
        arms=arms,
        names=tuple(pair for pair in dict.fromkeys(names) if pair[0] != pair[1]),
        relations=Relations(roots_where_shared(arms, roots), several),
    )


def by_column(table: PlanTable) -> dict[str | None, dict[str, Cell]]:
    """column -> row -> cell."""
    columns: dict[str | None, dict[str, Cell]] = {}
    for cell in table.cells:
        columns.setdefault(cell.column, {})[cell.row] = cell
    return columns


def reference_of(cell: Cell, columns: Mapping[str | None, Mapping[str, Cell]]) -> Cell | None:
    """The cell that this one is compared with; None where there is none."""
    return columns[cell.column].get(cell.versus) if cell.versus is not None else None


# Contrasts of many arms at once: any weights over the arms of one table, with a guarded standard error.


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
            estimate = _welch_of_weights(self.values[used], weights[used]) if seeds > 1 else None
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


def _welch_of_weights(values: Floats, weights: Floats) -> Estimate:
    """Welch's test for any contrast: each arm has its own variance (at least two values each)."""
    count = np.isfinite(values).sum(axis=1)
    parts = weights**2 * np.nanvar(values, axis=1, ddof=1) / count
    return Estimate(
        value=np.asarray(_plain(values, weights)),
        se=np.sqrt(parts.sum()),
        df=satterthwaite(parts, count - 1.0),
    )


# How a total splits over tricks: contrasts of arm means whose weights follow from the design alone.
#
# A coalition is the set of tricks that are on in an arm, v(coalition) the arm's mean, T the number of
# tricks. The credit of trick i is its Shapley value (Shapley, in Contributions to the Theory of Games II,
# 1953), the mean over all T! orders of what adding i changes:
#
#     phi_i = sum over S without i of |S|! (T - |S| - 1)! / T! [v(S + i) - v(S)]
#
# Where interactions are at most pairwise, what i adds is m_i + sum_{j in S} I_ij, so that phi_i is m_i plus
# half of its interactions. Then a few arms suffice. both_ways: the mean of what i adds in one order and in
# its reverse (Mayer and Wuethrich 2025, arXiv 2508.12947, on paired permutations). both_ends: the mean of
# what it adds in the first and in the last place, plus an equal share of what these means leave of the
# total,
#
#     phi_i = (first_i + last_i) / 2 + [v(all) - v(none) - sum_j (first_j + last_j) / 2] / T
#
# The bracket is 0 but for noise and for interactions of three and more. Sharing it makes the credits add
# up, halves their variance (from sigma^2 / S to [1/T + (T + (T - 2)^2) / (2 T^2)] sigma^2 / S: .50 at T =
# 4, .47 at T = 8) and lessens the error that interactions of three leave (docs/decisions/0015). With three
# tricks it is Shapley's formula.


Coalition = frozenset[int]
ROUNDING = 1e-9
FIRST_AND_LAST, FORWARD_AND_REVERSE = ("first", "last"), ("forward", "reverse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights over arms, (T, A) each; every row sums to 0, and those of `credit` add up to `total`."""

    places: tuple[str, str]  # what `first` and `last` are: the first and last place, or two orders
    first: Floats
    last: Floats
    credit: Floats
    total: Floats  # (A,) all tricks minus none
    forward: Floats | None  # each trick given those before it in the file; None: not all of these arms exist
    checks: Floats  # (K, A), 0 if interactions are at most pairwise; K 0: the arms cannot tell

    @property
    def half_gap(self) -> Floats:
        """(last - first) / 2, (T, A)."""
        return (self.last - self.first) / 2.0


def weights_for(design: str, coalitions: Sequence[Coalition], tricks: int) -> Weights | None:
    """The weights over arms with these coalitions; None where the design does not answer the question.

    That is: a coalition is missing that the design needs, or (fractional) its rows confound the effects.
    """
    return METHODS[design](coalitions, tricks)


def exact(coalitions: Sequence[Coalition], tricks: int) -> Weights | None:
    """Every subset is there: Shapley's formula itself."""
    place = {coalition: k for k, coalition in enumerate(coalitions)}
    if len(place) < 2**tricks:
        return None
    credit = np.zeros((tricks, len(coalitions)))
    ends, ways = both_ends(coalitions, tricks), both_ways(coalitions, tricks)
    assert ends is not None
    assert ways is not None
    share = [
        math.factorial(size) * math.factorial(tricks - size - 1) / math.factorial(tricks)
        for size in range(tricks)
    ]
    for coalition, k in place.items():
        for trick in range(tricks):
            inside = trick in coalition
            credit[trick, k] += share[len(coalition) - 1] if inside else -share[len(coalition)]
    return replace(ends, credit=credit, checks=_nonzero(ends.credit - ways.credit))


def both_ends(coalitions: Sequence[Coalition], tricks: int) -> Weights | None:
    """The mean of the first and the last marginal and a share of the rest; see the top of this file."""
    every = frozenset(range(tricks))
    alone = [_step(coalitions, frozenset(), trick) for trick in range(tricks)]
    after = [_step(coalitions, every - {trick}, trick) for trick in range(tricks)]
    if any(step is None for step in (*alone, *after)):
        return None
    first, last = np.array(alone, dtype=float), np.array(after, dtype=float)
    total = np.zeros(len(coalitions))
    total[coalitions.index(every)] += 1.0
    total[coalitions.index(frozenset())] -= 1.0
    middle = (first + last) / 2.0
    rest = total - middle.sum(axis=0)
    return Weights(
        places=FIRST_AND_LAST,
        first=first,
        last=last,
        credit=middle + rest / tricks,
        total=total,
        forward=_along(coalitions, range(tricks)),
        checks=_nonzero(rest[None]),
    )


def both_ways(coalitions: Sequence[Coalition], tricks: int) -> Weights | None:
    """The mean of the forward and the reverse increment; exact if interactions are at most pairwise."""
    order = list(range(tricks))
    forward, reverse = (_along(coalitions, each) for each in (order, order[::-1]))
    if forward is None or reverse is None:
        return None
    return Weights(
        places=FORWARD_AND_REVERSE,
        first=forward,
        last=reverse,
        credit=(forward + reverse) / 2.0,
        total=forward.sum(axis=0),
        forward=forward,
        checks=np.zeros((0, len(coalitions))),
    )


def fitted(coalitions: Sequence[Coalition], tricks: int) -> Weights | None:
    """Least squares: v = mean + sum m_i x_i + sum I_ij x_i x_j (x 0 or 1), phi_i = m_i + sum_j I_ij / 2.

    Exact if interactions are at most pairwise. `first` is m_i and `last` m_i + sum_j I_ij.
    """
    pairs = [(i, j) for i in range(tricks) for j in range(i + 1, tricks)]
    on = np.array([[trick in coalition for trick in range(tricks)] for coalition in coalitions], dtype=float)
    model = np.column_stack([np.ones(len(on)), on, *(on[:, i] * on[:, j] for i, j in pairs)])
    solve = np.linalg.pinv(model, rcond=ROUNDING)
    first = np.zeros((tricks, model.shape[1]))
    first[:, 1 : tricks + 1] = np.eye(tricks)
    half = np.zeros_like(first)
    for k, (i, j) in enumerate(pairs):
        half[[i, j], 1 + tricks + k] = 0.5
    asked = np.concatenate([first, half])
    if np.abs(asked @ solve @ model - asked).max() > ROUNDING:
        return None
    credit = (first + half) @ solve
    return Weights(
        places=FIRST_AND_LAST,
        first=first @ solve,
        last=(first + 2.0 * half) @ solve,
        credit=credit,
        total=credit.sum(axis=0),
        forward=_along(coalitions, range(tricks)),
        checks=np.zeros((0, len(coalitions))),
    )


METHODS: Mapping[str, Callable[[Sequence[Coalition], int], Weights | None]] = {
    "both_ends": both_ends,
    "both_ways": both_ways,
    "factorial": exact,
    "fractional": fitted,
}


def _nonzero(contrasts: Floats) -> Floats:
    """Those that are no identity: with few tricks, two ways to the credit are one."""
    kept: Floats = contrasts[np.abs(contrasts).max(axis=1) > ROUNDING]
    return kept


def _along(coalitions: Sequence[Coalition], order: Sequence[int]) -> Floats | None:
    """What each trick adds to those before it in `order`, (T, A); None where an arm of the way is missing."""
    out = np.zeros((len(order), len(coalitions)))
    below: Coalition = frozenset()
    for trick in order:
        step = _step(coalitions, below, trick)
        if step is None:
            return None
        out[trick] = step
        below |= {trick}
    return out


def _step(coalitions: Sequence[Coalition], below: Coalition, trick: int) -> Floats | None:
    """v(below + trick) - v(below)."""
    above = below | {trick}
    if below not in coalitions or above not in coalitions:
        return None
    step = np.zeros(len(coalitions))
    step[coalitions.index(above)] = 1.0
    step[coalitions.index(below)] = -1.0
    return step
