"""Runs one after another in this process: breakpoints work, nothing is hidden in another process."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from functools import partial

from harness.scheduling.attempt import attempt, finished_in
from harness.scheduling.base import Job, Progress, RunOne, Watch
from harness.scheduling.claimed import ClaimedQueue, want
from harness.scheduling.interrupts import Interrupts
from harness.scheduling.queue import JobQueue
from harness.study.machine import Machine
from harness.study.records import ENDED
from harness.study.run_claims import Claims

WATCH_EVERY_S = 1.0
MOST_DEATHS = 3  # in a row, of the process that trained a run; here the process is the user's own


class Inline:
    """Executes jobs in the calling process, in the order of `JobQueue`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. The first Ctrl-C asks the running job to checkpoint, the second breaks it off.

        A run that another process trains is waited for; an earlier request to cancel one of the jobs is taken
        back.

        Raises:
            ValueError: a run is given twice, or jobs need each other in a circle.
        """
        runs_dir = self.machine.runs_dir
        queue = JobQueue(jobs, finished_in(runs_dir))
        want(queue, runs_dir)
        with Interrupts(raise_on_second=True) as interrupts, Claims(runs_dir) as claims:
            runs = ClaimedQueue(queue, claims, runs_dir, since_s=time.time(), most_deaths=MOST_DEATHS)
            session = _Session(runs, self.machine, watch, interrupts)
            try:
                session.run(run_one)
            except KeyboardInterrupt:  # a second Ctrl-C, or one that run_one itself received
                queue.interrupt()
                session.tell()
        return {run_id: queue.ended[run_id] for run_id in queue.jobs}


class _Session:
    def __init__(self, runs: ClaimedQueue, machine: Machine, watch: Watch, interrupts: Interrupts) -> None:
        self.runs, self.machine, self.watch, self.interrupts = runs, machine, watch, interrupts
        self.told_s = 0.0

    def run(self, run_one: RunOne) -> None:
        self.runs.record_refusals()
        while not (self.runs.queue.done or self.interrupts.count):
            run_id = self.runs.take()
            self.runs.record_refusals()
            self.tell()
            if run_id is not None:
                self.execute(run_id, run_one)
            elif not self.runs.queue.done:  # what is left is others'
                select.select([self.interrupts.wake_fd], [], [], min(self.runs.pause_s, WATCH_EVERY_S))
        self.runs.queue.interrupt()
        self.tell()

    def execute(self, run_id: str, run_one: RunOne) -> None:
        spec = self.runs.queue.jobs[run_id].spec
        status = attempt(run_one, spec, self.machine, partial(self.stop, run_id))
        if self.runs.claims.is_withdrawn(run_id) and status not in ENDED:
            self.runs.withdraw(run_id)
        else:
            self.runs.end(run_id, status)
        self.runs.record_refusals()

    def stop(self, run_id: str) -> bool:
        """What the running job asks at each step; the only moment at which the watcher can be told."""
        if time.monotonic() - self.told_s >= WATCH_EVERY_S:
            self.tell()
        return self.interrupts.count > 0 or self.runs.claims.is_withdrawn(run_id)

    def tell(self) -> None:
        self.told_s = time.monotonic()
        queue, notes = self.runs.queue, self.runs.notes
        self.watch(
            Progress(
                waiting=queue.waiting,
                running=tuple(queue.running),
                ended=dict(queue.ended),
                note="\n".join(notes),
            )
        )
        notes.clear()
