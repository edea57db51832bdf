"""Hands claimed runs to the workers of a pool until nothing is left for this process, or a signal comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.scheduling.base import INTERRUPTED, Progress, Watch
from harness.scheduling.claimed import ClaimedQueue
from harness.scheduling.interrupts import Arrival, Interrupts
from harness.scheduling.pool import Died, Event, Pool
from harness.scheduling.worker import Ended, Ready
from harness.study.records import ENDED, FAILED

WATCH_EVERY_S = 1.0
KILLED_S = 5.0  # the time a killed worker may take to disappear
WITHDRAWN_S = 60.0  # the time a run that is no longer wanted may take to come to a step

Patience = Callable[[Sequence[Arrival]], float]
"""The `time.monotonic` until which runs may checkpoint, from the signals that have come: at least one."""


@dataclass(slots=True, kw_only=True)
class Session:
    """One call of `execute`, or one life of an agent."""

    runs: ClaimedQueue
    pool: Pool
    interrupts: Interrupts
    watch: Watch
    patience: Patience
    lingers: bool = True  # waits for runs that others hold; else leaves once these were seen to live
    _told_preload: bool = False
    _asked_s: dict[str, float] = field(default_factory=dict)  # withdrawn run -> when it was asked to stop

    def run(self) -> None:
        """Until all runs have ended, all that is left is others' (see `lingers`), or a signal has come.

        Then nothing is running here any more, unless not even SIGKILL ends it.
        """
        self.runs.record_refusals()
        self._tell()
        while self._has_more() and not self.interrupts.count:
            self._dispatch()
            self._tell()
            self._take_events(WATCH_EVERY_S if self.runs.queue.running else self.runs.pause_s)
        if self.interrupts.count and not self.runs.queue.done:
            self._wind_down()
        self._tell()

    def _has_more(self) -> bool:
        queue = self.runs.queue
        if queue.done or self.lingers or queue.running or queue.has_ready:
            return not queue.done
        return not all(self.runs.held[run_id].beats for run_id in queue.postponed)

    def _dispatch(self) -> None:
        while self.pool.has_idle and not self.interrupts.count and (run_id := self.runs.take()) is not None:
            died = self.pool.give(self.runs.queue.jobs[run_id].spec, run_id)
            if died is not None:
                self._on_death(died)
        self.runs.record_refusals()

    def _take_events(self, timeout_s: float) -> None:
        """Sleep until something has happened and account for it."""
        events = self.pool.wait(timeout_s, self.interrupts.wake_fd)
        self.interrupts.drain()
        for event in events:
            self._on_event(event)
        self._stop_withdrawn()
        self.runs.record_refusals()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Ended):
            self._on_end(event.run_id, event.status)
        elif isinstance(event, Died):
            self._on_death(event)
        elif isinstance(event, Ready) and event.not_preloaded and not self._told_preload:
            self._told_preload = True
            modules = ", ".join(event.not_preloaded)
            self.runs.notes.append(f"not preloaded, each worker imports it: {modules}")

    def _on_end(self, run_id: str, status: str) -> None:
        self._asked_s.pop(run_id, None)
        if self.runs.claims.is_withdrawn(run_id) and status not in ENDED:
            self.runs.withdraw(run_id)
        else:
            self.runs.end(run_id, status)

    def _on_death(self, died: Died) -> None:
        """Retry the run, or give it up; a death that this process brought about is none of the run's."""
        run_id = died.run_id
        if self._asked_s.pop(run_id, None) is not None:
            self.runs.withdraw(run_id)
        elif self.interrupts.count:
            self.runs.end(run_id, INTERRUPTED)
        elif self.runs.died(run_id, f"its worker {died.message}", exit_code=died.exit_code):
            self.runs.queue.put_back(run_id)
        else:
            self.runs.end(run_id, FAILED)

    def _stop_withdrawn(self) -> None:
        """Ask runs to stop that another has now, or that were cancelled; the worker goes on with others."""
        now_s = time.monotonic()
        for run_id, why in self.runs.claims.withdrawn().items():
            if run_id not in self._asked_s:
                self._asked_s[run_id] = now_s
                self.runs.notes.append(f"run {run_id} is {why}; it stops here")
                self.pool.stop_run(run_id)
            elif now_s - self._asked_s[run_id] > WITHDRAWN_S:
                self.pool.kill(run_id)

    def _wind_down(self) -> None:
        """After a signal: wait for checkpoints, then kill. Nothing new is started."""
        queue = self.runs.queue
        self.runs.notes.append("stopping: runs write a checkpoint; interrupt again to kill them")
        self.pool.ask_to_stop()
        while queue.running and (left_s := self._patience_s()) > 0:
            self._tell()
            self._take_events(min(WATCH_EVERY_S, left_s))
        self.pool.kill()
        deadline_s = time.monotonic() + KILLED_S
        while queue.running and time.monotonic() < deadline_s:
            self._take_events(0.1)
        queue.interrupt()

    def _patience_s(self) -> float:
        return self.patience(self.interrupts.arrivals) - time.monotonic()

    def _tell(self) -> None:
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
