"""The queue of one process among several that may work on the same runs: what it takes, nobody else has.

A run is looked at when it is its turn: another process may have ended it, may hold it, or may have died with
it. What others hold is postponed and looked at again, until it has ended or its holder is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.scheduling.attempt import record, record_refused
from harness.scheduling.base import INTERRUPTED
from harness.scheduling.queue import JobQueue
from harness.study.holders import BEAT_S, Holder, is_cancelled
from harness.study.records import FAILED, RunFolder
from harness.study.run_claims import LOST, Claims, Held, clear_cancel

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
        self.notes: list[str] = []  # for the watcher, who clears them
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
        if events and events[-1]["kind"] == "rank_died":  # of several processes one: it says why
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
