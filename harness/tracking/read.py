"""Reading mirrored runs: one query for a SQL store, MLflow's client for a tracking server.

MLflow's client needs one call per run and per curve (seconds for a thousand runs); three joins over the
tables `runs`, `tags` and `metrics` give the same in a fraction of a second.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.tracking.store import Store, StoreError

LARGEST = 1.7976931348623157e308  # what MLflow stores in place of infinity

RUNS = """
SELECT r.run_uuid, r.artifact_uri FROM runs r
JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'size' AND s.value = :size
WHERE e.name = :study AND r.lifecycle_stage = 'active'
"""
TAGS = """
SELECT r.run_uuid, t.key, t.value FROM tags t
JOIN runs r ON r.run_uuid = t.run_uuid
JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'size' AND s.value = :size
WHERE e.name = :study AND r.lifecycle_stage = 'active'
"""
POINTS = """
SELECT r.run_uuid, m.key, m.step, CASE WHEN m.is_nan THEN NULL ELSE m.value END FROM metrics m
JOIN runs r ON r.run_uuid = m.run_uuid
JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'size' AND s.value = :size
WHERE e.name = :study AND r.lifecycle_stage = 'active'
ORDER BY m.run_uuid, m.key, m.step, m.timestamp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """One run as the store has it. points: (name, step, value)."""

    artifact_uri: str
    tags: dict[str, str] = field(default_factory=dict)
    points: list[tuple[str, int, float]] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return int(self.tags["seed"])

    @property
    def is_complete(self) -> bool:
        """Whether a sync has gone through at least once; until then there is a run without content."""
        return "status" in self.tags


def read_runs(store: Store, study: str, size: str) -> list[Mirrored]:
    """Every mirrored run of the study at this size, in no particular order.

    Raises:
        StoreError: the store cannot be read.
    """
    if store.database is not None:
        runs = _from_sqlite(store.database, study, size)
    else:
        runs = from_client(store, study, size)
    return [run for run in runs if run.is_complete]


def _from_sqlite(database: Path, study: str, size: str) -> list[Mirrored]:
    names = {"study": study, "size": size}
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            runs = {uuid: Mirrored(artifact_uri=uri) for uuid, uri in connection.execute(RUNS, names)}
            for uuid, key, value in connection.execute(TAGS, names):
                runs[uuid].tags[key] = value
            for uuid, key, step, value in connection.execute(POINTS, names):
                runs[uuid].points.append((key, step, _number(value)))
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot read the MLflow store {database}: {error}; "
            "delete it and run `harness sync` to rebuild it"
        ) from error
    return list(runs.values())


def from_client(store: Store, study: str, size: str) -> list[Mirrored]:
    """The same through MLflow's public client, for any tracking URI."""
    from harness.tracking.writer import find_runs

    client = store.client()
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return []
    return [_from_entity(client, run) for run in find_runs(client, experiment.experiment_id, size)]


def _from_entity(client: Any, run: Any) -> Mirrored:
    points = [
        (metric.key, metric.step, _number(metric.value))
        for name in run.data.metrics
        for metric in _in_order(client.get_metric_history(run.info.run_id, name))
    ]
    return Mirrored(artifact_uri=run.info.artifact_uri, tags=dict(run.data.tags), points=points)


def _in_order(history: Iterable[Any]) -> list[Any]:
    return sorted(history, key=lambda metric: (metric.step, metric.timestamp))


def _number(value: float | None) -> float:
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value
