"""The frame of records, one row per run, as plain outcomes: arm -> seed -> what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.findings import ACCURACIES
from harness.analysis.intervals import Floats

if TYPE_CHECKING:
    import pandas as pd

FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"
METRICS = ("top1", "top5", "loss", "train_loss")
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
