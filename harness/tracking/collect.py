"""MLflow -> tidy frames: one row per run, one row per point of its curve. Only reads."""

from __future__ import annotations

import hashlib
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from harness.errors import masked, unknown
from harness.runs.records import is_number, parsed
from harness.spec import ENDED
from harness.study.plan import without_garbage_collection
from harness.study.reserved import CURVES, NUMBERS, RECORD_COLUMNS, RESULTS, TEXTS
from harness.tracking.content import IN_ARTIFACT
from harness.tracking.store import (
    Locked,
    Store,
    StoreError,
    be_quiet,
    check,
    check_file,
    in_words,
    usable,
    within,
)

if TYPE_CHECKING:
    from pandas import DataFrame


# Reading mirrored runs: a query per tag and per curve where the store is a database, else MLflow's client.
#
# MLflow's client needs one call per run and per curve: minutes for ten thousand runs. The primary keys of
# its tables `tags` and `metrics` begin with the key, so that a query for one key reads one stretch of an
# index.


LARGEST = 1.7976931348623157e308  # what MLflow stores in place of infinity
TAGS = ("run_id", "arm_id", "seed", "status", "attempts", "device", "error", "env", "summary")
NEEDED = {"arm_id": r".+", "seed": r"-?\d{1,18}", "attempts": r"\d{1,9}|"}  # tag -> what it looks like
PAGE = 1_000  # runs of an answer
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
    own = store.artifacts.resolve().as_uri()
    for run in content.runs:
        _check(run)
    runs = [replace(run, artifact_uri=store.beside_it(run.artifact_uri, own)) for run in content.runs]
    return replace(content, runs=runs)


def _check(run: Mirrored) -> None:
    """A sync writes every tag before `status`: where one is missing, somebody has deleted it."""
    wrong = [name for name, form in NEEDED.items() if not re.fullmatch(form, run.tags.get(name, ""))]
    if run.tags["status"] in ENDED and "summary" not in run.tags:
        wrong.append("summary")
    if wrong:
        name, parts = run.tags["run_id"], " and ".join(wrong)
        raise StoreError(f"run {name} in the MLflow store lacks its {parts}: it says nothing; {REBUILD}")


def _from_sqlite(store: Store, study: str, size: str, curves: Sequence[str]) -> Content | None:
    assert store.database is not None
    try:
        check_file(store.database)
        uri = f"{store.database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=20)) as connection:
            return from_tables(
                lambda sql, names: connection.execute(sql, names).fetchall(), study, size, curves
            )
    except (sqlite3.Error, Locked) as error:
        if isinstance(error, Locked) or "locked" in str(error):
            raise StoreError(store.explained(error)) from error
        raise StoreError(
            f"cannot read the MLflow store {store.database}: {error}; "
            "delete it and run `harness sync` to rebuild it"
        ) from error


def _from_postgresql(store: Store, study: str, size: str, curves: Sequence[str]) -> Content | None:
    be_quiet()
    try:
        uri = usable(store.uri)
        check(uri)
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
        why = masked(in_words(error), store.uri)
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
    from harness.tracking.mirror import find_runs

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


def read_experiment(uri: str, name: str) -> list[dict[str, Any]]:
    """The runs of anybody's experiment, each as one level of names: status, metrics.x, params.x, tags.x.

    Raises:
        StoreError: there is no such store or experiment, or it cannot be read.
    """
    store = Store(uri, Path())
    if not store.exists():
        raise StoreError(f"there is no MLflow store at {store.shown}")
    be_quiet()
    try:
        if store.database is not None:
            check_file(store.database)
        check(usable(uri))
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=usable(uri))
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            names = [each.name for each in client.search_experiments()]
            raise StoreError(f"{store.shown}: {unknown('experiment', name, names)}")
        return [_one_level(run) for run in _pages(client, experiment.experiment_id)]
    except StoreError:
        raise
    except Exception as error:  # of SQLAlchemy, the driver or the network
        raise StoreError(f"cannot read the store {store.shown}: {masked(in_words(error), uri)}") from error


