"""Which job goes next, what the end of one means for the others, and what this process has claimed."""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from harness.runs.claims import LOST, Claims, Held, clear_cancel
from harness.runs.folder import BEAT_S, Holder, RunFolder, is_cancelled, record, record_refused
from harness.scheduling.base import INTERRUPTED, Job, Progress
from harness.spec import ENDED, FAILED, FINISHED

# Which job goes next, and what the end of one job means for the others. Plain data, no processes.


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
        role = (
            "its teacher"
            if need == getattr(self.jobs[run_id].spec, "teacher_run_id", None)
            else "a run it needs"
        )
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


def in_this_order(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, what they need first, with costs by which every queue takes them in just this order: of
    two that are ready, the one that is given earlier has the longer chain."""
    ids = [job.run_id for job in jobs]
    length = {run_id: float(len(jobs) - place) for place, run_id in enumerate(ids)}
    after: dict[str, float] = {}
    for run_id, job in zip(ids, jobs, strict=True):
        for need in job.needs:
            after[need] = max(after.get(need, 0.0), length[run_id])
    return [
        dataclasses.replace(job, cost=length[run_id] - after.get(run_id, 0.0))
        for run_id, job in zip(ids, jobs, strict=True)
    ]


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


# The queue of one process among several that may work on the same runs: what it takes, nobody else has.
#
# A run is looked at when it is its turn: another process may have ended it, may hold it, or may have died
# with it. What others hold is postponed and looked at again, until it has ended or its holder is gone.


SOONEST_S = 0.25  # after which what others hold is looked at again; the pause doubles while nothing changes
PROGRESS = frozenset({"epoch", "checkpoint"})  # events that say how far a run has come


class ClaimedQueue:
    """`JobQueue` and `Claims` as one: a run that is running here is claimed, one that has ended released."""

    def __init__(
        self, queue: JobQueue, claims: Claims, runs_dir: Path, *, since_s: float, most_deaths: int
    ) -> None:
        """A run that failed after `since_s` (seconds since 1970) is not tried again; one whose process died
        `most_deaths` times in a row, on whichever machines, is given up."""
        self.queue, self.claims = queue, claims
        self.held: dict[str, Held] = {}  # run_id -> who had it when it was last looked at
        self.notes: list[str] = []  # for the watcher, told once
        self._told: set[str] = set()
        self._runs_dir, self._since_s, self._most_deaths = runs_dir, since_s, most_deaths
        self._deaths: dict[str, tuple[int, int]] = {}  # run_id -> events before its last death, deaths
        self.pause_s = SOONEST_S  # between two looks at what others hold
        self._look_again_s = time.monotonic()

    def take(self) -> str | None:
        """The run to start now, or None while nothing is ready that others do not hold."""
        self._recall()
        while (run_id := self.queue.take()) is not None:
            if self._is_ours(run_id):
                return run_id
        return None

    def end(self, run_id: str, status: str) -> None:
        """A run has ended here."""
        self.claims.release(run_id)
        self.queue.end(run_id, status)

    def stopped(self, run_id: str, status: str) -> None:
        """What trained a run has come back with this status, perhaps because the run is not wanted here."""
        if self.claims.is_withdrawn(run_id) and status not in ENDED:
            self.withdraw(run_id)
        else:
            self.end(run_id, status)

    def progress(self) -> Progress:
        """What the watcher is to know now; a note is told once."""
        queue, note = self.queue, "\n".join(self.notes)
        self.notes.clear()
        return Progress(
            waiting=queue.waiting, running=tuple(queue.running), ended=dict(queue.ended), note=note
        )

    def withdraw(self, run_id: str) -> None:
        """A run stopped because it is no longer wanted here: another has it, or somebody cancelled it."""
        if self.claims.withdrawn().get(run_id) == LOST:
            self.claims.release(run_id)
            self.queue.postpone(run_id)
        else:
            self.end(run_id, INTERRUPTED)

    def died(self, run_id: str, message: str, **values: Any) -> bool:
        """Record the death of the process that trained a run. True: it may be tried again; False: given up.

        Where the record cannot be written, this process counts on its own.
        """
        events, most = self._folder(run_id).read_events(), self._most_deaths
        if events and events[-1]["kind"] in ("rank_died", "device_lost"):  # it says why
            message = f"{events[-1]['message']}; {message}"
        known, deaths = self._deaths.get(run_id, (-1, 0))
        deaths = 1 + (deaths if len(events) == known else deaths_in_a_row(events))
        self._deaths[run_id] = len(events), deaths
        record(
            self._runs_dir, run_id, "worker_died", message=message, attempt=deaths, attempts=most, **values
        )
        if deaths < most:
            self.notes.append(f"run {run_id}: {message}; the run is retried (attempt {deaths + 1} of {most})")
            return True
        message = f"{message}; given up after {deaths} attempts without progress"
        record(self._runs_dir, run_id, "failed", message=message)
        self.notes.append(f"run {run_id}: {message}")
        return False

    def last_words(self, run_id: str) -> str:
        """The message of the run's last event."""
        events = self._folder(run_id).read_events()
        return str(events[-1].get("message", "")) if events else ""

    def record_refusals(self) -> None:
        """Write down why runs were refused that need one that failed."""
        for run_id, message in self.queue.pop_refusals():
            record_refused(self._runs_dir, run_id, message)

    def _is_ours(self, run_id: str) -> bool:
        if self.claims.holds(run_id):  # a second attempt
            return True
        summary = self._folder(run_id).read_summary()
        if summary is not None:
            self._ended_elsewhere(run_id, summary["status"])
            return False
        try:
            answer = self.claims.take(run_id)
        except OSError as error:
            message = f"cannot be claimed: {type(error).__name__}: {error}"
            record_refused(self._runs_dir, run_id, message)
            self.queue.end(run_id, FAILED)
            return False
        if isinstance(answer, Held):
            self._postpone(run_id, answer)
            return False
        status = self._status(run_id) or self._bury(run_id, answer.after)
        if status is not None:
            self._ended_elsewhere(run_id, status)
            return False
        self.held.pop(run_id, None)
        return True

    def _status(self, run_id: str) -> str | None:
        """That of a run, seen by who holds it; None: it is to be trained."""
        folder = self._folder(run_id)
        summary = folder.read_summary()
        if summary is not None:
            return str(summary["status"])
        if is_cancelled(folder):
            return INTERRUPTED
        events = folder.read_events()
        failed = bool(events) and events[-1]["kind"] == FAILED and events[-1]["time_s"] >= self._since_s
        return FAILED if failed else None

    def _bury(self, run_id: str, after: Holder | None) -> str | None:
        """Record that the last holder died with the run. FAILED where that was once too often."""
        if after is None:
            return None
        values = {"pid": after.pid, "host": after.host, "job": after.job}
        return None if self.died(run_id, f"its {after.place} is gone", **values) else FAILED

    def _ended_elsewhere(self, run_id: str, status: str) -> None:
        self.end(run_id, status)
        if self.held.pop(run_id, None) is not None:
            self.pause_s = SOONEST_S

    def _postpone(self, run_id: str, answer: Held) -> None:
        if answer.holder is None:
            note = f"run {run_id} cannot be claimed yet ({answer.problem})"
        else:
            note = f"{answer.holder.place} trains some of these runs too; waiting for it"
        if note not in self._told:  # once for each process, not for each of its runs
            self._told.add(note)
            self.notes.append(note)
        self.held[run_id] = answer
        self.queue.postpone(run_id)

    def _recall(self) -> None:
        now_s = time.monotonic()
        if self.queue.postponed and now_s >= self._look_again_s:
            self.queue.recall()
            self._look_again_s = now_s + self.pause_s
            self.pause_s = min(2 * self.pause_s, BEAT_S)

    def _folder(self, run_id: str) -> RunFolder:
        return RunFolder(self._runs_dir / run_id)


def want(queue: JobQueue, runs_dir: Path) -> None:
    """Take back earlier requests to cancel these runs: whoever asks for a run last, decides."""
    for run_id in queue.jobs:
        clear_cancel(RunFolder(runs_dir / run_id))


def deaths_in_a_row(events: Sequence[dict[str, Any]]) -> int:
    """How many processes died with a run since it last came further, failed or began anew.

    >>> died, at = {"kind": "worker_died"}, lambda step: {"kind": "checkpoint", "step": step}
    >>> deaths_in_a_row([died, at(5), died, at(5), died]), deaths_in_a_row([died, died, at(9)])
    (2, 0)
    """
    deaths, furthest = 0, -1
    for event in events:
        kind = event.get("kind")
        if kind == "worker_died":
            deaths += 1
        elif kind == FAILED:
            deaths = 0
        elif kind == "checkpoint_refused":
            furthest = -1  # it starts again from step 0
        elif kind in PROGRESS and event.get("step", 0) > furthest:
            furthest, deaths = event["step"], 0
    return deaths


def last_step(events: Sequence[dict[str, Any]]) -> int:
    """How far a run has come, in steps, as its events say."""
    steps = [event["step"] for event in events if event.get("kind") in PROGRESS and "step" in event]
    return max(steps, default=0)
