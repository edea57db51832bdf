"""The state of every run of a plan, what is done already, and how long the rest will take."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from harness.errors import printable
from harness.runs import records
from harness.runs.folder import (
    CANCELLED,
    MISSING,
    PREFIX,
    RUNNING,
    STOPPED,
    Holder,
    RunFolder,
    holder_of,
    is_locked,
    newest_of,
)
from harness.runs.records import Specs
from harness.spec import FAILED, FINISHED
from harness.study.plan import Plan, PlannedRun

# The state of every run of a plan, read fast: ten thousand folders in less than a second. Writes nothing.
#
# A folder is listed once, and only the files that its names call for are opened.


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
            said = records.read_map(f"{self._runs_dir}{os.sep}{run.run_id}{os.sep}env.json")
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
        is_released = RELEASED in records.read_quickly(f"{folder}{os.sep}{PREFIX}{newest}")
    except OSError:
        return None
    return None if is_released else holder_of(RunFolder(Path(folder)))


def _is_locked(path: str) -> bool:
    """As `folder.is_locked`; where it cannot be known: no."""
    try:
        return is_locked(path)
    except OSError:
        return False


def _events(path: str, epochs: float) -> RunView:
    """State, time and progress from the events; of the lines only those that tell are parsed."""
    try:
        lines = records.read_quickly(path).split(b"\n")[:-1]  # what follows the last line end was cut off
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
        first = records.event_of(lines[begin])
        if first is not None:
            view.gpus = _gpus(first)
            view.used_s += max(0.0, (_last(lines[begin:end]) or first)["time_s"] - first["time_s"])
    told = next(
        (event for line in reversed(lines) if EPOCH in line and (event := records.event_of(line))), None
    )
    epoch = told.get("epoch") if told else None
    if starts and epochs > 0:
        view.progress = min(1.0, epoch / epochs) if records.is_time(epoch) else 0.0
    return view


def _last(lines: list[bytes]) -> dict[str, Any] | None:
    """The last line that is an event."""
    return next((event for line in reversed(lines) if (event := records.event_of(line))), None)


def _gpus(said: Mapping[str, Any]) -> int:
    """Of an attempt's event or env.json: one per process, none on a CPU."""
    processes = said.get("processes")
    used = processes if records.is_count(processes) else 1
    return used if str(said.get("device", "cpu")).startswith("cuda") else 0


# What is already done, and how long the rest will take, from the records of finished runs.


OTHER_RECORDS = 200  # records of runs outside the plan that are read, at most, for their speed


def reconcile(plan: Plan, runs_dir: Path) -> dict[str, dict[str, Any]]:
    """Set `done` and `time_s` of every run in place. Returns the summaries that were read, by run_id.

    A run is done when its record says finished or diverged and belongs to its spec; its `time_s` is then what
    its training took. For the others it is the planned multiply-adds over the median speed of finished runs
    of the same arm, evaluations included. Without any it is `rough`: from runs of the same model,
    precision and batch size; without any, of the same precision; without any, of all;
    without any, None.
    """
    present = _folders(runs_dir)
    planned = {run.run_id: run for run in plan.runs}
    speeds, specs = _Speeds(), Specs()
    summaries: dict[str, dict[str, Any]] = {}
    for name in (name for name in present if name in planned):
        summary, touched_ns = _summary(runs_dir, name)
        if summary is None or not _has_spec(runs_dir, name, specs, touched_ns):
            continue
        summaries[name] = summary
        run = planned[name]
        run.done = True
        run.time_s = summary.get("train_time_s")
        speeds.add(summary)
    others = (name for name in present if name not in planned)
    for _, name in zip(range(OTHER_RECORDS), others, strict=False):
        summary, _ = _summary(runs_dir, name)
        if summary is not None:
            speeds.add(summary)
    for run in plan.runs:
        if not run.done:
            run.time_s, run.rough = speeds.time_s(plan, run)
    return summaries


@dataclass(slots=True)
class _Speeds:
    """Multiply-adds per second of finished trainings, by how alike the trainings are."""

    found: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)
    medians: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def add(self, summary: Mapping[str, Any]) -> None:
        work = 3.0 * (summary.get("macs") or 0) * (summary.get("images_seen") or 0)
        time_s = summary.get("wall_time_s") or summary.get("train_time_s") or 0
        if summary.get("status") != FINISHED or work <= 0 or time_s <= 0:
            return
        about = [summary.get(name) for name in ("arm_id", "model", "precision", "batch_size")]
        for key in _likeness(*about):
            self.found.setdefault(key, []).append(work / time_s)

    def time_s(self, plan: Plan, run: PlannedRun) -> tuple[float | None, bool]:
        """Seconds, and whether they are rough."""
        recipe = plan.arms[run.arm_id].recipe
        alike = _likeness(run.arm_id, recipe.model.name, recipe.precision, recipe.batch_size)
        for rough, key in enumerate(alike):
            if key in self.found:
                if key not in self.medians:
                    self.medians[key] = median(self.found[key])
                return run.macs / self.medians[key], rough > 0
        return None, False


def _likeness(arm_id: Any, model: Any, precision: Any, batch_size: Any) -> Iterable[tuple[Any, ...]]:
    """From runs of the same arm to any run."""
    return ("arm", arm_id), (model, precision, batch_size), (precision,), ()


def _folders(runs_dir: Path) -> list[str]:
    """Names of all run folders, in order: one directory listing, however many runs there are."""
    try:
        return sorted(_names(runs_dir))
    except FileNotFoundError:
        return []


def _names(runs_dir: Path) -> Iterator[str]:
    with os.scandir(runs_dir) as entries:
        yield from (entry.name for entry in entries)


def _summary(runs_dir: Path, name: str) -> tuple[dict[str, Any] | None, int]:
    """As `RunFolder.read_summary`, without making paths and without a look at the spec: there may be ten
    thousand. None where there is none that can be relied on: then nothing is known about the run. Beside it
    when the file was written.
    """
    path = f"{runs_dir}{os.sep}{name}{os.sep}summary.json"
    try:
        text, touched_ns = records.read_with_time(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    except OSError as error:
        records.note(path, records.reason(error))
        return None, 0
    return records.summary_of(text, name, path), touched_ns


def _has_spec(runs_dir: Path, name: str, specs: Specs, ended_ns: int) -> bool:
    """As `RunFolder.has_spec`, of a run that has ended. The spec was checked when it began: only one that was
    written since the end is read. Whoever builds on a run or reports it reads it."""
    path = f"{runs_dir}{os.sep}{name}{os.sep}spec.json"
    try:
        info = os.stat(path)
        if info.st_mtime_ns <= ended_ns and info.st_size and stat.S_ISREG(info.st_mode):
            return True
        why = specs.wrong(records.read_quickly(path), name)
    except FileNotFoundError:
        why = records.NO_SPEC
    except OSError as error:
        why = records.reason(error)
    if why:
        records.note(path, why)
    return not why
