"""What `harness calibrate` has measured on this machine: stored beside the runs, shown in reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.commands.workspace import Workspace
from harness.study.plan import Plan
from harness.study.records import read_json

FOLDER = ".calibration"  # in the folder of runs
SCHEMA = 1


def newest(plan: Plan, place: Workspace) -> Mapping[str, Any] | None:
    """The last calibration on a device that trained a run of this plan; None where there is none.

    What was stored is read; nothing is computed again.
    """
    stored = [each for each in map(_read, (place.runs_dir / FOLDER).glob("*.json")) if each is not None]
    for found in sorted(stored, key=lambda each: str(each["measured"]), reverse=True):
        if any(found["device"] == device for device in _devices(plan, place)):
            return found
    return None


def _read(path: Path) -> Mapping[str, Any] | None:
    """A stored calibration; None where it is damaged or of another version."""
    try:
        found = read_json(path)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def _devices(plan: Plan, place: Workspace) -> Iterator[str]:
    for run in plan.runs:
        summary = place.folder(run.run_id).read_summary()
        if summary is not None:
            yield str(summary.get("device"))
