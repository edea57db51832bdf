"""What an agent says about itself: lines in its own file of the submission, which nobody else writes.

Kinds: started, run_started, run_ended, left_out, stopping, requeued, left.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.scheduling.base import Progress
from harness.scheduling.claimed import last_step
from harness.scheduling.interrupts import Arrival
from harness.study.records import ENDED, FAILED, RunFolder, append_line, read_lines

POSTPONED = "withdrawn"  # the status of a run that another process has taken over


class AgentLog:
    """Appends the events of one agent; all lives of a requeued job share the file."""

    def __init__(self, file: Path, runs_dir: Path) -> None:
        self._file, self._runs_dir = file, runs_dir
        self._lives = read_lines(file)  # the earlier ones
        self._running: dict[str, int] = {}  # run_id -> its step when it was started here
        self._progressed = False
        self._stopping = False

    def write(self, kind: str, **values: Any) -> None:
        """Append an event; a full disk does not end an agent."""
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._file, {"kind": kind, "time_s": time.time(), **values})

    def follow(self, progress: Progress, arrivals: Sequence[Arrival]) -> None:
        """Write down what has changed since the last call."""
        if progress.note:
            print(progress.note, flush=True)
        for run_id in progress.running:
            if run_id not in self._running:
                self._running[run_id] = step = self._step(run_id)
                self.write("run_started", run_id=run_id, step=step)
        for run_id in [each for each in self._running if each not in progress.running]:
            self._end(run_id, progress.ended.get(run_id, POSTPONED))
        if arrivals and not self._stopping:
            self._stopping = True
            self.write("stopping", why=signal.Signals(arrivals[0].number).name)

    @property
    def lives_without_progress(self) -> int:
        """How many lives in a row, this one included, brought no run further; 0 where this one did."""
        if self._progressed:
            return 0
        count = 1
        for event in reversed(self._lives):
            if event.get("kind") == "requeued":
                if event.get("progress"):
                    break
                count += 1
        return count

    def _end(self, run_id: str, status: str) -> None:
        start, step = self._running.pop(run_id), self._step(run_id)
        if step > start or status in ENDED or status == FAILED:
            self._progressed = True
        self.write("run_ended", run_id=run_id, status=status, step=step)

    def _step(self, run_id: str) -> int:
        return last_step(RunFolder(self._runs_dir / run_id).read_events())
