"""Runs one after another in this process: breakpoints work, nothing is hidden in another process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.scheduling.attempt import attempt, finished_in, record
from harness.scheduling.base import Job, Progress, RunOne, Watch
from harness.scheduling.interrupts import Interrupts
from harness.scheduling.queue import JobQueue
from harness.study.machine import Machine

WATCH_EVERY_S = 1.0


class Inline:
    """Executes jobs in the calling process, in the order of `JobQueue`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. The first Ctrl-C asks the running job to checkpoint, the second breaks it off.

        Raises:
            ValueError: a run is given twice, or jobs need each other in a circle.
        """
        queue = JobQueue(jobs, finished_in(self.machine.runs_dir))
        with Interrupts(raise_on_second=True) as interrupts:
            session = _Session(queue, self.machine, watch, interrupts)
            try:
                session.run(run_one)
            except KeyboardInterrupt:  # a second Ctrl-C, or one that run_one itself received
                queue.interrupt()
                session.tell()
        return {run_id: queue.ended[run_id] for run_id in queue.jobs}


class _Session:
    def __init__(self, queue: JobQueue, machine: Machine, watch: Watch, interrupts: Interrupts) -> None:
        self.queue, self.machine, self.watch, self.interrupts = queue, machine, watch, interrupts
        self.told_s = 0.0

    def run(self, run_one: RunOne) -> None:
        self.record_refusals()
        while not self.interrupts.count and (run_id := self.queue.take()) is not None:
            self.tell()
            spec = self.queue.jobs[run_id].spec
            self.queue.end(run_id, attempt(run_one, spec, self.machine, self.stop))
            self.record_refusals()
        self.queue.interrupt()
        self.tell()

    def stop(self) -> bool:
        """What the running job asks at each step; the only moment at which the watcher can be told."""
        if time.monotonic() - self.told_s >= WATCH_EVERY_S:
            self.tell()
        return self.interrupts.count > 0

    def tell(self) -> None:
        self.told_s = time.monotonic()
        queue = self.queue
        self.watch(Progress(waiting=queue.waiting, running=tuple(queue.running), ended=dict(queue.ended)))

    def record_refusals(self) -> None:
        for run_id, message in self.queue.pop_refusals():
            record(self.machine.runs_dir, run_id, "failed", message=message)
