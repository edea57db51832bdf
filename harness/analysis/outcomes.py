"""The frame of records as plain outcomes: arm -> seed -> what came of it; which arms are fitted together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.intervals import Estimate, Floats, mean
from harness.spec import ACCURACIES, DIVERGED, FINISHED, Arm

if TYPE_CHECKING:
    import pandas as pd


# The frame of records, one row per run, as plain outcomes: arm -> seed -> what came of it.


METRICS = (*ACCURACIES, "loss", "train_loss")
LARGEST = 1e60  # of a metric: beyond it, squares of variances overflow
_PREFERRED = (FINISHED, DIVERGED)  # where an arm and a seed have two records


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run. Metrics that are absent, or no number that can be reckoned with, are left out."""

    status: str
    metrics: Mapping[str, float]
    predictions: bytes | None = None  # one bit per test image (numpy.packbits)
    test_images: int = 0
    reason: str | None = None  # why it failed, where the record says so


Outcomes = Mapping[str, Mapping[int, Outcome]]


def read_outcomes(records: pd.DataFrame, more_metrics: Iterable[str] = ()) -> Outcomes:
    """Every run's outcome, whatever the order of the rows; the best where an arm and a seed have two.

    `more_metrics`: columns of plugins' metrics, to be read beside `METRICS`.
    """
    names = tuple(dict.fromkeys((*METRICS, *more_metrics)))
    out: dict[str, dict[int, Outcome]] = {}
    for row in records.to_dict("records"):
        arm, seed = str(row["arm_id"]), int(row["seed"])
        outcome = _outcome({str(key): value for key, value in row.items()}, names)
        known = out.setdefault(arm, {}).get(seed)
        if known is None or _rank(outcome) < _rank(known):
            out[arm][seed] = outcome
    return out


def matrix(outcomes: Outcomes, arms: Sequence[str], seeds: Sequence[int], metric: str) -> Floats:
    """The metric of every finished run, (A, S); NaN where there is none."""
    values = np.full((len(arms), len(seeds)), np.nan)
    for a, arm in enumerate(arms):
        for s, seed in enumerate(seeds):
            outcome = outcomes.get(arm, {}).get(seed)
            if outcome is not None and outcome.status == FINISHED:
                values[a, s] = outcome.metrics.get(metric, math.nan)
    return values


def lacks_value(outcome: Outcome | None, metric: str) -> bool:
    """Whether the run finished without a finite value of the metric; it has not diverged."""
    return outcome is not None and outcome.status == FINISHED and metric not in outcome.metrics


def is_lost(outcome: Outcome | None, metric: str) -> bool:
    """A diverged run, or one that finished without a finite value: an outcome either way, and no number."""
    return lacks_value(outcome, metric) or (outcome is not None and outcome.status == DIVERGED)


def _rank(outcome: Outcome) -> tuple[int, str, tuple[tuple[str, float], ...]]:
    order = _PREFERRED.index(outcome.status) if outcome.status in _PREFERRED else len(_PREFERRED)
    return order, outcome.status, tuple(sorted(outcome.metrics.items()))


def _outcome(row: Mapping[str, Any], names: tuple[str, ...]) -> Outcome:
    predictions, test_images = row.get("predictions"), row.get("test_images")
    reason = row.get("reason")
    return Outcome(
        status=str(row["status"]),
        metrics={name: float(row[name]) for name in names if can_be(name, row.get(name))},
        predictions=predictions if isinstance(predictions, bytes) else None,
        test_images=int(test_images) if test_images is not None and _is_finite(test_images) else 0,
        reason=reason if isinstance(reason, str) and reason else None,
    )


def can_be(metric: str, value: Any) -> bool:
    """Whether a run can have this value: finite, small enough to be squared, and an accuracy a percentage."""
    if not _is_finite(value) or abs(value) > LARGEST:
        return False
    return metric not in ACCURACIES or 0.0 <= value <= 100.0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


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
# pooled
# variance of a block fit too small for contrasts between different networks, and far too large for
# contrasts of
# one network with itself. Measured with three networks, three evaluations of each, 3 seeds, 300 tables: 95
# %
# intervals of the plain fit miss in 11 to 14 % between networks and are 8 times too long within one;
# treated as
# follows, they miss in 4 to 6 %.
#   two arms that share a network are compared by their paired differences alone, with a paired t interval;
#   every other contrast uses the block fit over its two arms and those arms of the table that share no
# network
#   with each other or with the two.


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
