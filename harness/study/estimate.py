"""What is already done, and how long the rest will take, from the records of finished runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from harness.study.plan import Plan, PlannedRun
from harness.study.records import ENDED, FINISHED

AT_ONCE = 1 << 18  # bytes
OTHER_RECORDS = 200  # records of runs outside the plan that are read, at most, for their speed


def reconcile(plan: Plan, runs_dir: Path) -> dict[str, dict[str, Any]]:
    """Set `done` and `time_s` of every run in place. Returns the summaries that were read, by run_id.

    A run is done when its record says finished or diverged; its `time_s` is then what its training took. For
    the others it is the planned multiply-adds over the median speed of finished runs of the same model,
    precision and batch size; without any, of the same precision; without any, of all; without any, None.
    """
    present = _folders(runs_dir)
    planned = {run.run_id: run for run in plan.runs}
    speeds = _Speeds()
    summaries: dict[str, dict[str, Any]] = {}
    for name in (name for name in present if name in planned):
        summary = _summary(runs_dir, name)
        if summary is None:
            continue
        summaries[name] = summary
        run = planned[name]
        run.done = summary.get("status") in ENDED
        if run.done:
            run.time_s = summary.get("train_time_s")
        speeds.add(summary)
    others = (name for name in present if name not in planned)
    for _, name in zip(range(OTHER_RECORDS), others, strict=False):
        summary = _summary(runs_dir, name)
        if summary is not None:
            speeds.add(summary)
    for run in plan.runs:
        if not run.done:
            run.time_s = speeds.time_s(plan, run)
    return summaries


@dataclass(slots=True)
class _Speeds:
    """Multiply-adds per second of finished trainings, by how alike the trainings are."""

    found: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)
    medians: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def add(self, summary: Mapping[str, Any]) -> None:
        work = 3.0 * (summary.get("macs") or 0) * (summary.get("images_seen") or 0)
        time_s = summary.get("train_time_s") or 0
        if summary.get("status") != FINISHED or work <= 0 or time_s <= 0:
            return
        for key in _likeness(summary.get("model"), summary.get("precision"), summary.get("batch_size")):
            self.found.setdefault(key, []).append(work / time_s)

    def time_s(self, plan: Plan, run: PlannedRun) -> float | None:
        recipe = plan.arms[run.arm_id].recipe
        for key in _likeness(recipe.model.name, recipe.precision, recipe.batch_size):
            if key in self.found:
                if key not in self.medians:
                    self.medians[key] = median(self.found[key])
                return run.macs / self.medians[key]
        return None


def _likeness(model: Any, precision: Any, batch_size: Any) -> Iterable[tuple[Any, ...]]:
    return (model, precision, batch_size), (precision,), ()


def _folders(runs_dir: Path) -> list[str]:
    """Names of all run folders, in order: one directory listing, however many runs there are."""
    try:
        return sorted(_names(runs_dir))
    except FileNotFoundError:
        return []


def _names(runs_dir: Path) -> Iterator[str]:
    with os.scandir(runs_dir) as entries:
        yield from (entry.name for entry in entries)


def _summary(runs_dir: Path, name: str) -> dict[str, Any] | None:
    """As `RunFolder.read_summary`, without making paths: there may be ten thousand.

    None where there is none that can be read: then nothing is known about the run.
    """
    try:
        summary = json.loads(read_quickly(f"{runs_dir}{os.sep}{name}{os.sep}summary.json").decode())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and "status" in summary else None


def read_quickly(path: str) -> bytes:
    """A whole file, at half the cost of a file object.

    Raises:
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(handle, AT_ONCE)
        while more := os.read(handle, AT_ONCE):
            text += more
        return text
    finally:
        os.close(handle)
