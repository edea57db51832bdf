"""Simulated tables of tricks with known credit: how well short designs recover it, whether intervals hold.

A game is a value for every set of tricks: main effects, pairwise interactions and, where asked, interactions
of three. Its Shapley values are computed from all subsets; designs see only the arms that they train.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.contrasts import Arms, Coalition, Weights, weights_for
from harness.analysis.fit import BlockDesign, combination, fit
from harness.analysis.intervals import Floats, half_width, holm, p_value
from harness.study.designs import fraction

SMALLEST_FRACTION = 5  # tricks, at resolution 5; below, every subset


@dataclass(frozen=True, kw_only=True)
class Games:
    """How large the terms are, in percentage points. Effects are drawn anew for every game."""

    tricks: int = 6
    main_mean: float = 0.4
    main_sd: float = 0.2
    pair_sd: float = 0.15
    triple_sd: float = 0.0

    def draw(self, rng: np.random.Generator, games: int) -> Floats:
        """(games, 2^T) values; bit i of the position says whether trick i is on."""
        subsets = every_subset(self.tricks)
        values = np.zeros((games, len(subsets)))
        means = {1: self.main_mean, 2: 0.0, 3: 0.0}
        for size, sd in ((1, self.main_sd), (2, self.pair_sd), (3, self.triple_sd)):
            for members in itertools.combinations(range(self.tricks), size):
                inside = np.array([subset.issuperset(members) for subset in subsets])
                values += (means[size] + sd * rng.standard_normal((games, 1))) * inside
        return values


def every_subset(tricks: int) -> list[Coalition]:
    """In the order of their bits."""
    return [frozenset(i for i in range(tricks) if bits >> i & 1) for bits in range(2**tricks)]


def coalitions_of(design: str, tricks: int) -> list[Coalition]:
    """The sets of tricks that a design trains, as `harness.study.designs` makes them."""
    every = frozenset(range(tricks))
    if design == "both_ends":
        alone = [frozenset({i}) for i in range(tricks)]
        return list(dict.fromkeys([frozenset(), *alone, every, *(every - one for one in alone)]))
    if design == "both_ways":
        forward = [frozenset(range(size)) for size in range(tricks + 1)]
        return forward + [frozenset(range(first, tricks)) for first in range(1, tricks)]
    if design == "fractional" and tricks >= SMALLEST_FRACTION:
        return [frozenset(np.flatnonzero(row).tolist()) for row in fraction(tricks, 5)]
    return every_subset(tricks)


def shapley(values: Floats, tricks: int) -> Floats:
    """(games, T) by the definition: the mean over all T! orders of what each trick adds. For few tricks."""
    out = np.zeros((len(values), tricks))
    orders = list(itertools.permutations(range(tricks)))
    for order in orders:
        below = 0
        for trick in order:
            out[:, trick] += values[:, below | 1 << trick] - values[:, below]
            below |= 1 << trick
    return out / len(orders)


def estimates(values: Floats, tricks: int) -> dict[str, Floats]:
    """(games, T) each: what a design without noise says, and what the usual tables say in its place."""
    said = {}
    for design in ("both_ends", "both_ways", "fractional"):
        coalitions, weights = known_weights(design, tricks)
        seen = values[:, [sum(1 << i for i in coalition) for coalition in coalitions]]
        said[design] = seen @ weights.credit.T
        if design == "both_ends":
            said["add_one_in"], said["leave_one_out"] = seen @ weights.first.T, seen @ weights.last.T
            said["mean of the ends"] = (said["add_one_in"] + said["leave_one_out"]) / 2.0
        if design == "both_ways":
            said["stack"] = seen @ weights.first.T
    return said


def credit_rmse(kind: Games, games: int = 2000, seed: int = 0) -> dict[str, float]:
    """Design -> root mean square distance from the Shapley values in percentage points, without noise."""
    values = kind.draw(np.random.default_rng(seed), games)
    truth = shapley(values, kind.tricks)
    return {
        name: float(np.sqrt(((said - truth) ** 2).mean()))
        for name, said in estimates(values, kind.tricks).items()
    }


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Of 95 % intervals of the credits, and the errors of their verdicts where no trick does anything."""

    mean: float
    worst: float  # of the trick with least
    family_wise: float  # tables in which Holm's rule finds an effect at 5 %
    width: float  # mean half-width, in units of the typical sd


def credit_coverage(
    design: str, tricks: int, seeds: int, *, sd: Mapping[int, float] | None = None, tables: int = 4000
) -> Coverage:
    """Simulated tables without effects, noise of sd 1 but for some arms (position -> sd)."""
    coalitions, weights = known_weights(design, tricks)
    rng = np.random.default_rng(1)
    scale = np.ones(len(coalitions))
    for arm, times in (sd or {}).items():
        scale[arm] = times
    values = rng.standard_normal((tables, len(coalitions), seeds)) * scale[:, None]
    fitted = fit(BlockDesign.of(np.ones((len(coalitions), seeds), dtype=bool)), values)
    guarded = Arms.guard_of(fitted, weights.credit)
    found = [combination(fitted, guarded, each) for each in weights.credit]
    widths = np.stack([half_width(each, 0.05) for each in found if each is not None])
    inside = np.stack([np.abs(each.value) for each in found if each is not None]) <= widths
    p = np.stack([p_value(each) for each in found if each is not None], axis=-1)
    return Coverage(
        mean=float(inside.mean()),
        worst=float(inside.mean(axis=1).min()),
        family_wise=float((holm(p, 0.05).p <= 0.05).any(axis=1).mean()),
        width=float(widths.mean()),
    )


def known_weights(design: str, tricks: int) -> tuple[Sequence[Coalition], Weights]:
    """A design's arms and weights.

    Raises:
        ValueError: it gives no credit for so many tricks.
    """
    coalitions = coalitions_of(design, tricks)
    weights = weights_for(design, coalitions, tricks)
    if weights is None:
        raise ValueError(f"{design} gives no credit for {tricks} tricks")
    return coalitions, weights
