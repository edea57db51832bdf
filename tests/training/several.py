"""Real processes for the tests of training by several: started once, each takes calls as a rank."""

from __future__ import annotations

import multiprocessing as mp
import os
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.runs.folder import RunFolder
from harness.spec import RunSpec
from harness.training.checkpoint import TrainingProgress
from harness.training.loop import train
from harness.training.parallel import World
from harness.training.run import run_one
from harness.training.setup import build
from tests.timing import PATIENCE_S
from tests.training.runs import folder_of, machine_in, stop_after

GONE = object()  # instead of an answer: the process has died


class Several:
    """Calls one function in W processes at once, each with the environment that a launcher gives it."""

    def __init__(self, stores: Path, start: str = "fork") -> None:
        """`start`: how processes are made; "spawn" where they use a GPU."""
        self._stores, self._context = stores, mp.get_context(start)
        self._processes: list[tuple[Any, Connection]] = []

    def __call__(self, processes: int, function: Callable[..., Any], *args: Any, **named: Any) -> list[Any]:
        """The answer of each rank; an exception in one is its answer: the words `Type: message`. None where
        the process died."""
        while len(self._processes) < processes:
            self._processes.append(self._start())
        store = self._stores / uuid.uuid4().hex
        for rank, (_, pipe) in enumerate(self._processes[:processes]):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(processes), "HARNESS_STORE": str(store)}
            pipe.send((environment, function, args, named))
        answers = [_received(pipe) for _, pipe in self._processes[:processes]]
        for answer, (process, _) in zip(answers, self._processes, strict=False):
            if answer is GONE:  # its end of the pipe closes a moment before it has died
                process.join(PATIENCE_S)
        self._processes = [each for each in self._processes if each[0].is_alive()]
        return [None if answer is GONE else answer for answer in answers]

    def close(self) -> None:
        for process, pipe in self._processes:
            pipe.close()
            process.join(PATIENCE_S)

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = mp.Pipe()
        forked = self._context.get_start_method() == "fork"
        inherited = [ours, *(pipe for _, pipe in self._processes)] if forked else []
        process: Any = self._context.Process(target=_serve, args=(theirs, inherited), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        return process, ours


def _serve(pipe: Connection, inherited: list[Connection]) -> None:
    for each in inherited:
        each.close()  # else no end of file would ever come
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    while True:
        try:
            environment, function, args, named = pipe.recv()
        except EOFError:
            os._exit(0)
        os.environ.update(environment)
        try:
            pipe.send(function(*args, **named))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def _received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        return GONE


def rank() -> int:
    return int(os.environ["RANK"])


def machine_of_rank(runs_dir: Path, **changes: Any) -> Any:
    return machine_in(runs_dir, **{"processes": int(os.environ["WORLD_SIZE"]), **changes})


def not_asked() -> bool:
    raise AssertionError("only process 0 is asked whether to stop")


def train_rank(spec: RunSpec, runs_dir: Path, steps: int = 10**9, **machine: Any) -> str:
    """Train (on) a run as one of several; every process but the first is given a folder that it must not
    touch."""
    machine = machine_of_rank(runs_dir, **machine)
    if rank() == 0:
        return run_one(spec, folder_of(spec, runs_dir), machine, stop_after(steps))
    return run_one(spec, RunFolder(runs_dir / "untouched"), machine, not_asked)


def state_of_rank(spec: RunSpec, runs_dir: Path, steps: int, **machine: Any) -> dict[str, Any]:
    """Everything that a process holds after some steps."""
    machine = machine_of_rank(runs_dir, **machine)
    with World.join(machine) as world:
        setup = build(spec, machine, world)
        progress = TrainingProgress.start(setup.device)
        train(setup, progress, stop_after(steps), lambda _: None, lambda: False)
        return {
            "model": dict(setup.model.state_dict()),
            "optimizer": setup.optimizer.state_dict(),
            "precision": setup.precision.state_dict(),
            "tricks": {name: state.state_dict() for name, state in setup.states.items()},
            "loss_sum": progress.loss_sum,
            "step": progress.step,
        }
