"""Train one run from its spec to its summary, or go on where an earlier attempt stopped."""

from __future__ import annotations

import time

import torch._dynamo  # noqa: F401  # torch.optim loads it (1 s) when first used: here, before workers are forked

from harness.plugins import load_stored, only
from harness.study.machine import Machine, Stop
from harness.study.records import DIVERGED, FINISHED, RunFolder, write_json
from harness.study.spec import RunSpec
from harness.training.checkpoint import CheckpointError, load_checkpoint
from harness.training.custom import train_custom
from harness.training.environment import configured, device_name
from harness.training.journal import Journal
from harness.training.lock import exclusive
from harness.training.loop import INTERRUPTED, train
from harness.training.observe import observe
from harness.training.outcome import Attempt, read_out, write_diverged
from harness.training.progress import Progress
from harness.training.recorder import Recorder
from harness.training.setup import Setup, build


def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Train (or resume) one run and write its record into `folder`.

    Waits while another process trains the same run. A run that has ended is not trained again. A run that
    observes others trains nothing and evaluates them (`harness.training.observe`); the recipe may name a
    training function of the user's own (`harness.training.custom`). User code comes from the store of the
    runs folder, as it was when the run was submitted.

    Returns:
        finished, diverged, or interrupted (`stop()` was True; the next call goes on from that step).

    Raises:
        Exception: the run cannot be trained; there is no summary. The scheduler records why.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.lock, stop) as held:
        if not held:
            return INTERRUPTED
        summary = folder.read_summary()
        if summary is not None and folder.has_ended():
            return str(summary["status"])
        journal = Journal(folder)
        with configured(machine):
            return _attempt(spec, folder, machine, stop, journal)


def _attempt(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal) -> str:
    if not folder.spec.exists():
        write_json(folder.spec, spec.to_json())
    with only(load_stored(spec.arm.plugins, machine.runs_dir)):  # those of the runs it needs are among them
        if spec.arm.observes:
            return observe(spec, folder, machine, stop, journal)
        if spec.arm.recipe.trainer != "harness":
            return train_custom(spec, folder, machine, stop, journal)
        return _train(spec, folder, machine, stop, journal)


def _train(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal) -> str:
    start = time.perf_counter()
    setup, progress = _resume(spec, folder, machine, journal)
    progress.wall.time_s += time.perf_counter() - start
    attempt = Attempt(
        spec=spec, data=setup.data, progress=progress, folder=folder, machine=machine, journal=journal
    )
    with progress.wall:
        journal.start(machine, device_name=device_name(machine.device), step=progress.step)
        recorder = Recorder(attempt, setup)
        outcome = train(setup, progress, stop, recorder.boundary, recorder.is_due)
        if outcome == FINISHED:
            return read_out(attempt, setup)
        if outcome == DIVERGED:
            return write_diverged(attempt)
        recorder.checkpoint()
        journal.note("stop", step=progress.step)
        return INTERRUPTED


def _resume(spec: RunSpec, folder: RunFolder, machine: Machine, journal: Journal) -> tuple[Setup, Progress]:
    """Everything built, at the state of the checkpoint where there is a usable one, else at step 0."""
    setup = build(spec, machine)
    progress = Progress.start(setup.device)
    try:
        load_checkpoint(folder.checkpoint, setup, progress)
    except CheckpointError as error:
        journal.note("checkpoint_refused", message=f"{error}; starting again from step 0")
        folder.checkpoint.unlink()
        setup = build(spec, machine)
        progress = Progress.start(setup.device)
    return setup, progress
