"""What `harness calibrate` has measured on this machine: stored beside the runs, shown in reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.commands.workspace import Workspace
from harness.study.checked import read_map, reason
from harness.study.plan import Plan

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
    """A stored calibration; None where it is damaged, which is named, or of another version."""
    return read_map(path, _wrong) or None


def _wrong(found: Mapping[str, Any]) -> str:
    from harness.analysis.calibration import badge  # SciPy

    if found.get("schema") != SCHEMA:
        return f"it is of schema {found.get('schema')}, this version reads {SCHEMA}"
    try:
        badge(found)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        return reason(error) if isinstance(error, KeyError) else "a value is not what was measured"
    return (
        "" if isinstance(found.get("measured"), str) and isinstance(found.get("device"), str) else "no device"
    )


def _devices(plan: Plan, place: Workspace) -> Iterator[str]:
    for run in plan.runs:
        summary = place.folder(run.run_id).read_summary()
        if summary is not None:
            yield str(summary.get("device"))
