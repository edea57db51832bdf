"""A tracking store with many finished runs, made quickly, for `bench_collect.py` and its test.

A few runs are mirrored by the project's own `Mirror`; every other one is a copy of the rows and files that
the mirror left, with an identity of its own. (Mirroring 10,000 runs one by one takes seven minutes.)
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np

from harness.runs.folder import RunFolder, write_bytes, write_json
from harness.spec import FINISHED, Arm, DataSpec, ModelSpec, Recipe, RunSpec, TrickSpec
from harness.tracking.mirror import Mirror
from harness.tracking.store import Store

STUDY, SIZE = "benchmark", "mini"
EPOCHS, STEPS_PER_EPOCH, TEST_IMAGES = 7, 100, 10_000
STARTED_S = 1_700_000_000.0
SEEDS_PER_ARM = 20


def make_store(place: Path, runs: int, mirrored: int = 4) -> Store:
    """A store of `runs` finished runs, 20 seeds to an arm; the first `mirrored` ones went the usual way."""
    runs_dir = place / "runs"
    folders = [finished_run(runs_dir, number) for number in range(min(runs, mirrored))]
    store = Store.beside(runs_dir)
    Mirror(store, STUDY, SIZE).sync(folders)
    assert store.database is not None
    with closing(sqlite3.connect(store.database)) as connection:
        sources = [_source(connection, folder.run_id) for folder in folders]
        for number in range(len(folders), runs):
            copy_run(connection, spec_of(number), sources[number % len(folders)])
        connection.commit()
    return store


def spec_of(number: int) -> RunSpec:
    """The spec of the run of this number."""
    recipe = Recipe(
        model=ModelSpec(name="resnet50", args={"width": 0.25, "depth": (1, 1, 1, 1)}),
        data=DataSpec(name="generated", resolution=32),
        epochs=EPOCHS,
        lr=0.001 * (1 + number // SEEDS_PER_ARM),
    )
    arm = Arm(recipe=recipe, tricks=(TrickSpec(name="mixup", options={"alpha": 0.2}),))
    return RunSpec(arm=arm, seed=number % SEEDS_PER_ARM)


def finished_run(runs_dir: Path, number: int) -> RunFolder:
    """The folder of a run with a curve, predictions and a summary, made up."""
    spec = spec_of(number)
    folder = RunFolder(runs_dir / spec.run_id)
    write_json(folder.spec, spec.to_json())
    folder.append_event("attempt", attempt=1, device="cpu", device_name="a CPU", threads=1)
    for epoch in range(1, EPOCHS + 1):
        values = {"epoch": float(epoch), "lr": 0.1, "train_loss": 2 / 3 / epoch, "val_top1": 50.0 + epoch}
        folder.append_event("epoch", step=STEPS_PER_EPOCH * epoch, images_per_s=10000 / 3, **values)
    right = np.random.default_rng(number).random(TEST_IMAGES) < 0.8
    write_bytes(folder.predictions, np.packbits(right).tobytes())
    write_json(folder.env, {"python": "3"})
    write_json(folder.summary, _summary(spec, right))
    return folder


def _summary(spec: RunSpec, right: np.ndarray) -> dict[str, object]:
    return {
        "schema": 1,
        "run_id": spec.run_id,
        "arm_id": spec.arm.arm_id,
        "seed": spec.seed,
        "status": FINISHED,
        "metrics": {"top1": 100 * float(right.mean()), "top5": 290 / 3, "loss": 1 / 3},
        "epochs": float(EPOCHS),
        "steps": STEPS_PER_EPOCH * EPOCHS,
        "images_seen": 12800 * EPOCHS,
        "train_loss": math.pi / 10,
        "train_time_s": 10 / 3,
        "eval_time_s": 1 / 3,
        "wall_time_s": 11 / 3,
        "images_per_s": 10000 / 3,
        "params": 123456,
        "macs": 7654321,
        "model": "resnet50",
        "precision": "fp32",
        "batch_size": 128,
        "data": "generated",
        "data_fingerprint": "ab" * 32,
        "attempts": 1,
        "started_s": STARTED_S,
        "ended_s": STARTED_S + 4,
        "device": "a CPU",
        "threads": 1,
        "torch": "2.13.0",
        "test_images": TEST_IMAGES,
        "predictions_sha256": hashlib.sha256(np.packbits(right).tobytes()).hexdigest(),
    }


def _source(connection: sqlite3.Connection, run_id: str) -> str:
    found = connection.execute("SELECT run_uuid FROM tags WHERE key = 'run_id' AND value = ?", [run_id])
    return str(next(found)[0])


def copy_run(connection: sqlite3.Connection, spec: RunSpec, source: str) -> None:
    """Insert the run of `spec` with the rows, and the files, of one that the mirror wrote."""
    new = uuid.uuid4().hex
    ids = {"run_id": spec.run_id, "arm_id": spec.arm.arm_id, "seed": str(spec.seed)}
    [(uri,)] = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", [source])
    _copy_rows(connection, "runs", source, {"run_uuid": new, "artifact_uri": uri.replace(source, new)})
    for table in ("tags", "metrics", "latest_metrics", "params"):
        _copy_rows(connection, table, source, {"run_uuid": new})
    [(text,)] = connection.execute("SELECT value FROM tags WHERE run_uuid = ? AND key = 'summary'", [source])
    summary = {**json.loads(text), **ids, "seed": spec.seed}
    tags = {**ids, "summary": json.dumps(summary, sort_keys=True, separators=(",", ":"))}
    for key, value in tags.items():
        connection.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", [value, new, key])
    old_folder, new_folder = (Path(each.removeprefix("file://")) for each in (uri, uri.replace(source, new)))
    new_folder.mkdir(parents=True)
    for file in old_folder.iterdir():
        (new_folder / file.name).write_bytes(file.read_bytes())


def _copy_rows(connection: sqlite3.Connection, table: str, source: str, changed: dict[str, str]) -> None:
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = [f":{name}" if name in changed else name for name in names]
    connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table} "
        "WHERE run_uuid = :source",
        {**changed, "source": source},
    )
