"""How a total splits over tricks: contrasts of arm means whose weights follow from the design alone.

A coalition is the set of tricks that are on in an arm, v(coalition) the arm's mean, T the number of tricks.
The credit of trick i is its Shapley value (Shapley, in Contributions to the Theory of Games II, 1953), the
mean over all T! orders of what adding i changes:

    phi_i = sum over S without i of |S|! (T - |S| - 1)! / T! [v(S + i) - v(S)]

Where interactions are at most pairwise, what i adds is m_i + sum_{j in S} I_ij, so that phi_i is m_i plus
half of its interactions. Then a few arms suffice. both_ways: the mean of what i adds in one order and in its
reverse (Mayer and Wuethrich 2025, arXiv 2508.12947, on paired permutations). both_ends: the mean of what it
adds in the first and in the last place, plus an equal share of what these means leave of the total,

    phi_i = (first_i + last_i) / 2 + [v(all) - v(none) - sum_j (first_j + last_j) / 2] / T

The bracket is 0 but for noise and for interactions of three and more. Sharing it makes the credits add up,
halves their variance (from sigma^2 / S to [1/T + (T + (T - 2)^2) / (2 T^2)] sigma^2 / S: .50 at T = 4, .47 at
T = 8) and lessens the error that interactions of three leave (docs/decisions/0015). With three tricks it is
Shapley's formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.intervals import Floats

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
