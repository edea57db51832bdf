"""The state of every run of a plan, read fast: ten thousand folders in less than a second. Writes nothing.

A folder is listed once, and only the files that its names call for are opened.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.study.checked import event_of, is_count, is_time, read_map, read_quickly
from harness.study.holders import PREFIX, Holder, holder_of, newest_of
from harness.study.plan import Plan, PlannedRun
from harness.study.problems import printable
from harness.study.records import (
    CANCELLED,
    FAILED,
    MISSING,
    RUNNING,
    STOPPED,
    RunFolder,
)

SHORT_ID = 12  # characters of a run_id that are shown: enough to name it to `harness logs`
QUEUED = "queued"  # beside the states in study.records: an agent in Slurm's queue, or at work, will take it
RELEASED = b'"released": true'  # of a claim; within a text the quotes would be escaped
ATTEMPT, EPOCH = b'"kind": "attempt"', b'"kind": "epoch"'


@dataclass(slots=True)
class RunView:
    """What is known of one run."""

    state: str = MISSING
    used_s: float = 0.0  # seconds of one worker that all attempts took together, as far as they were recorded
    gpus: int = 0  # GPUs that it took at a time
    progress: float | None = None  # of a training that has begun and not ended, from 0 to 1
    holder: Holder | None = None  # who trains it now
    message: str = ""  # why it failed
    failed_s: float = 0.0  # when


def look(plan: Plan, runs_dir: Path, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, RunView]:
    """run_id -> what its folder says. `summaries`: of the runs that have one, by `reconcile`."""
    try:
        present = set(os.listdir(runs_dir))
    except OSError:
        present = set()
    counted = _Gpus(runs_dir)
    views = {}
    for run in plan.runs:
        summary = summaries.get(run.run_id)
        if summary is not None:
            views[run.run_id] = _ended(run, summary, counted)
        elif run.run_id in present:
            views[run.run_id] = _unfinished(
                f"{runs_dir}{os.sep}{run.run_id}", plan.arms[run.arm_id].recipe.epochs
            )
        else:
            views[run.run_id] = RunView()
    return views


def _ended(run: PlannedRun, summary: Mapping[str, Any], counted: _Gpus) -> RunView:
    return RunView(
        state=summary["status"],
        used_s=summary.get("wall_time_s") or 0.0,
        gpus=counted.of(run, str(summary.get("device"))),
    )


class _Gpus:
    """How many GPUs finished runs took: told by env.json, of which one is read per arm and device."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._known: dict[tuple[str, str], int] = {}
        self._are_cpus: set[str] = set()  # product names of devices

    def of(self, run: PlannedRun, device_name: str) -> int:
        if device_name in self._are_cpus:
            return 0
        key = (run.arm_id, device_name)
        if key not in self._known:
            said = read_map(f"{self._runs_dir}{os.sep}{run.run_id}{os.sep}env.json")
            self._known[key] = _gpus(said)
            if said.get("device") == "cpu":
                self._are_cpus.add(device_name)
        return self._known[key]


def _unfinished(folder: str, epochs: float) -> RunView:
    """What the folder of a run without a summary says; the states are those of `records.run_state`."""
    try:
        names = os.listdir(folder)
    except OSError:  # deleted meanwhile, or a file
        return RunView()
    view = _events(f"{folder}{os.sep}events.jsonl", epochs) if "events.jsonl" in names else RunView()
    view.holder = _holder(folder, newest_of(names))
    if view.holder is not None or ("lock" in names and _is_locked(f"{folder}{os.sep}lock")):
        view.state = RUNNING
        return view
    if view.state != FAILED and "cancel" in names:
        view.state = CANCELLED
    return view


def _holder(folder: str, newest: int) -> Holder | None:
    """As `holder_of`, which is asked only where there is a claim that was not released."""
    if not newest:
        return None
    try:
        is_released = RELEASED in read_quickly(f"{folder}{os.sep}{PREFIX}{newest}")
    except OSError:
        return None
    return None if is_released else holder_of(RunFolder(Path(folder)))


def _is_locked(path: str) -> bool:
    """As `records.is_locked`; where it cannot be known: no."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    else:
        return False
    finally:
        os.close(handle)


def _events(path: str, epochs: float) -> RunView:
    """State, time and progress from the events; of the lines only those that tell are parsed."""
    try:
        lines = read_quickly(path).split(b"\n")[:-1]  # what follows the last line end was cut off
    except OSError:
        return RunView()
    last = _last(lines)
    if last is None:
        return RunView()
    view = RunView(state=FAILED if last["kind"] == FAILED else STOPPED)
    if view.state == FAILED:
        view.message, view.failed_s = printable(str(last.get("message") or "")), float(last["time_s"])
    starts = [place for place, line in enumerate(lines) if ATTEMPT in line]
    for begin, end in zip(starts, [*starts[1:], len(lines)], strict=False):
        first = event_of(lines[begin])
        if first is not None:
            view.gpus = _gpus(first)
            view.used_s += max(0.0, (_last(lines[begin:end]) or first)["time_s"] - first["time_s"])
    told = next((event for line in reversed(lines) if EPOCH in line and (event := event_of(line))), None)
    epoch = told.get("epoch") if told else None
    if starts and epochs > 0:
        view.progress = min(1.0, epoch / epochs) if is_time(epoch) else 0.0
    return view


def _last(lines: list[bytes]) -> dict[str, Any] | None:
    """The last line that is an event."""
    return next((event for line in reversed(lines) if (event := event_of(line))), None)


def _gpus(said: Mapping[str, Any]) -> int:
    """Of an attempt's event or env.json: one per process, none on a CPU."""
    processes = said.get("processes")
    used = processes if is_count(processes) else 1
    return used if str(said.get("device", "cpu")).startswith("cuda") else 0
