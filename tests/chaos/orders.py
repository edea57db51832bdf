"""What the driver tells the injector, and what that tells the driver: files in a control folder.

control/settings.json    what is watched, and how often runs write a checkpoint
        orders.json      the orders in force; the first that comes due is obeyed, by one process, once
        fired/<number>   who obeyed, and which order it was
        audit.jsonl      every write of every process, in the order in which they were done
        steps/           the first and last step of every attempt at every run
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = "HARNESS_CHAOS"  # the control folder, for every process of a study under test
KILL, NO_SPACE, BROKEN_DISK, DELAY = "kill", "ENOSPC", "EIO", "delay"
SHORT, CUT = "short", "cut"  # a part is written: the caller is told how much, or that it was all
PHASES = ("before", "half", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do at a write point."""

    point: str  # e.g. "write events.jsonl"; "" is any write
    phase: str = "before"  # one of PHASES; half: of the bytes of a write, elsewhere the same as before
    do: str = KILL
    nth: int = 1  # at the n-th such call of a process since the orders were given
    share: float = 0.5  # of the bytes, where the phase is half


@dataclass(frozen=True, slots=True)
class Control:
    """The control folder, seen from the driver."""

    path: Path

    def prepare(self, watch: Path, checkpoint_every_s: float) -> None:
        """Start with nothing ordered and nothing recorded."""
        for name in ("fired", "steps"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        settings = {"watch": str(watch.resolve()), "checkpoint_every_s": checkpoint_every_s}
        self._write("settings.json", settings)
        self.give(0, [])

    def give(self, number: int, orders: Sequence[Order], *, times: int = 1) -> None:
        """Replace all orders; `times` of them are obeyed."""
        data = {"number": number, "times": times, "orders": [asdict(order) for order in orders]}
        self._write("orders.json", data)

    def withdraw(self) -> None:
        """From now on nothing is disturbed."""
        self.give(0, [])

    def fired(self, number: int) -> list[dict[str, Any]]:
        """The orders of this number that were obeyed: pid, point, phase, do, time_s."""
        return self._fired(f"{number}.*")

    def all_fired(self) -> list[dict[str, Any]]:
        """All orders that were obeyed."""
        return self._fired("*")

    def _fired(self, pattern: str) -> list[dict[str, Any]]:
        texts = (file.read_text() for file in sorted((self.path / "fired").glob(pattern)))
        return [json.loads(text) for text in texts if text]

    def audit(self) -> Iterator[dict[str, Any]]:
        """Every write that was done: time_s, pid, op, path (below the watched folder)."""
        file = self.path / "audit.jsonl"
        if file.exists():
            yield from map(json.loads, file.read_text().splitlines())

    def steps(self) -> dict[str, list[dict[str, float]]]:
        """run_id -> its attempts, in the order of time: pid, first, last (steps), last_s."""
        attempts: dict[str, list[dict[str, float]]] = {}
        for file in (self.path / "steps").iterdir():
            run_id, pid, _ = file.name.split(".")
            text = file.read_text().split()
            if len(text) == 4:  # else killed before its first step was noted
                values = dict(zip(("first", "last", "first_s", "last_s"), map(float, text), strict=True))
                attempts.setdefault(run_id, []).append({"pid": int(pid), **values})
        for each in attempts.values():
            each.sort(key=lambda attempt: attempt["first_s"])
        return attempts

    def _write(self, name: str, data: dict[str, Any]) -> None:
        draft = self.path / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(data))
        draft.replace(self.path / name)
