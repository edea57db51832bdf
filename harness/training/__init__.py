"""The door to training: importing it costs nothing, calling it imports torch in the process that trains."""

from __future__ import annotations

from harness.runs.folder import RunFolder
from harness.spec import AnyRun, Machine, ScriptRun, Stop

# The door to training: importing it costs nothing, calling it imports torch in the process that trains.

PRELOAD = ("harness.training.run",)  # once per machine, before its workers are forked
SCRIPT_PRELOAD = ("harness.scripts.run",)  # of a study with a script: no torch


def run_one(spec: AnyRun, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Train (or resume) one run: `harness.training.run.run_one`, or of a command `harness.scripts.run`."""
    if isinstance(spec, ScriptRun):
        from harness.scripts.run import run_script

        return run_script(spec, folder, machine, stop)
    from harness.training.run import run_one as train

    return train(spec, folder, machine, stop)
