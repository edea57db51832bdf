"""What is already done, and how long the rest will take, from the records of finished runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from harness.study.checked import (
    FINISHED,
    NO_SPEC,
    Specs,
    note,
    read_quickly,
    read_with_time,
    reason,
    summary_of,
)
from harness.study.plan import Plan, PlannedRun

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
        text, touched_ns = read_with_time(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    except OSError as error:
        note(path, reason(error))
        return None, 0
    return summary_of(text, name, path), touched_ns


def _has_spec(runs_dir: Path, name: str, specs: Specs, ended_ns: int) -> bool:
    """As `RunFolder.has_spec`, of a run that has ended. The spec was checked when it began: only one that was
    written since the end is read. Whoever builds on a run or reports it reads it."""
    path = f"{runs_dir}{os.sep}{name}{os.sep}spec.json"
    try:
        info = os.stat(path)
        if info.st_mtime_ns <= ended_ns and info.st_size and stat.S_ISREG(info.st_mode):
            return True
        why = specs.wrong(read_quickly(path), name)
    except FileNotFoundError:
        why = NO_SPEC
    except OSError as error:
        why = reason(error)
    if why:
        note(path, why)
    return not why
