"""Reading mirrored runs: a query per tag and per curve where the store is a database, else MLflow's client.

MLflow's client needs one call per run and per curve: minutes for ten thousand runs. The primary keys of its
tables `tags` and `metrics` begin with the key, so that a query for one key reads one stretch of an index.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.study.secrets import masked
from harness.tracking import reach
from harness.tracking.store import Store, StoreError, be_quiet

LARGEST = 1.7976931348623157e308  # what MLflow stores in place of infinity
TAGS = ("run_id", "arm_id", "seed", "status", "attempts", "device", "error", "env", "summary")
NEEDED = {"arm_id": r".+", "seed": r"-?\d{1,18}", "attempts": r"\d{1,9}|"}  # tag -> what it looks like
REBUILD = "delete the MLflow store and run `harness sync` to rebuild it"

# The schemas of MLflow 3.4 to 3.17 (each the newest step that a database has gone through). Between them, the
# tables `experiments`, `runs`, `tags` and `metrics` keep the columns that are read here.
KNOWN_SCHEMAS = frozenset({
    "bf29a5ff90ea", "1bd49d398cd23", "b7c8d9e0f1a2", "5d2d30f0abce", "c9d4e5f6a7b8", "2c33131f4dae",
    "d3e4f5a6b7c8", "d0e1f2a3b4c5", "c8d9e0f1a2b3", "1b5f0d9ad7c1", "e1f2a3b4c5d6", "76601a5f987d",
    "c3d6457b6d8a", "a5b4c3d2e1f0", "ae8bbe7743c9", "7d34483879f0", "da6fb0208061", "89d3d66ed43f",
    "b7e4c1a90f23", "a8b9c0d1e2f3", "c1d2e3f4a5b6", "c3d9e7f1a2b4", "6f8d9c3b2a1e", "1971f2d9a75b",
    "17e22815139b", "b7e2c1a4d9f3", "75868b020152", "dc11669786a5",
})  # fmt: skip

OF_STUDY = """FROM runs r
JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'size' AND s.value = :size
WHERE e.name = :study AND r.lifecycle_stage = 'active'"""
RUNS = f"SELECT r.run_uuid, r.artifact_uri {OF_STUDY}"
TAG = "SELECT t.run_uuid, t.value FROM tags t WHERE t.key = :key"
CURVE = """SELECT m.run_uuid, m.step, CASE WHEN m.is_nan THEN NULL ELSE m.value END
FROM metrics m WHERE m.key = :key"""
IN_TIME = " ORDER BY m.timestamp"

Ask = Callable[[str, Mapping[str, str]], Sequence[Any]]  # a query and its values -> rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """One run as the store has it, with those of `TAGS` that it has."""

    artifact_uri: str
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether a sync has gone through at least once; until then there is a run without content."""
        return "run_id" in self.tags and "status" in self.tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Every value of one curve, of all runs, in order of time."""

    run: NDArray[np.int64]  # its place in `Content.runs`
    step: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The mirrored runs of a study at one size, in no particular order."""

    runs: list[Mirrored]
    curves: Mapping[str, Points]


def read_runs(store: Store, study: str, size: str, curves: Sequence[str]) -> Content:
    """Every mirrored run of the study at this size, and the named curves of each.

    Raises:
        StoreError: the store cannot be read, or lacks a part of a run.
    """
    if store.database is not None:
        found = _from_sqlite(store, study, size, curves)
    elif store.uri.startswith("postgres"):
        found = _from_postgresql(store, study, size, curves)
    else:
        found = None
    content = found or from_client(store, study, size, curves)
    for run in content.runs:
        _check(run)
    return content


def _check(run: Mirrored) -> None:
    """A sync writes every tag before `status`: where one is missing, somebody has deleted it."""
    wrong = [name for name, form in NEEDED.items() if not re.fullmatch(form, run.tags.get(name, ""))]
    if run.tags["status"] in ("finished", "diverged") and "summary" not in run.tags:
        wrong.append("summary")
    if wrong:
        name, parts = run.tags["run_id"], " and ".join(wrong)
        raise StoreError(f"run {name} in the MLflow store lacks its {parts}: it says nothing; {REBUILD}")