def _pages(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _one_level(run: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run_id": run.info.run_id,
        "run_name": run.info.run_name,
        "status": run.info.status,
    }
    for kind in ("metrics", "params", "tags"):
        row |= {f"{kind}.{name}": value for name, value in getattr(run.data, kind).items()}
    return row


def _in_time(history: Sequence[Any]) -> list[Any]:
    return sorted(history, key=lambda metric: metric.timestamp)


def _points(rows: Any) -> Points:
    run, step, value = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), ())
    values = np.array(value, dtype=np.float64)  # None becomes NaN
    infinite = np.abs(values) >= LARGEST
    values[infinite] = np.copysign(math.inf, values[infinite])
    return Points(run=np.array(run, dtype=np.int64), step=np.array(step, dtype=np.int64), value=values)


def collect(store: Store, study: str, size: str) -> tuple[DataFrame, DataFrame]:
    """Every mirrored run of a study at one size.

    Returns:
        records: `RECORD_COLUMNS`, then one column per further metric that any run has (of plugins, sorted),
        one row per run, sorted by arm, seed and run. `status` is finished, diverged, failed, stopped or
        running. Results and numbers are NaN, texts None, where a run has not got so far. `top1`, `top5` in
        percent; `predictions` is one bit per test image (numpy.packbits) as bytes, or None; `env` is env.json
        on one line, or None (not mirrored: `harness sync` makes up for it). A metric of a plugin with the
        name of another column is left out.
        curves: `CURVE_COLUMNS`, one row per epoch line, sorted by arm, seed, run and step; an epoch has
        several where its recipe asks for more curve points. `step` counts optimizer steps.

    Raises:
        StoreError: there is no store, it cannot be read, a part of a run is missing in it, or predictions do
            not belong to their summary.
    """
    if not store.exists():
        raise StoreError(f"there is no MLflow store at {store.shown}: run `harness sync` to build it")
    with without_garbage_collection():  # hundreds of thousands of rows that all stay
        content = read_runs(store, study, size, ("epoch", *CURVES))
        keys = [(run.tags["arm_id"], int(run.tags["seed"]), run.tags["run_id"]) for run in content.runs]
        order = sorted(_once(content.runs), key=keys.__getitem__)
        records = _records([content.runs[place] for place in order], store)
        return records, _curves(content, records, order)


def _once(runs: Sequence[Mirrored]) -> list[int]:
    """The places of all runs, each once. Two machines that mirrored one at a time may have made it twice.

    Raises:
        StoreError: it has ended twice, with different results.
    """
    chosen: dict[str, int] = {}
    for place, run in enumerate(runs):
        other = chosen.setdefault(run.tags["run_id"], place)
        mine, known = (runs[each].tags.get("summary") for each in (place, other))
        if mine is not None and known is not None and mine != known:
            name = run.tags["run_id"]
            raise StoreError(f"run {name} is twice in the MLflow store, with different results; {REBUILD}")
        if known is None and mine is not None:
            chosen[run.tags["run_id"]] = place
    return list(chosen.values())


def _records(runs: Sequence[Mirrored], store: Store) -> DataFrame:
    import pandas as pd

    rows = [_record(run, store) for run in runs]
    more = sorted(
        {name for row in rows if len(row) > len(RECORD_COLUMNS) for name in row} - set(RECORD_COLUMNS)
    )
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in (*RECORD_COLUMNS, *more)}
    for name in (*RESULTS, *NUMBERS, *more):
        columns[name] = np.array(columns[name], dtype=np.float64)  # None becomes NaN
    for name in ("seed", "attempts"):
        columns[name] = np.array(columns[name], dtype=np.int64)
    return pd.DataFrame(columns)


def _record(run: Mirrored, store: Store) -> dict[str, Any]:
    tags = run.tags
    summary = _summary(run, store) if "summary" in tags else {}
    metrics = summary.get("metrics", {})
    row = {
        "run_id": tags["run_id"],
        "arm_id": tags["arm_id"],
        "seed": int(tags["seed"]),
        "status": tags["status"],
        "attempts": int(tags.get("attempts") or 0),
    }
    row |= {name: _number(metrics.get(name)) for name in RESULTS}
    row |= {name: _number(summary.get(name)) for name in NUMBERS}
    row |= {name: summary.get(name, tags.get(name)) for name in TEXTS}
    row |= {
        "error": tags.get("error"),
        "env": tags.get("env"),
        "predictions": _predictions(run, summary, store),
    }
    if len(metrics) > len(RESULTS):
        row |= {name: _number(value) for name, value in metrics.items() if name not in RECORD_COLUMNS}
    return row


