"""Looking at the data more than once: how much error each look may spend, and what it is tested at.

A test that may be made at several looks spends its level as a function of the share t of the runs that are
there (Lan and DeMets, Biometrika 70, 1983). The critical values are those of the group-sequential normal
process: Z_k at share t_k with Cov(Z_j, Z_k) = sqrt(t_j / t_k), by recursive numerical integration (Armitage,
McPherson and Rowe, J. R. Stat. Soc. A 132, 1969; Jennison and Turnbull, Group Sequential Methods, 2000,
ch. 19). The normal tail beyond the critical value is the nominal level, at which the t test of that look
is made (the significance-level approach, ibid. sec. 3.8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from scipy import interpolate, optimize, special

from harness.analysis.intervals import Floats, Holm, holm

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
