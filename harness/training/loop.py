"""The training loop, and one step of it, which a GPU may replay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

from torch import Tensor

from harness.models import find
from harness.spec import DIVERGED, FINISHED, Stop
from harness.training import optim
from harness.training.checkpoint import TrainingProgress
from harness.training.feed import seed_default
from harness.training.graphs import Replayed, without_graphs
from harness.training.setup import Setup
from harness.tricks.base import Batch, acts_in_steps

INTERRUPTED = "interrupted"
CHECK_EVERY_STEPS = 50  # how often, beside epoch ends, the loss is read to see whether it is still finite

Boundary = Callable[[bool], None]  # after each step, with the clock stopped; True: an epoch ended
IsDue = Callable[[], bool]  # whether the boundary is wanted although no epoch ended


def train(
    setup: Setup,
    progress: TrainingProgress,
    stop: Stop,
    boundary: Boundary,
    is_due: IsDue,
    step: Step | None = None,
) -> str:
    """Train from `progress.step` to the end of the schedule, or until `stop()`: of several processes the
    first one's, so that all of them stop at the same step. `step`: one that made the earlier steps.

    Returns:
        finished, diverged (the training loss became NaN or infinite) or interrupted.
    """
    total_steps, steps_per_epoch = setup.schedule.total_steps, setup.context.steps_per_epoch
    setup.train_mode()
    step = step or Step(setup, progress)
    with progress.train, closing(setup.feed.batches(progress.step, total_steps)) as batches:
        for batch in batches:
            if setup.world.agree(stop):
                return INTERRUPTED
            step.make(batch)
            epoch_ended = progress.step % steps_per_epoch == 0 or progress.step == total_steps
            is_check = epoch_ended or progress.step % CHECK_EVERY_STEPS == 0
            if is_check and progress.has_diverged():
                return DIVERGED
            if epoch_ended or is_due():
                with progress.train.paused():
                    boundary(epoch_ended)
                    setup.train_mode()
    return FINISHED


# One step. What the device does of it is `Step.work` alone: the same operators on the same tensors at
# every step, with the learning rate in a tensor, nothing read back, nothing decided. So a GPU can be told
# once, and then replays it with one call in place of some 400 (`graphs.Replayed`). What changes from
# step to step is done outside, before it: the batch, the learning rate, the seed of dropout.


class Step(Replayed):
    """Makes the steps of one training. `progress.eager` says why it does not replay them."""

    def __init__(self, setup: Setup, progress: TrainingProgress) -> None:
        self.setup, self.progress = setup, progress
        eager = without_graphs(setup.device)
        # On a GPU, recorded or not: the same rate, hence the same bits.
        optim.hold_rates(setup.optimizer, None if eager == "" else setup.device)
        if eager is None:
            eager = progress.found_eager or eager_because(setup)
        super().__init__(eager, setup.device)
        progress.eager = self.eager

    def make(self, batch: Batch) -> None:
        """One update of the parameters; its loss is in `progress.loss_sum`."""
        optim.set_lr(self.setup.optimizer, optim.lr_at(self.progress.step, self.setup.schedule))
        self.begin()
        self(*batch)
        self.progress.count()

    def work(self, *tensors: Tensor) -> None:
        setup, batch = self.setup, Batch(*tensors)
        with setup.precision.forward():
            output = setup.forward(batch.images)
        loss = setup.loss(output, batch)
        setup.precision.backward_and_step(loss, setup.optimizer, setup.clip)
        self.progress.add(setup.average(loss))

    def while_recorded(self) -> AbstractContextManager[None]:
        return optim.capturable(self.setup.optimizer)

    def begin(self) -> None:
        seed_default(self.setup.spec.seed, self.setup.world.stream("layers"), self.progress.step)

    def state(self) -> dict[str, Any]:
        setup = self.setup
        return {
            "model": setup.model.state_dict(),
            "optimizer": [dict(each) for each in setup.optimizer.state.values()],
            "precision": setup.precision.state_dict(),
            "tricks": {name: each.state_dict() for name, each in setup.states.items()},
            "loss_sum": self.progress.loss_sum,
        }

    def put_back(self, state: dict[str, Any]) -> None:
        setup = self.setup
        setup.model.load_state_dict(state["model"])
        for now, then in zip(setup.optimizer.state.values(), state["optimizer"], strict=True):
            for name, value in then.items():
                if isinstance(value, Tensor):
                    now[name].copy_(value)
        setup.precision.load_state_dict(state["precision"])
        for name, each in setup.states.items():
            each.load_state_dict(state["tricks"][name])
        self.progress.loss_sum.copy_(state["loss_sum"])

    def break_off(self) -> None:
        self.setup.optimizer.zero_grad(set_to_none=True)
        self.setup.precision.forget_step()

    def stay_eager(self, why: str) -> None:
        super().stay_eager(why)
        self.progress.eager = self.progress.found_eager = why


def eager_because(setup: Setup) -> str | None:
    """Why the steps of this training cannot be replayed from a recording, in words; None: they can."""
    recipe = setup.recipe
    others = ", ".join(each.name for each in setup.tricks if acts_in_steps(each) and not each.capturable)
    its_own = optim.takes_tensors(setup.optimizer)
    found = {
        "several processes train the run": setup.world.size > 1,
        "its network is compiled": setup.forward is not setup.model,
        f"not known to do the same at every step (capturable): {others}": bool(others),
        f"not known to do the same at every step (capturable): {recipe.model.name}": not find(
            recipe.model.name
        ).capturable,
        "its teacher may be a network of the user's own": setup.context.teacher is not None
        and bool(setup.spec.arm.plugins),
        f"the optimizer {recipe.optimizer}, as it is set, needs the learning rate as a number": not its_own,
        f"the optimizer {recipe.optimizer} leaves out overflows of fp16 on the CPU": recipe.precision
        == "fp16"
        and not optim.skips_by_itself(setup.optimizer),
    }
    return next((why for why, holds in found.items() if holds), None)
