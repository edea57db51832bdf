"""What is left after a study was disturbed, held against one that was not. Each check returns sentences."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.runs.folder import RunFolder
from harness.spec import FINISHED
from tests.chaos.place import Place, results
from tests.chaos.victims import living
from tests.timing import wait_until

ENDS_S = 120.0
TRAINS = ("checkpoint.pt", "weights.pt", "predictions.bin", "summary.json")  # written by who trains the run
MIRRORED = """
SELECT tags.value, runs.status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
WHERE tags.key = 'run_id' AND runs.lifecycle_stage = 'active'
"""


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The same study without any disturbance."""

    runs: Mapping[str, Mapping[str, Any]]  # run_id -> results
    points: Mapping[str, int]  # write point -> how often the study comes by it


@dataclass(frozen=True, slots=True)
class Lost:
    """What an attempt that was killed had done since the checkpoint that the next one went on from."""

    steps: int
    time_s: float  # from that checkpoint, or from its start, to its last step


def violations(place: Place, undisturbed: Undisturbed, *, store: bool = True) -> list[str]:
    """Everything that is wrong, in sentences that begin with the kind of fault."""
    found = [*lost_runs(place, undisturbed), *wrong_runs(place, undisturbed), *twice(place)]
    found += [*bad_journals(place), *leftovers(place), *orphans(place), *tracebacks(place)]
    return found + list(wrong_store(place, undisturbed)) if store else found


def lost_runs(place: Place, undisturbed: Undisturbed) -> Iterator[str]:
    for run_id in undisturbed.runs:
        if not RunFolder(place.runs_dir / run_id).summary.exists():
            yield f"lost: {run_id} has no summary"


def wrong_runs(place: Place, undisturbed: Undisturbed) -> Iterator[str]:
    """Metrics, curve, predictions and weights, bit for bit."""
    for folder in place.folders():
        expected = undisturbed.runs.get(folder.run_id)
        if expected is None:
            yield f"wrong: {folder.run_id} is not a run of the study"
        elif folder.summary.exists():
            now = results(folder)
            for key in [key for key in expected if expected[key] != now[key]]:
                detail = (
                    f": {now[key]!r:.60}, not {expected[key]!r:.60}" if key in ("status", "steps") else ""
                )
                yield f"wrong: {key} of {folder.run_id}{detail}"


def twice(place: Place) -> Iterator[str]:
    """Summaries written more than once, and runs that two processes trained in turns."""
    summaries: Counter[str] = Counter()
    writers: dict[str, list[int]] = {}
    for entry in place.control.audit():
        parts = entry["path"].split("/")
        if entry["op"] != "replace" or len(parts) != 3 or parts[2] not in TRAINS:
            continue
        summaries[parts[1]] += parts[2] == "summary.json"
        in_turn = writers.setdefault(parts[1], [])
        if entry["pid"] not in in_turn[-1:]:
            in_turn.append(entry["pid"])
    for run_id, count in summaries.items():
        if count > 1:
            yield f"duplicated: the summary of {run_id} was written {count} times"
    for run_id, pids in writers.items():
        if len(set(pids)) < len(pids):
            yield f"duplicated: processes took turns at {run_id}: {pids}"


def bad_journals(place: Place) -> Iterator[str]:
    """Half a line is left only where a write was cut on order; everybody else passes over it."""
    cut = Counter(said["point"] for said in place.control.all_fired() if said["phase"] == "half")
    allowed = cut["write events.jsonl"]
    for folder in place.folders():
        if not folder.events.exists():
            continue
        *lines, rest = folder.events.read_bytes().split(b"\n")
        if rest:
            yield f"journal: the last line of {folder.run_id} is cut off"
        epochs: list[int] = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                allowed -= 1
                if allowed >= 0:
                    continue
                yield f"journal: a line of {folder.run_id} cannot be read: {line[:80]!r}"
                continue
            epochs += [event["step"]] if event["kind"] == "epoch" else []
        if epochs != sorted(set(epochs)):
            yield f"journal: points of the curve of {folder.run_id} are out of order or double: {epochs}"


def leftovers(place: Place) -> Iterator[str]:
    """Drafts. What a process leaves that is killed before its submission exists, or while it lets go of an
    ended run, nobody reads again: docs/reliability.md names it."""
    for path in place.work.rglob("*"):
        if path.name.startswith(".claim.") or {".submissions", ".code"} & set(path.parts):
            continue
        if path.suffix in (".draft", ".tmp", ".part"):
            yield f"leftover: {path.relative_to(place.work)}"
    for folder in place.folders():
        if folder.summary.exists() and folder.checkpoint.exists():
            yield f"leftover: {folder.run_id} has ended and keeps its checkpoint"


def orphans(place: Place) -> Iterator[str]:
    if not wait_until(lambda: not living(place.control.path), ENDS_S):
        for victim in living(place.control.path):
            yield f"orphan: {victim.role} {victim.pid} is alive"


def tracebacks(place: Place) -> Iterator[str]:
    """An error that a user sees is in words. Multiprocessing's own helper may say what killed it."""
    count = place.errors().count("Traceback (most recent call last)")
    if count:
        yield f"traceback: {count} times in {place.base / 'errors.txt'}"


def wrong_store(place: Place, undisturbed: Undisturbed) -> Iterator[str]:
    """One MLflow run per run, and it is finished."""
    database = place.work / "mlflow.db"
    if not database.exists():
        yield "mirror: there is no MLflow store"
        return
    yield from wrong_mirror(database, undisturbed)


def wrong_mirror(database: Path, undisturbed: Undisturbed) -> Iterator[str]:
    """Of the SQLite file of a store, ours or a server's."""
    with closing(sqlite3.connect(database)) as store:
        mirrored = store.execute(MIRRORED).fetchall()
    counts = Counter(run_id for run_id, _ in mirrored)
    for run_id in undisturbed.runs:
        if counts[run_id] != 1:
            yield f"mirror: {run_id} is {counts[run_id]} times in MLflow"
    for run_id, status in mirrored:
        if status != FINISHED.upper():
            yield f"mirror: {run_id} is {status} in MLflow"


def lost_work(place: Place) -> list[Lost]:
    """One entry for each attempt that was followed by another one."""
    saved: dict[tuple[str, int], list[float]] = {}
    for entry in place.control.audit():
        if entry["op"] == "replace" and entry["path"].endswith("/checkpoint.pt"):
            saved.setdefault((entry["path"].split("/")[1], entry["pid"]), []).append(entry["time_s"])
    lost = []
    for run_id, attempts in place.control.steps().items():
        for attempt, following in pairwise(attempts):
            times = [
                time for time in saved.get((run_id, int(attempt["pid"])), []) if time < attempt["last_s"]
            ]
            since_s = max([attempt["first_s"], *times])
            steps = int(attempt["last"] - following["first"])
            lost.append(Lost(steps, attempt["last_s"] - since_s if steps > 0 else 0.0))
    return lost