def _summary(run: Mirrored, store: Store) -> dict[str, Any]:
    text = run.tags["summary"]
    if text.startswith(IN_ARTIFACT):
        data = read_artifact(run.artifact_uri, "summary.json", store)
        if hashlib.sha256(data).hexdigest() != text.removeprefix(IN_ARTIFACT):
            raise StoreError(_damaged(run, "has changed"))
        text = data.decode(errors="replace")
    try:
        summary = parsed(text)
        wrong = [
            name for name, value in summary["metrics"].items() if not (value is None or is_number(value))
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(_damaged(run, "cannot be read")) from None
    if wrong:
        raise StoreError(_damaged(run, f"has a {wrong[0]} that is no number"))
    return dict(summary)


def _damaged(run: Mirrored, what: str) -> str:
    return f"the summary of run {run.tags['run_id']} in the MLflow store {what}; {REBUILD}"


def _number(value: Any) -> float | None:
    return value if type(value) is float or is_number(value) else None


def _curves(content: Content, records: DataFrame, order: Sequence[int]) -> DataFrame:
    """One row per run and step that has an `epoch` point; results at the last step have none of their own."""
    import pandas as pd

    place = np.full(len(content.runs), -1)  # of a run among the records; -1: it is not there
    place[list(order)] = np.arange(len(order))
    steps = np.unique(np.concatenate([points.step for points in content.curves.values()]))
    found = {name: _latest(points, place, steps) for name, points in content.curves.items()}
    keys, epoch = found["epoch"]
    run, step = np.divmod(keys, max(len(steps), 1))
    columns: dict[str, Any] = {name: records[name].to_numpy()[run] for name in ("run_id", "arm_id", "seed")}
    columns |= {"epoch": epoch, "step": steps[step]}
    columns |= {name: _at(keys, *found[name]) for name in CURVES}
    return pd.DataFrame(columns)


def _latest(
    points: Points, place: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ascending numbers for (record, step), and the latest value at each."""
    run = place[points.run]
    keys = (run * len(steps) + np.searchsorted(steps, points.step))[run >= 0]
    by_key = np.argsort(keys, kind="stable")
    keys = keys[by_key]
    last = np.append(keys[1:] != keys[:-1], True)[: keys.size]
    return keys[last], points.value[run >= 0][by_key[last]]


def _at(
    wanted: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The value at each wanted key; NaN where there is none."""
    if not keys.size:
        return np.full(wanted.size, np.nan)
    where = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[where] == wanted, values[where], np.nan)


def _predictions(run: Mirrored, summary: Mapping[str, Any], store: Store) -> bytes | None:
    wanted = summary.get("predictions_sha256")
    if wanted is None:
        return None
    data = read_artifact(run.artifact_uri, "predictions.bin", store)
    if hashlib.sha256(data).hexdigest() != wanted:
        raise StoreError(
            f"the predictions of run {run.tags['run_id']} in {run.artifact_uri} do not belong to its "
            f"summary; {REBUILD}"
        )
    return data


def read_artifact(artifact_uri: str, name: str, store: Store) -> bytes:
    """The bytes of one artifact, from a local folder or through the store's server.

    Raises:
        StoreError: it is not there.
    """
    try:
        if artifact_uri.startswith("file:///"):
            with open(f"{unquote(artifact_uri[7:])}/{name}", "rb", buffering=0) as file:
                return file.readall()
        if urlparse(artifact_uri).scheme == "":
            return (Path(artifact_uri) / name).read_bytes()
        from mlflow.artifacts import download_artifacts

        with TemporaryDirectory() as folder:
            found = within(
                lambda: download_artifacts(f"{artifact_uri}/{name}", dst_path=folder, tracking_uri=store.uri),
                store.uri,
                f"download of {name}",
            )
            return Path(found).read_bytes()
    except Exception as error:  # of MLflow, the server or the disk
        own = store.artifacts.resolve().as_uri()
        moved = artifact_uri.startswith("file:///") and not artifact_uri.startswith(f"{own}/")
        why = f", which is not {own}: the folder was moved" if moved and store.database is not None else ""
        raise StoreError(f"{name} is missing in {artifact_uri}{why}; {REBUILD}") from error
