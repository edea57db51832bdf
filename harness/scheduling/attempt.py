"""One attempt at one run, in whichever process: whatever happens, it comes to a status and a record."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.scheduling.base import INTERRUPTED, RunOne
from harness.scheduling.ranks import RankDied, RankFailed, run_ranks
from harness.study.machine import Machine, Stop
from harness.study.records import DIVERGED, FAILED, FINISHED, FolderGone, RunFolder
from harness.study.spec import RunSpec

STATUSES = (FINISHED, DIVERGED, FAILED, INTERRUPTED)
TRACEBACK_CHARACTERS = 20_000  # the end of a longer one is kept

_log = logging.getLogger(__name__)


def attempt(run_one: RunOne, spec: RunSpec, machine: Machine, stop: Stop) -> str:
    """Call `run_one`, here or in several ranks; an exception in it is a failed run with its traceback.

    Returns:
        One of `STATUSES`. A KeyboardInterrupt is passed on: it is the user's, not the run's.

    Raises:
        SystemExit: one of several ranks died, and this is a worker: its death is the worker's own, which
            the scheduler retries. In the process of the user's command the run has failed.
    """
    run_id = spec.run_id
    try:
        folder = RunFolder(machine.runs_dir / run_id)
        folder.path.mkdir(parents=True, exist_ok=True)
        if processes_of(spec, machine) > 1:
            status = run_ranks(run_one, spec, machine, stop)
        else:
            own = machine if machine.processes == 1 else _alone(machine)
            status = run_one(spec, folder, own, stop)
    except FolderGone as error:  # there is nowhere to write it down
        _log.error("run %s failed: %s", run_id, error)
        return FAILED
    except RankDied as death:
        record(machine.runs_dir, run_id, "rank_died", message=str(death))
        if multiprocessing.parent_process() is not None:
            raise SystemExit(str(death)) from death
        record(machine.runs_dir, run_id, "failed", message=str(death))
        return FAILED
    except RankFailed as error:
        record(machine.runs_dir, run_id, "failed", message=str(error), traceback=error.traceback)
        return FAILED
    except (Exception, SystemExit) as error:
        text = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
        record(machine.runs_dir, run_id, "failed", message=f"{type(error).__name__}: {error}", traceback=text)
        return FAILED
    if status not in STATUSES:
        message = f"run_one returned {status!r}; valid: {', '.join(STATUSES)}"
        record(machine.runs_dir, run_id, "failed", message=message)
        return FAILED
    return status


def processes_of(spec: RunSpec, machine: Machine) -> int:
    """How many processes train this run together. One, where nothing is trained (a run that observes others),
    and where a training function of the user's own does it, which knows nothing of ranks."""
    alone = spec.arm.observes or spec.arm.recipe.trainer != "harness"
    return 1 if alone else machine.processes


def _alone(machine: Machine) -> Machine:
    """The machine of several processes for a run that has one: on the first of their devices."""
    device = machine.devices[0] if machine.devices else machine.device
    return dataclasses.replace(machine, device=device, devices=(), processes=1)


def record(runs_dir: Path, run_id: str, kind: str, **values: Any) -> None:
    """Append an event to a run that was started. A full disk, or a folder that is gone, does not stop the
    others."""
    try:
        RunFolder(runs_dir / run_id).append_event(kind, **values)
    except OSError as error:
        _log.error("run %s: %s %s (not recorded: %s)", run_id, kind, values.get("message", ""), error)


def record_refused(runs_dir: Path, run_id: str, message: str) -> None:
    """Write down why a run failed that was never started."""
    try:
        (runs_dir / run_id).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.error("run %s: failed %s (not recorded: %s)", run_id, message, error)
    else:
        record(runs_dir, run_id, FAILED, message=message)


def finished_in(runs_dir: Path) -> Callable[[str], bool]:
    """A function that says whether a run has finished in an earlier session."""

    def has_finished(run_id: str) -> bool:
        summary = RunFolder(runs_dir / run_id).read_summary()
        return summary is not None and summary["status"] == FINISHED

    return has_finished
