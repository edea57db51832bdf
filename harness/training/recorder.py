"""What happens between the steps of a training: the learning curve, kept evaluations, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from harness.study.machine import Machine
from harness.training.checkpoint import save_checkpoint
from harness.training.evaluate import Evaluation, curve_subset, evaluate
from harness.training.journal import UNREADABLE
from harness.training.outcome import Attempt, evaluate_result
from harness.training.schedule import lr_at
from harness.training.setup import READ_OUTS, Setup

CHECKPOINT_SHARE = 0.01  # of the time of a training that saving it may take


def curve_steps(steps_per_epoch: int, points: int) -> frozenset[int]:
    """Steps within an epoch, 1 ... steps_per_epoch, after which the curve has a point: evenly spaced, the end
    of the epoch among them.

    >>> sorted(curve_steps(10, 1)), sorted(curve_steps(10, 4)), sorted(curve_steps(2, 5))
    ([10], [2, 5, 8, 10], [1, 2])
    """
    return frozenset(max(1, round(point * steps_per_epoch / points)) for point in range(1, points + 1))


def is_kept(step: int, *, read_out: str, total_steps: int, steps_per_epoch: int) -> bool:
    """Whether the evaluation at the epoch that ended with this step (the number of steps made) is one of
    several that the read-out needs.

    >>> [step for step in (2, 4, 6, 8, 10, 12, 13)
    ...  if is_kept(step, read_out="median_of_last_5", total_steps=13, steps_per_epoch=2)]
    [6, 8, 10, 12, 13]
    """
    ends_to_come = -(-(total_steps - step) // steps_per_epoch)
    return READ_OUTS[read_out] > max(1, ends_to_come)


def checkpoint_interval_s(machine: Machine, save_time_s: float) -> float:
    """Seconds from one checkpoint to the next, where the last one took `save_time_s` to write.

    A network that takes long to save is saved less often, so that saving stays a hundredth of the time; an
    interval under a second is taken at its word.
    """
    every_s = machine.checkpoint_every_s
    return every_s if every_s < 1 else max(every_s, save_time_s / CHECKPOINT_SHARE)


@dataclass(slots=True)
class Recorder:
    """Does it for one attempt at a run. Of several processes all evaluate, and the first one writes."""

    attempt: Attempt
    setup: Setup
    _curve_steps: frozenset[int] = field(init=False)
    _saved: float = field(default_factory=time.monotonic)
    _save_time_s: float = 0.0
    _epoch_start: tuple[int, float] = field(init=False)  # step, train time

    def __post_init__(self) -> None:
        progress = self.attempt.progress
        self._epoch_start = (progress.step, progress.train.time_s)
        self._curve_steps = curve_steps(self.setup.context.steps_per_epoch, self.setup.recipe.curve_points)

    def is_due(self) -> bool:
        """Whether there is something to do before the epoch ends."""
        self.attempt.progress.energy.tick()
        return self._is_checkpoint_due() or self._is_curve_step()

    def boundary(self, epoch_ended: bool) -> None:
        """After a step, with the clock of training stopped."""
        with self.kept_if_it_fails():
            self._evaluate(epoch_ended)
        if self._is_checkpoint_due():
            self.checkpoint()

    def catch_up(self) -> None:
        """What an earlier attempt could not evaluate after its last step, e.g. for an image that could not be
        read. A point that the curve has already is not written twice."""
        progress, per_epoch = self.attempt.progress, self.setup.context.steps_per_epoch
        at_end = progress.step % per_epoch == 0 or progress.step == self.setup.schedule.total_steps
        if progress.loss_steps:  # else the epoch was closed
            self._evaluate(at_end)

    @contextmanager
    def kept_if_it_fails(self) -> Iterator[None]:
        """Save the trained state where an evaluation fails: after the mend the run goes on from here. What is
        evaluated changes nothing of it before all of it has succeeded."""
        try:
            yield
        except Exception as error:
            if self.setup.world.is_main:
                with suppress(Exception):  # the first error is the one to tell
                    self.checkpoint()
                    self.attempt.journal.note(UNREADABLE, message=str(error))
            raise

    def _evaluate(self, epoch_ended: bool) -> None:
        if epoch_ended:
            self._end_epoch()
        elif self._is_curve_step():
            self._point(self._curve_top1(), train_loss=None, images_per_s=None)

    def checkpoint(self) -> None:
        """Save the complete state of the run."""
        self.attempt.journal.require_folder()
        start = time.perf_counter()
        save_checkpoint(self.attempt.folder.checkpoint, self.setup, self.attempt.progress)
        self._saved, self._save_time_s = time.monotonic(), time.perf_counter() - start
        self.attempt.journal.note(
            "checkpoint", step=self.attempt.progress.step, save_time_s=self._save_time_s
        )

    def _is_checkpoint_due(self) -> bool:
        """Of several processes only the first saves; the others hold the same, and wait at the next step."""
        every_s = checkpoint_interval_s(self.attempt.machine, self._save_time_s)
        return self.setup.world.is_main and time.monotonic() - self._saved >= every_s

    def _is_curve_step(self) -> bool:
        steps_per_epoch = self.setup.context.steps_per_epoch
        return (self.attempt.progress.step - 1) % steps_per_epoch + 1 in self._curve_steps

    def _end_epoch(self) -> None:
        setup, progress = self.setup, self.attempt.progress
        top1, kept = self._curve_top1(), self._kept()
        step, time_s = self._epoch_start
        images = (progress.step - step) * min(setup.recipe.batch_size, len(setup.data.train.labels))
        self._epoch_start = (progress.step, progress.train.time_s)
        images_per_s = images / (progress.train.time_s - time_s) if images else None
        self._point(top1, train_loss=progress.end_epoch(), images_per_s=images_per_s)
        progress.kept += kept

    def _kept(self) -> list[Evaluation]:
        """The evaluation of this epoch, where the read-out needs it."""
        setup, progress = self.setup, self.attempt.progress
        if not is_kept(
            progress.step,
            read_out=setup.recipe.read_out,
            total_steps=setup.schedule.total_steps,
            steps_per_epoch=setup.context.steps_per_epoch,
        ):
            return []
        with progress.evaluation:
            return [evaluate_result(setup)]

    def _point(self, top1: float, *, train_loss: float | None, images_per_s: float | None) -> None:
        """A line of the learning curve; the training loss is that of an epoch, and so at epoch ends only."""
        progress = self.attempt.progress
        self.attempt.journal.epoch(
            progress.step,
            train_loss=train_loss,
            epoch=progress.step / self.setup.context.steps_per_epoch,
            lr=lr_at(progress.step - 1, self.setup.schedule),
            val_top1=top1,
            images_per_s=images_per_s,
        )

    def _curve_top1(self) -> float:
        """Top-1 in percent on a fixed part of the test set, for the curve only: no decision reads it."""
        labels = self.setup.data.test.labels
        with self.attempt.progress.evaluation:
            subset = curve_subset(len(labels))
            return evaluate(self.setup.curve_answers(), labels, subset, world=self.setup.world).top1
