"""Train one run from its spec to its summary, or go on where an earlier attempt stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch._dynamo  # noqa: F401  # torch.optim loads it (1 s) when first used: here, before workers are forked

from harness.study.machine import Machine, Stop
from harness.study.records import DIVERGED, FINISHED, RunFolder, write_json
from harness.study.spec import RunSpec
from harness.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from harness.training.environment import configured, device_name
from harness.training.evaluate import curve_subset, evaluate
from harness.training.journal import Journal
from harness.training.lock import exclusive
from harness.training.loop import INTERRUPTED, train
from harness.training.outcome import Attempt, read_out, write_diverged
from harness.training.progress import Progress
from harness.training.schedule import lr_at
from harness.training.setup import Setup, build


def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Train (or resume) one run and write its record into `folder`.

    Waits while another process trains the same run. A run that has ended is not trained again.

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
    start = time.perf_counter()
    setup, progress = _resume(spec, folder, machine, journal)
    progress.wall.time_s += time.perf_counter() - start
    attempt = Attempt(setup=setup, progress=progress, folder=folder, machine=machine, journal=journal)
    with progress.wall:
        journal.start(machine, device_name=device_name(machine.device), step=progress.step)
        observer = Observer(attempt)
        outcome = train(setup, progress, stop, observer.boundary, observer.is_due)
        if outcome == FINISHED:
            return read_out(attempt)
        if outcome == DIVERGED:
            return write_diverged(attempt)
        observer.checkpoint()
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


@dataclass(slots=True)
class Observer:
    """What happens between steps: learning-curve lines at epoch ends, checkpoints when they are due."""

    attempt: Attempt
    _saved: float = field(default_factory=time.monotonic)
    _epoch_start: tuple[int, float] = field(init=False)  # step, train time

    def __post_init__(self) -> None:
        self._epoch_start = (self.attempt.progress.step, self.attempt.progress.train.time_s)

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= self.attempt.machine.checkpoint_every_s

    def boundary(self, epoch_ended: bool) -> None:
        if epoch_ended:
            self._end_epoch()
        if self.is_due():
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the complete state of the run."""
        start = time.perf_counter()
        save_checkpoint(self.attempt.folder.checkpoint, self.attempt.setup, self.attempt.progress)
        self._saved = time.monotonic()
        self.attempt.journal.note(
            "checkpoint", step=self.attempt.progress.step, save_time_s=time.perf_counter() - start
        )

    def _end_epoch(self) -> None:
        setup, progress = self.attempt.setup, self.attempt.progress
        progress.end_epoch()
        step, time_s = self._epoch_start
        images = (progress.step - step) * min(setup.recipe.batch_size, len(setup.data.train.labels))
        self._epoch_start = (progress.step, progress.train.time_s)
        self.attempt.journal.epoch(
            progress,
            epoch=progress.step / setup.context.steps_per_epoch,
            lr=lr_at(progress.step - 1, setup.schedule),
            val_top1=self._curve_top1(),
            images_per_s=images / (progress.train.time_s - time_s),
        )

    def _curve_top1(self) -> float:
        """Top-1 in percent on a fixed part of the test set, for the curve only: no decision reads it.

        Uses the network that the tricks would evaluate, without their `edit_prediction` (many crops per
        image would cost more than the epoch).
        """
        setup, progress = self.attempt.setup, self.attempt.progress
        labels = setup.data.test.labels
        with progress.evaluation:
            predict = setup.predict(setup.eval_model())
            return evaluate(predict, setup.test_images, labels, curve_subset(len(labels))).top1
