"""One attempt at one run, in whichever process: whatever happens, it comes to a status and a record."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.scheduling.base import INTERRUPTED, RunOne
from harness.study.machine import Machine, Stop
from harness.study.records import DIVERGED, FAILED, FINISHED, RunFolder
from harness.study.spec import RunSpec

STATUSES = (FINISHED, DIVERGED, FAILED, INTERRUPTED)
TRACEBACK_CHARACTERS = 20_000  # the end of a longer one is kept

_log = logging.getLogger(__name__)


def attempt(run_one: RunOne, spec: RunSpec, machine: Machine, stop: Stop) -> str:
    """Call `run_one`; an exception in it is a failed run with the traceback in its events.

    Returns:
        One of `STATUSES`. A KeyboardInterrupt is passed on: it is the user's, not the run's.
    """
    run_id = spec.run_id
    try:
        folder = RunFolder(machine.runs_dir / run_id)
        folder.path.mkdir(parents=True, exist_ok=True)
        status = run_one(spec, folder, machine, stop)
    except (Exception, SystemExit) as error:
        text = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
        message = f"{type(error).__name__}: {error}"
        record(machine.runs_dir, run_id, "failed", message=message, traceback=text)
        return FAILED
    if status not in STATUSES:
        message = f"run_one returned {status!r}; valid: {', '.join(STATUSES)}"
        record(machine.runs_dir, run_id, "failed", message=message)
        return FAILED
    return status


def record(runs_dir: Path, run_id: str, kind: str, **values: Any) -> None:
    """Append an event to a run, also to one that was never started. A full disk does not stop the others."""
    try:
        folder = RunFolder(runs_dir / run_id)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.append_event(kind, **values)
    except OSError as error:
        _log.error("run %s: %s %s (not recorded: %s)", run_id, kind, values.get("message", ""), error)


def finished_in(runs_dir: Path) -> Callable[[str], bool]:
    """A function that says whether a run has finished in an earlier session."""

    def has_finished(run_id: str) -> bool:
        summary = RunFolder(runs_dir / run_id).read_summary()
        return summary is not None and summary["status"] == FINISHED

    return has_finished
