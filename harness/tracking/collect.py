"""MLflow -> tidy frames: one row per run, one row per point of its curve. Only reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from harness.study.checked import is_number, parsed
from harness.study.memory import without_garbage_collection
from harness.study.reserved import CURVES, NUMBERS, RECORD_COLUMNS, RESULTS, TEXTS
from harness.tracking import reach
from harness.tracking.read import REBUILD, Content, Mirrored, Points, read_runs
from harness.tracking.runs import IN_ARTIFACT
from harness.tracking.store import Store, StoreError

if TYPE_CHECKING:
    from pandas import DataFrame


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
            found = reach.within(
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
