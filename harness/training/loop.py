"""The training loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from harness.spec import DIVERGED, FINISHED, Stop
from harness.training.checkpoint import TrainingProgress
from harness.training.feed import seed_default
from harness.training.optim import lr_at, set_lr
from harness.training.setup import Setup

INTERRUPTED = "interrupted"
CHECK_EVERY_STEPS = 50  # how often, beside epoch ends, the loss is read to see whether it is still finite

Boundary = Callable[[bool], None]  # after each step, with the clock stopped; True: an epoch ended
IsDue = Callable[[], bool]  # whether the boundary is wanted although no epoch ended


def train(setup: Setup, progress: TrainingProgress, stop: Stop, boundary: Boundary, is_due: IsDue) -> str:
    """Train from `progress.step` to the end of the schedule, or until `stop()`: of several processes the
    first one's, so that all of them stop at the same step.

    Returns:
        finished, diverged (the training loss became NaN or infinite) or interrupted.
    """
    total_steps, steps_per_epoch = setup.schedule.total_steps, setup.context.steps_per_epoch
    setup.train_mode()
    with progress.train, closing(setup.feed.batches(progress.step, total_steps)) as batches:
        for batch in batches:
            if setup.world.agree(stop):
                return INTERRUPTED
            set_lr(setup.optimizer, lr_at(progress.step, setup.schedule))
            seed_default(setup.spec.seed, setup.world.stream("layers"), progress.step)
            with setup.precision.forward():
                output = setup.forward(batch.images)
            loss = setup.loss(output, batch)
            setup.precision.backward_and_step(loss, setup.optimizer, setup.clip)
            progress.count(setup.average(loss))
            epoch_ended = progress.step % steps_per_epoch == 0 or progress.step == total_steps
            is_check = epoch_ended or progress.step % CHECK_EVERY_STEPS == 0
            if is_check and progress.has_diverged():
                return DIVERGED
            if epoch_ended or is_due():
                with progress.train.paused():
                    boundary(epoch_ended)
                    setup.train_mode()
    return FINISHED
