"""Which job goes next, and what the end of one job means for the others. Plain data, no processes."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from harness.scheduling.base import INTERRUPTED, Job
from harness.study.records import FAILED, FINISHED


class Refusal(NamedTuple):
    """A job that fails without being started, and why."""

    run_id: str
    message: str


class JobQueue:
    """Every job is waiting, running or ended; each ends once, with one status.

    A job is ready when everything it needs has ended `finished`. Among the ready, the one with the longest
    chain goes first: its own cost plus the costliest line of jobs that wait for it. For jobs that need
    nothing this is longest first (Graham 1969, Sec. 3); a cheap teacher of costly students is not left to
    the end. Ties keep the order in which the jobs were given.
    """

    def __init__(self, jobs: Sequence[Job], has_finished: Callable[[str], bool]) -> None:
        """`has_finished` answers for needed runs that are not among `jobs` (an earlier session's).

        Raises:
            ValueError: a run is given twice, or jobs need each other in a circle.
        """
        self.jobs: Mapping[str, Job] = _by_run_id(jobs)
        self.running: dict[str, None] = {}  # run_ids in order of starting
        self.ended: dict[str, str] = {}  # run_id -> status
        self.postponed: dict[str, None] = {}  # run_ids that were taken and are to be looked at again
        self._refusals: list[Refusal] = []
        self._ready: list[tuple[float, int, str]] = []
        self._open_needs = {run_id: set(job.needs) & self.jobs.keys() for run_id, job in self.jobs.items()}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        for run_id, needs in self._open_needs.items():
            for need in needs:
                self._dependents[need].append(run_id)
        self._length = _chain_lengths(self.jobs, self._open_needs, self._dependents)
        self._position = {run_id: position for position, run_id in enumerate(self.jobs)}
        for run_id, job in self.jobs.items():
            self._admit(run_id, job, has_finished)

    @property
    def waiting(self) -> int:
        """How many jobs are neither running nor ended; the postponed are among them."""
        return len(self.jobs) - len(self.running) - len(self.ended)

    @property
    def done(self) -> bool:
        """Whether every job has ended."""
        return len(self.ended) == len(self.jobs)

    @property
    def has_ready(self) -> bool:
        """Whether `take` would give a run."""
        return any(run_id not in self.ended for _, _, run_id in self._ready)

    def take(self) -> str | None:
        """The run to start now, or None while nothing is ready."""
        while self._ready:
            run_id = heapq.heappop(self._ready)[2]
            if run_id not in self.ended:
                self.running[run_id] = None
                return run_id
        return None

    def put_back(self, run_id: str) -> None:
        """A running job is ready again: its worker died and the run is to be retried."""
        del self.running[run_id]
        self._push(run_id)

    def postpone(self, run_id: str) -> None:
        """A running job is another's for now; it waits until `recall`."""
        del self.running[run_id]
        self.postponed[run_id] = None

    def recall(self) -> None:
        """Every postponed job is ready again."""
        for run_id in self.postponed:
            self._push(run_id)
        self.postponed.clear()

    def end(self, run_id: str, status: str) -> None:
        """A running job has ended. Jobs that need it become ready, or end with it."""
        del self.running[run_id]
        self.ended[run_id] = status
        for dependent in self._dependents[run_id]:
            if status == FINISHED:
                self._open_needs[dependent].discard(run_id)
                if not self._open_needs[dependent] and dependent not in self.ended:
                    self._push(dependent)
            elif status == INTERRUPTED:
                self._end_dependents(dependent, INTERRUPTED, "")
            else:
                self._end_dependents(dependent, FAILED, self._because(dependent, run_id, status))

    def interrupt(self) -> None:
        """Everything that has not ended is interrupted."""
        for run_id in self.jobs:
            self.ended.setdefault(run_id, INTERRUPTED)
        self.running.clear()
        self.postponed.clear()

    def pop_refusals(self) -> list[Refusal]:
        """The jobs refused since the last call, so that the reason is recorded once."""
        refusals, self._refusals = self._refusals, []
        return refusals

    def _admit(self, run_id: str, job: Job, has_finished: Callable[[str], bool]) -> None:
        absent = [need for need in job.needs if need not in self.jobs and not has_finished(need)]
        if absent:
            verb = "has not finished and is not among the jobs"
            self._end_dependents(run_id, FAILED, self._because(run_id, absent[0], verb))
        elif not self._open_needs[run_id] and run_id not in self.ended:
            self._push(run_id)

    def _because(self, run_id: str, need: str, verb: str) -> str:
        role = "its teacher" if need == self.jobs[run_id].spec.teacher_run_id else "a run it needs"
        said = {FAILED: "failed"}.get(verb, verb)
        return f"not started: {role}, {need}, {said}"

    def _end_dependents(self, run_id: str, status: str, message: str) -> None:
        """End a waiting job and, in turn, all that wait for it."""
        reasons = [(run_id, message)]
        while reasons:
            run_id, message = reasons.pop()
            if run_id in self.ended:
                continue
            self.ended[run_id] = status
            if status == FAILED:
                self._refusals.append(Refusal(run_id, message))
            for dependent in self._dependents[run_id]:
                reasons.append((dependent, self._because(dependent, run_id, status)))

    def _push(self, run_id: str) -> None:
        heapq.heappush(self._ready, (-self._length[run_id], self._position[run_id], run_id))


def _by_run_id(jobs: Sequence[Job]) -> dict[str, Job]:
    by_id: dict[str, Job] = {}
    for job in jobs:
        run_id = job.run_id  # a hash of the whole spec: computed once per job
        if run_id in by_id:
            raise ValueError(f"run {run_id} is given twice; a plan lists each run once")
        by_id[run_id] = job
    return by_id


def _chain_lengths(
    jobs: Mapping[str, Job], needs: Mapping[str, set[str]], dependents: Mapping[str, list[str]]
) -> dict[str, float]:
    """run_id -> its cost plus the costliest chain of jobs that wait for it, in the unit of `Job.cost`."""
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise ValueError(f"jobs need each other in a circle: {' -> '.join(error.args[1])}") from None
    length: dict[str, float] = {}
    for run_id in reversed(order):
        after = (length[dependent] for dependent in dependents.get(run_id, ()))
        length[run_id] = jobs[run_id].cost + max(after, default=0.0)
    return length
