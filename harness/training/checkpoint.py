"""How far a training is, and the complete state of an unfinished run in one file."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from harness.training.environment import EnergyMeter
from harness.training.evaluate import Evaluation
from harness.training.setup import Setup
from harness.training.weights import TensorFileError, read_torch_file, write_torch_file

# How far a training is: the only state of the loop beside the network, the optimizer and the tricks.


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent inside its `with` blocks, over every attempt of a run.

    `settle` waits for the device: what it was given inside a block is counted there, and not in the next one.
    """

    time_s: float = 0.0
    settle: Callable[[], None] | None = None
    _since: float = 0.0

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.settle is not None and kind is None:  # after an error, waiting may raise it again
            self.settle()
        self.time_s += time.perf_counter() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens in this block out of the enclosing one."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    @property
    def running_s(self) -> float:
        """The time so far, read inside a block."""
        return self.time_s + time.perf_counter() - self._since


@dataclass(slots=True, kw_only=True)
class TrainingProgress:
    """Counters and clocks. Losses are summed on the device, so that a step does not wait for it."""

    loss_sum: Tensor  # scalar float64: the training loss of every step since the last epoch ended
    loss_steps: int = 0
    step: int = 0  # optimizer steps made
    train_loss: float | None = None  # mean over the steps of the last epoch that ended
    kept: list[Evaluation] = field(
        default_factory=list
    )  # of the last epochs, where the read-out needs several
    train: Stopwatch = field(default_factory=Stopwatch)  # batches, passes and updates only
    evaluation: Stopwatch = field(default_factory=Stopwatch)
    wall: Stopwatch = field(default_factory=Stopwatch)
    energy: EnergyMeter = field(default_factory=EnergyMeter)
    # Why a GPU is given the steps operator by operator, where they are not replayed; "": there is none.
    eager: str | None = ""
    found_eager: str | None = None  # the same where it was found by trying, by this attempt or an earlier one

    @staticmethod
    def start(device: torch.device) -> TrainingProgress:
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        settle = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
        return TrainingProgress(
            loss_sum=loss_sum, train=Stopwatch(settle=settle), evaluation=Stopwatch(settle=settle)
        )

    def add(self, loss: Tensor) -> None:
        """The loss of a step, on the device."""
        self.loss_sum += loss.detach()

    def count(self) -> None:
        """One step was made."""
        self.step += 1
        self.loss_steps += 1

    def has_diverged(self) -> bool:
        """Whether a loss of this epoch was NaN or infinite; waits for the device."""
        return not bool(torch.isfinite(self.loss_sum))

    def end_epoch(self) -> float:
        """The mean loss of the epoch's steps; starts the next sum."""
        self.train_loss = float(self.loss_sum) / self.loss_steps
        self.loss_sum.zero_()
        self.loss_steps = 0
        return self.train_loss

    def state_dict(self) -> dict[str, Any]:
        return {
            "loss_sum": self.loss_sum.cpu(),
            "loss_steps": self.loss_steps,
            "step": self.step,
            "train_loss": self.train_loss,
            "kept": [each.state_dict() for each in self.kept],
            "train_time_s": self.train.time_s,
            "evaluation_time_s": self.evaluation.time_s,
            "wall_time_s": self.wall.running_s,
            "energy_j": self.energy.joules(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss_sum.copy_(state["loss_sum"])
        self.loss_steps, self.step, self.train_loss = state["loss_steps"], state["step"], state["train_loss"]
        self.kept = [Evaluation(**each) for each in state["kept"]]
        self.train.time_s = state["train_time_s"]
        self.evaluation.time_s = state["evaluation_time_s"]
        self.wall.time_s = state["wall_time_s"]
        self.energy.carried_j = state.get("energy_j")  # of an older version: not measured


# The complete state of an unfinished run in one file, replaced atomically.


CHECKPOINT_SCHEMA = 2


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the run starts again from step 0."""


def save_checkpoint(path: Path, setup: Setup, progress: TrainingProgress) -> None:
    """Write everything that a resumed run needs to make the same bits as one that was never stopped.

    Random generators are not in it: each is a function of the seed and the step.
    """
    write_torch_file(
        path,
        {
            "schema": CHECKPOINT_SCHEMA,
            "run_id": setup.spec.run_id,
            "model": setup.model.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "precision": setup.precision.state_dict(),
            "tricks": {name: state.state_dict() for name, state in setup.states.items()},
            "progress": progress.state_dict(),
        },
    )


def load_checkpoint(path: Path, setup: Setup, progress: TrainingProgress) -> bool:
    """Continue where the file stopped. False: there is no file and nothing was changed.

    Several processes continue with what the first one reads: a file system may show another an older file.

    Raises:
        CheckpointError: the file is damaged or of another run. The setup may be half changed: build it anew.
    """
    file: Path | IO[bytes] = path
    if setup.world.size > 1:
        data = setup.world.tell_bytes(path.read_bytes() if setup.world.is_main and path.exists() else None)
        if data is None:
            return False
        file = io.BytesIO(data)
    elif not path.exists():
        return False
    state = _read(file, setup.spec.run_id)
    try:
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.precision.load_state_dict(state["precision"])
        for name, trick_state in setup.states.items():
            trick_state.load_state_dict(state["tricks"][name])
        progress.load_state_dict(state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit this run: {error}") from error
    return True


def _read(file: Path | IO[bytes], run_id: str) -> dict[str, Any]:
    try:
        state = read_torch_file(file)
    except (OSError, TensorFileError) as error:
        raise CheckpointError(f"the checkpoint cannot be read: {error}") from error
    if not isinstance(state, dict) or state.get("schema") != CHECKPOINT_SCHEMA:
        raise CheckpointError(f"the checkpoint is not of schema {CHECKPOINT_SCHEMA}")
    if state.get("run_id") != run_id:
        raise CheckpointError(f"the checkpoint is of run {state.get('run_id')}, this is run {run_id}")
    return state
