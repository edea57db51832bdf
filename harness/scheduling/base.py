"""One interface for every place where runs are executed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.study.machine import Machine, Stop
from harness.study.records import RunFolder
from harness.study.spec import RunSpec

INTERRUPTED = "interrupted"  # beside the outcomes in study.records: stopped, resumable

RunOne = Callable[[RunSpec, RunFolder, Machine, Stop], str]
"""Trains (or resumes) one run and returns its status: finished, diverged, failed or interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to execute, and the runs that must have finished before it."""

    spec: RunSpec
    needs: tuple[str, ...] = ()
    cost: float = 0.0  # any unit; the longest go first

    @property
    def run_id(self) -> str:
        return self.spec.run_id


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a watcher sees: called at every change and at least once a second."""

    waiting: int
    running: tuple[str, ...]
    ended: dict[str, str] = field(default_factory=dict)  # run_id -> status
    note: str = ""  # e.g. "worker 4711 was killed; run ab12 is retried (2 of 3)"
    queue: str = ""  # of a cluster, e.g. "3 agents, 13 queued (Priority)"


Watch = Callable[[Progress], None]


class Scheduler(Protocol):
    """Executes jobs somewhere. Returns when all have ended or when the user interrupts."""

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. Never raises for a failing run."""
        ...
