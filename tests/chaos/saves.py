"""A process that does nothing but save checkpoints, killed while it does: can the file always be read?

Run as `python -m tests.chaos.saves FOLDER KILLS SEED`; prints one line of JSON. The saving process is a fork,
so that a kill costs milliseconds. Every tensor of a checkpoint holds the number of its save, so that a file
put together from two of them would be seen.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.runs.folder import RunFolder
from harness.training.checkpoint import CheckpointError, TrainingProgress, load_checkpoint, save_checkpoint
from harness.training.setup import Setup, build
from tests.chaos import patches
from tests.chaos.injector import Injector
from tests.chaos.orders import PHASES, Control, Order
from tests.training.runs import machine_in, tiny_spec

OPERATIONS = ("open", "write", "write", "fsync", "replace")  # writes twice: at any byte
LONGEST_S = 0.05  # before a kill at any time
HANGS_S = 600.0


@dataclass(slots=True)
class Saver:
    """Forks the saving process, and reads what it left."""

    base: Path
    rng: random.Random
    setup: Setup
    folder: RunFolder
    kills: int = 0
    last: int = 0  # the newest save that a process had finished when it was killed
    unreadable: list[str] = field(default_factory=list)

    @staticmethod
    def create(base: Path, seed: int) -> Saver:
        spec, runs_dir = tiny_spec("ema"), base / "work" / "runs"
        folder = RunFolder(runs_dir / spec.run_id)
        folder.path.mkdir(parents=True)
        Control(base / "control").prepare(base / "work", 1.0)
        return Saver(base, random.Random(seed), build(spec, machine_in(runs_dir)), folder)

    def kill_once(self) -> None:
        """One saving process: at a write point for two of three kills, else at any time."""
        self.kills += 1
        at_a_point = self.kills % 3 != 0
        orders = [self._order()] if at_a_point else []
        Control(self.base / "control").give(self.kills, orders)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            self._save_for_ever(writer)
        os.close(writer)
        os.read(reader, 8)  # its first save
        if not at_a_point:
            time.sleep(self.rng.uniform(0, LONGEST_S))
            os.kill(child, signal.SIGKILL)
        said = b""
        while data := os.read(reader, 1 << 16):
            said += data
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            self.unreadable.append(f"kill {self.kills}: the saving process ended by itself")
        done = struct.unpack("q", said[-8:])[0] if said else self.last + 1
        self._check(done)

    def _order(self) -> Order:
        operation = self.rng.choice(OPERATIONS)
        phase = self.rng.choice(PHASES)
        point = f"{operation} checkpoint.pt"
        return Order(point=point, phase=phase, nth=self.rng.randint(2, 6), share=self.rng.random())

    def _save_for_ever(self, writer: int) -> None:
        signal.alarm(int(HANGS_S))
        patches.install(Injector(self.base / "control"))
        progress = TrainingProgress.start(self.setup.device)
        for number in itertools.count(self.last + 1):
            fill(self.setup, number)
            progress.step = number
            save_checkpoint(self.folder.checkpoint, self.setup, progress)
            os.write(writer, struct.pack("q", number))

    def _check(self, done: int) -> None:
        progress = TrainingProgress.start(self.setup.device)
        try:
            found = load_checkpoint(self.folder.checkpoint, self.setup, progress)
        except CheckpointError as error:
            self.unreadable.append(f"kill {self.kills}: {error}")
            return
        if not found or progress.step not in (done, done + 1):
            self.unreadable.append(f"kill {self.kills}: save {done} was done, the file has {progress.step}")
        elif not is_filled(self.setup, progress.step):
            self.unreadable.append(f"kill {self.kills}: the file is a mixture")
        self.last = progress.step


def fill(setup: Setup, number: int) -> None:
    """Let every parameter and every average be this number."""
    with torch.no_grad():
        for tensor in _tensors(setup):
            tensor.fill_(number)


def is_filled(setup: Setup, number: int) -> bool:
    return all(bool((tensor == number).all()) for tensor in _tensors(setup))


def _tensors(setup: Setup) -> list[torch.Tensor]:
    return [*setup.model.parameters(), *setup.states["ema"].state_dict()["average"].values()]


def main(base: Path, kills: int, seed: int) -> None:
    saver = Saver.create(base, seed)
    for _ in range(kills):
        saver.kill_once()
    print(json.dumps({"kills": saver.kills, "saves": saver.last, "unreadable": saver.unreadable}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
