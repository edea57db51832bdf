"""Which arms of a table are fitted together: those of one column, and one row of each trained network.

Columns are other networks or other batches, with another spread between seeds, and no contrast crosses them.
So each column has its own block fit and its own variance; the Holm family is the table. (One unstable network
in one column would otherwise leave every row of every column undecided.) A column with fewer than three arms
is fitted with the whole table.

Rows that evaluate the same trained networks (other crops, ensembles) are no independent trainings.

Their values rise and fall together from seed to seed. Treated as independent trainings they make the pooled
variance of a block fit too small for contrasts between different networks, and far too large for contrasts of
one network with itself. Measured with three networks, three evaluations of each, 3 seeds, 300 tables: 95 %
intervals of the plain fit miss in 11 to 14 % between networks and are 8 times too long within one; treated as
follows, they miss in 4 to 6 %.
  two arms that share a network are compared by their paired differences alone, with a paired t interval;
  every other contrast uses the block fit over its two arms and those arms of the table that share no network
  with each other or with the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.intervals import Estimate, Floats, mean
from harness.study.spec import Arm

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
