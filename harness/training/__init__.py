"""The door to training: importing it costs nothing, calling it imports torch in the process that trains."""

from __future__ import annotations

from harness.runs.folder import RunFolder
from harness.spec import Machine, RunSpec, Stop

# The door to training: importing it costs nothing, calling it imports torch in the process that trains.


def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Train (or resume) one run; see `harness.training.run.run_one`."""
    from harness.training.run import run_one as train

    return train(spec, folder, machine, stop)
