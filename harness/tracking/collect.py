"""MLflow -> tidy frames: one row per run, one row per point of its curve. Only reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from harness.study.events import is_number
from harness.tracking.read import Mirrored, read_runs
from harness.tracking.store import Store, StoreError

if TYPE_CHECKING:
    from pandas import DataFrame

RESULTS = ("top1", "top5", "loss")
NUMBERS = (
    "train_loss",
    "train_time_s",
    "eval_time_s",
    "wall_time_s",
    "images_per_s",
    "params",
    "macs",
    "epochs",
    "steps",
    "images_seen",
    "batch_size",
    "threads",
    "started_s",
    "ended_s",
    "test_images",
)
TEXTS = ("model", "precision", "data", "data_fingerprint", "device", "torch")
CURVES = ("train_loss", "val_top1", "lr", "images_per_s")
RECORD_COLUMNS = (
    *("run_id", "arm_id", "seed", "status", "attempts"),
    *RESULTS,
    *NUMBERS,
    *TEXTS,
    *("error", "predictions"),
)
CURVE_COLUMNS = ("run_id", "arm_id", "seed", "epoch", "step", *CURVES)


def collect(store: Store, study: str, size: str) -> tuple[DataFrame, DataFrame]:
    """Every mirrored run of a study at one size.

    Returns:
        records: `RECORD_COLUMNS`, then one column per further metric that any run has (of plugins, sorted),
        one row per run, sorted by arm, seed and run. `status` is finished, diverged, failed, stopped or
        running. Results and numbers are NaN, texts None, where a run has not got so far. `top1`, `top5` in
        percent; `predictions` is one bit per test image (numpy.packbits) as bytes, or None. A metric of a
        plugin with the name of another column is left out.
        curves: `CURVE_COLUMNS`, one row per epoch line, sorted by arm, seed, run and step; an epoch has
        several where its recipe asks for more curve points. `step` counts optimizer steps.

    Raises:
        StoreError: there is no store, it cannot be read, or predictions do not belong to their summary.
    """
    import pandas as pd

    if not store.exists():
        raise StoreError(f"there is no MLflow store at {store.shown}: run `harness sync` to build it")
    runs = sorted(
        read_runs(store, study, size), key=lambda run: (run.tags["arm_id"], run.seed, run.tags["run_id"])
    )
    rows = [_record(run, store) for run in runs]
    more = sorted({name for row in rows for name in row} - set(RECORD_COLUMNS))
    records = pd.DataFrame(rows, columns=[*RECORD_COLUMNS, *more])
    curves = pd.DataFrame([row for run in runs for row in _curve(run)], columns=list(CURVE_COLUMNS))
    records = records.astype({name: "float64" for name in (*RESULTS, *NUMBERS, *more)})
    curves = curves.astype({name: "float64" for name in ("epoch", *CURVES)})
    whole = {"seed": "int64"}
    return records.astype({**whole, "attempts": "int64"}), curves.astype({**whole, "step": "int64"})


def _record(run: Mirrored, store: Store) -> dict[str, Any]:
    summary = json.loads(run.tags["summary"]) if "summary" in run.tags else {}
    row = {
        "run_id": run.tags["run_id"],
        "arm_id": run.tags["arm_id"],
        "seed": run.seed,
        "status": run.tags["status"],
        "attempts": int(run.tags.get("attempts", 0)),
        "error": run.tags.get("error"),
        "predictions": _predictions(run, summary, store),
    }
    metrics = summary.get("metrics", {})
    row |= {name: _number(value) for name, value in metrics.items() if name not in RECORD_COLUMNS}
    row |= {name: _number(metrics.get(name)) for name in RESULTS}
    row |= {name: _number(summary.get(name)) for name in NUMBERS}
    return row | {name: summary.get(name, run.tags.get(name)) for name in TEXTS}


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _curve(run: Mirrored) -> Iterable[dict[str, Any]]:
    """One row per step that has an `epoch` point; results at the last step have none of their own."""
    by_step: dict[int, dict[str, float]] = {}
    for name, step, value in run.points:
        by_step.setdefault(step, {})[name] = value
    for step, values in sorted(by_step.items()):
        if "epoch" in values:
            identity = {"run_id": run.tags["run_id"], "arm_id": run.tags["arm_id"], "seed": run.seed}
            yield identity | {"step": step} | {name: values.get(name) for name in ("epoch", *CURVES)}


def _predictions(run: Mirrored, summary: dict[str, Any], store: Store) -> bytes | None:
    wanted = summary.get("predictions_sha256")
    if wanted is None:
        return None
    data = read_artifact(run.artifact_uri, "predictions.bin", store)
    if hashlib.sha256(data).hexdigest() != wanted:
        raise StoreError(
            f"the predictions of run {run.tags['run_id']} in {run.artifact_uri} do not belong to its "
            "summary; delete the MLflow store and run `harness sync` to rebuild it"
        )
    return data


def read_artifact(artifact_uri: str, name: str, store: Store) -> bytes:
    """The bytes of one artifact, from a local folder or through the store's server.

    Raises:
        StoreError: it is not there.
    """
    place = urlparse(artifact_uri)
    try:
        if place.scheme in ("", "file"):
            return (Path(unquote(place.path)) / name).read_bytes()
        from mlflow.artifacts import download_artifacts

        with TemporaryDirectory() as folder:
            found = download_artifacts(f"{artifact_uri}/{name}", dst_path=folder, tracking_uri=store.uri)
            return Path(found).read_bytes()
    except Exception as error:  # of MLflow, the server or the disk
        raise StoreError(
            f"{name} is missing in {artifact_uri}; "
            "delete the MLflow store and run `harness sync` to rebuild it"
        ) from error
