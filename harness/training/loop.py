"""The training loop, and one step of it: operator by operator, or on a GPU as one recorded CUDA graph."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.errors import decided
from harness.models import find
from harness.spec import DIVERGED, FINISHED, Stop
from harness.training import optim
from harness.training.checkpoint import TrainingProgress
from harness.training.feed import seed_default
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


# One step. What the device does of it is `Step._compute` alone: the same operators on the same tensors at
# every step, with the learning rate in a tensor, nothing read back, nothing decided. So a GPU can be told
# once: a CUDA graph is recorded, and then replayed with one call in place of some 400.
#
# What changes from step to step is done outside, before it: the batch, the learning rate, the seed of
# dropout. The steps before the recording are steps of the training, so that nothing has to be undone and no
# random number is drawn twice; and a resumed run records anew.


WARM_UP_STEPS = 3  # in which libraries choose their kernels, which cannot be recorded
CHECKED_STEPS = 2  # in the exact mode: the first replays are compared with the step itself, bit for bit


@dataclass(slots=True)
class Recording:
    """Of the steps on batches of one shape."""

    batch: Batch  # where the graph finds it
    graph: Any = None  # torch.cuda.CUDAGraph
    warmed: int = 0  # steps made before the recording
    checked: int = 0


class Step:
    """Makes the steps of one training. `progress.eager` says why it does not replay them."""

    def __init__(self, setup: Setup, progress: TrainingProgress) -> None:
        self.setup, self.progress = setup, progress
        self._recordings: dict[Any, Recording] = {}
        on_gpu = has_graphs(setup.device)
        progress.eager = eager_because(setup) if on_gpu else ""
        # Recorded or not: the same rate, hence the same bits.
        optim.hold_rates(setup.optimizer, setup.device if on_gpu else None)
        # One for warm-up and recording: memory is kept for each stream.
        self._stream: Any = torch.cuda.Stream() if progress.eager is None else None
        if progress.eager:
            self._stay_eager(progress.eager)

    def make(self, batch: Batch) -> None:
        """One update of the parameters; its loss is in `progress.loss_sum`."""
        setup, progress = self.setup, self.progress
        optim.set_lr(setup.optimizer, optim.lr_at(progress.step, setup.schedule))
        self._seed()
        if progress.eager is None:
            self._replay(batch)
        else:
            self._compute(batch)
        progress.count()

    def _compute(self, batch: Batch) -> None:
        setup = self.setup
        with setup.precision.forward():
            output = setup.forward(batch.images)
        loss = setup.loss(output, batch)
        setup.precision.backward_and_step(loss, setup.optimizer, setup.clip)
        self.progress.add(setup.average(loss))

    def _seed(self) -> None:
        seed_default(self.setup.spec.seed, self.setup.world.stream("layers"), self.progress.step)

    def _replay(self, batch: Batch) -> None:
        form = tuple((each.shape, each.dtype) for each in batch)
        if form not in self._recordings:
            self._recordings[form] = Recording(Batch(*map(torch.empty_like, batch)))
        recording = self._recordings[form]
        for place, new in zip(recording.batch, batch, strict=True):
            place.copy_(new)
        if recording.warmed < WARM_UP_STEPS:
            recording.warmed += 1
            beside(self._stream, partial(self._compute, recording.batch))
            return
        if recording.graph is None:
            self._record(recording)
            self._seed()  # which may have drawn
        if recording.graph is None:
            self._compute(recording.batch)
        elif recording.checked < CHECKED_STEPS and torch.are_deterministic_algorithms_enabled():
            self._check(recording)
        else:
            recording.graph.replay()

    def _record(self, recording: Recording) -> None:
        """What is recorded is not done; where that fails, nothing has changed."""
        graph, stream, optimizer = torch.cuda.CUDAGraph(), self._stream, self.setup.optimizer
        try:
            # The outer block leaves the stream again also where the inner one cannot.
            with (
                optim.capturable(optimizer),
                torch.cuda.stream(stream),
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                self._compute(recording.batch)
        except RuntimeError as error:
            optimizer.zero_grad(set_to_none=True)
            self.setup.precision.forget_step()
            self._stay_eager(
                f"a step cannot be recorded ({(str(error).strip().splitlines() or [''])[0]:.200})"
            )
        else:
            recording.graph = graph

    def _check(self, recording: Recording) -> None:
        """Replay the step, take it back, and make it: what was made counts, and must be what was replayed."""
        recording.checked += 1
        before = self._state()
        recording.graph.replay()
        replayed = self._state()
        self._put_back(before)
        self._seed()
        self._compute(recording.batch)
        if not _same(replayed, self._state()):
            self._stay_eager("a replayed step left other bits than the step itself")

    def _stay_eager(self, why: str) -> None:
        self.progress.eager = why
        self._recordings.clear()
        decided(f"steps are given to the GPU operator by operator: {why}")

    def _state(self) -> dict[str, Any]:
        """A copy of all that a step changes."""
        setup = self.setup
        return copy.deepcopy(
            {
                "model": setup.model.state_dict(),
                "optimizer": [dict(each) for each in setup.optimizer.state.values()],
                "precision": setup.precision.state_dict(),
                "tricks": {name: each.state_dict() for name, each in setup.states.items()},
                "loss_sum": self.progress.loss_sum,
            }
        )

    def _put_back(self, state: dict[str, Any]) -> None:
        """Into the same memory, where the graph finds it."""
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


def has_graphs(device: torch.device) -> bool:
    """Whether the device can be told a step once."""
    return device.type == "cuda"


def beside(stream: Any, work: Callable[[], None]) -> None:
    """Work on this stream, as torch asks for before a recording (torch.cuda.graph)."""
    current = torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        work()
    current.wait_stream(stream)


def eager_because(setup: Setup) -> str | None:
    """Why the steps of this training cannot be replayed from a recording, in words; None: they can."""
    recipe = setup.recipe
    others = ", ".join(each.name for each in setup.tricks if acts_in_steps(each) and not each.capturable)
    its_own = optim.takes_tensors(setup.optimizer)
    found = {
        "HARNESS_GRAPHS is 0": os.environ.get("HARNESS_GRAPHS") == "0",
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


def _same(a: Any, b: Any) -> bool:
    """Equal structure, and equal bits in every tensor (or NaN in both)."""
    if isinstance(a, Tensor):
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