def _from_sqlite(store: Store, study: str, size: str, curves: Sequence[str]) -> Content | None:
    assert store.database is not None
    try:
        reach.check_file(store.database)
        uri = f"{store.database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=20)) as connection:
            return from_tables(
                lambda sql, names: connection.execute(sql, names).fetchall(), study, size, curves
            )
    except (sqlite3.Error, reach.Locked) as error:
        if isinstance(error, reach.Locked) or "locked" in str(error):
            raise StoreError(store.explained(error)) from error
        raise StoreError(
            f"cannot read the MLflow store {store.database}: {error}; "
            "delete it and run `harness sync` to rebuild it"
        ) from error


def _from_postgresql(store: Store, study: str, size: str, curves: Sequence[str]) -> Content | None:
    be_quiet()
    try:
        uri = reach.usable(store.uri)
        reach.check(uri)
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(uri)
        try:
            with engine.connect() as connection:
                return from_tables(
                    lambda sql, names: connection.exec_driver_sql(
                        re.sub(r":(\w+)", r"%(\1)s", sql), dict(names)
                    ).all(),
                    study,
                    size,
                    curves,
                )
        finally:
            engine.dispose()
    except Exception as error:  # of SQLAlchemy, the driver or the network
        why = masked(reach.in_words(error), store.uri)
        raise StoreError(f"cannot read the tracking store {store.shown}: {why}") from error


def from_tables(ask: Ask, study: str, size: str, curves: Sequence[str]) -> Content | None:
    """The content by MLflow's tables; None where the database is of a schema that is not known here."""
    schemas = {version for (version,) in ask("SELECT version_num FROM alembic_version", {})}
    if not schemas or not schemas <= KNOWN_SCHEMAS:
        return None
    names = {"study": study, "size": size}
    runs = {uuid: Mirrored(artifact_uri=uri) for uuid, uri in ask(RUNS, names)}
    [(all_runs,)] = ask("SELECT COUNT(*) FROM runs", {})
    mostly = 2 * len(runs) > all_runs  # then leaving out the others here is quicker than in the query
    only = "" if mostly else f" AND run_uuid IN (SELECT r.run_uuid {OF_STUDY})"
    given = {} if mostly else names
    for key in TAGS:
        for uuid, value in ask(TAG + only, {**given, "key": key}):
            if uuid in runs:
                runs[uuid].tags[key] = value
    complete = {uuid: run for uuid, run in runs.items() if run.is_complete}
    places = {uuid: place for place, uuid in enumerate(complete)}
    return Content(
        runs=list(complete.values()),
        curves={
            name: _points(
                (places[uuid], step, value)
                for uuid, step, value in ask(CURVE + only + IN_TIME, {**given, "key": name})
                if uuid in places
            )
            for name in curves
        },
    )


def from_client(store: Store, study: str, size: str, curves: Sequence[str]) -> Content:
    """The same through MLflow's public client, for any tracking URI."""
    from harness.tracking.writer import find_runs

    client = store.client()
    experiment = client.get_experiment_by_name(study)
    found = [] if experiment is None else find_runs(client, experiment.experiment_id, size)
    runs = [run for run in found if {"run_id", "status"} <= run.data.tags.keys()]
    return Content(
        runs=[
            Mirrored(
                artifact_uri=run.info.artifact_uri,
                tags={name: run.data.tags[name] for name in TAGS if name in run.data.tags},
            )
            for run in runs
        ],
        curves={
            name: _points(
                (place, metric.step, metric.value)
                for place, run in enumerate(runs)
                if name in run.data.metrics
                for metric in _in_time(client.get_metric_history(run.info.run_id, name))
            )
            for name in curves
        },
    )


def _in_time(history: Sequence[Any]) -> list[Any]:
    return sorted(history, key=lambda metric: metric.timestamp)


def _points(rows: Any) -> Points:
    run, step, value = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), ())
    values = np.array(value, dtype=np.float64)  # None becomes NaN
    infinite = np.abs(values) >= LARGEST
    values[infinite] = np.copysign(math.inf, values[infinite])
    return Points(run=np.array(run, dtype=np.int64), step=np.array(step, dtype=np.int64), value=values)
