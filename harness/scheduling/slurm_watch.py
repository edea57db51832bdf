"""What the shared folder says of runs under way: ends from run folders, starts from the agents' own files.

Thousands of runs are looked at by at most one file each, and less often the longer that takes; a few dozen
agents by what they appended since the last look.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.scheduling.submission import Submission
from harness.study.records import RunFolder

LOOK_EVERY_S = (1.0, 20.0)  # the least and the most between two looks at all runs that have not ended
PATIENCE = 20  # times as long as a look took, at least
LOG_LINES, LOG_BYTES = 8, 20_000
GONE = frozenset({"left", "requeued"})  # last words of an agent's life


@dataclass(slots=True)
class Outcomes:
    """Runs that have not ended, looked at by their summaries."""

    runs_dir: Path
    _next_s: float = 0.0

    def look(self, run_ids: Iterable[str]) -> dict[str, str]:
        """run_id -> status of those that have ended; nothing where it is too early to look again."""
        start_s = time.monotonic()
        if start_s < self._next_s:
            return {}
        found = {run_id: status for run_id in run_ids for status in self.status(run_id)}
        least_s, most_s = LOOK_EVERY_S
        took_s = time.monotonic() - start_s
        self._next_s = start_s + min(most_s, max(least_s, PATIENCE * took_s))
        return found

    def status(self, run_id: str) -> Iterator[str]:
        """The status of a run, if it has ended and that can be read now."""
        try:
            summary = RunFolder(self.runs_dir / run_id).read_summary()
        except OSError:
            return  # unknown; the next look may tell
        if summary is not None:
            yield str(summary["status"])


@dataclass(slots=True)
class Agent:
    """One agent, from its own events."""

    job_id: str
    began_s: float | None = None
    array_id: str = ""
    task: str = ""  # its index in the array
    training: set[str] = field(default_factory=set)
    last: str = ""  # kind of its last event
    reason: str = ""  # why it left
    read_bytes: int = 0

    def take(self, event: dict[str, Any]) -> None:
        """Take note of one event."""
        kind, run_id = str(event.get("kind", "")), str(event.get("run_id", ""))
        self.last = kind
        if kind == "started":  # every life has one
            self.began_s = float(event.get("time_s") or 0)
            self.array_id = str(event.get("array_job_id", ""))
            self.task = str(event.get("array_task_id", ""))
            self.training.clear()
        elif kind == "run_started":
            self.training.add(run_id)
        elif kind == "run_ended":
            self.training.discard(run_id)
        elif kind in GONE:
            self.reason = str(event.get("why", ""))


class Agents:
    """The agents of one submission."""

    def __init__(self, submission: Submission) -> None:
        self._folder = submission.folder / "agents"
        self.by_job: dict[str, Agent] = {}

    def look(self) -> Iterator[str]:
        """Read what is new. Yields the runs that an agent says it has brought to an end."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            if name.endswith(".jsonl"):
                job_id = name.removesuffix(".jsonl")
                agent = self.by_job.setdefault(job_id, Agent(job_id))
                for event in _new_lines(self._folder / name, agent):
                    agent.take(event)
                    if event.get("kind") == "run_ended":
                        yield str(event.get("run_id", ""))

    def running(self) -> Iterator[str]:
        """The runs that agents say they are training now."""
        for agent in self.by_job.values():
            if agent.last not in GONE:
                yield from agent.training


def log_of(submission: Submission, array_ids: Iterable[str]) -> str:
    """The end of the newest log of these arrays: what was printed as an error, else what was printed."""
    folder = submission.folder / "logs"
    for suffix in ("err", "out"):
        found = [path for array_id in array_ids for path in folder.glob(f"{array_id}_*.{suffix}")]
        written = [path for path in found if path.stat().st_size]
        if written:
            return tail(max(written, key=lambda path: path.stat().st_mtime))
    return ""


def has_logs(submission: Submission, array_ids: Iterable[str]) -> bool:
    """Whether a task of these arrays began as far as Slurm opening its log."""
    return any(any((submission.folder / "logs").glob(f"{each}_*")) for each in array_ids)


def logs_of(submission: Submission, array_id: str, task: str) -> Iterator[str]:
    """The end of each error log of one agent."""
    for path in submission.folder.glob(f"logs/{array_id}_{task}_*.err"):
        yield tail(path)


def tail(path: Path) -> str:
    """The last lines of a log, without what a terminal would take for orders."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
    return "\n".join("".join(each for each in line if each.isprintable() or each == "\t") for line in lines)


def _new_lines(path: Path, agent: Agent) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(agent.read_bytes)
            text = file.read()
    except OSError:
        return
    whole = text[: text.rfind(b"\n") + 1]
    agent.read_bytes += len(whole)
    for line in whole.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event
