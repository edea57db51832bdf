"""One call of `Slurm.execute`: take over what is in the queue, submit the rest, watch, recover the lost."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from harness.scheduling.base import INTERRUPTED, Job, Progress, Watch
from harness.scheduling.interrupts import Interrupts
from harness.scheduling.slurm_asking import Asker
from harness.scheduling.slurm_queue import Accounting, Ended, Queue, ask_queue, locked
from harness.scheduling.slurm_recovery import Recovery
from harness.scheduling.slurm_stand import Stand
from harness.scheduling.slurm_start import Start, runs_in_words
from harness.scheduling.slurm_submit import adopt, nameless, strangers, unanswered
from harness.scheduling.slurm_watch import Agents, Outcomes
from harness.scheduling.submission import FOLDER, Submission
from harness.study.records import CANCELLED, FAILED, RunFolder, run_state
from harness.study.run_claims import clear_cancel

if TYPE_CHECKING:
    from harness.scheduling.slurm import Slurm

WATCH_EVERY_S = 1.0
ASK_EVERY_S = 5.0  # for the newest answer that any process has; squeue itself is asked far less often
LOCK_S = 60.0


class Session:
    """Every wanted run is open until it has a status; every open run stands in a group of a submission."""

    def __init__(self, slurm: Slurm, jobs: dict[str, Job], watch: Watch) -> None:
        self.slurm, self.settings, self.jobs, self._watch = slurm, slurm.settings, jobs, watch
        self.runs_dir = self.settings.runs_dir
        self.statuses: dict[str, str] = {}
        self.stands: list[Stand] = []
        self.stand_of: dict[str, Stand] = {}
        self.notes: list[str] = []
        self.queue: Queue | None = None
        self._answers = True  # whether Slurm answered last time
        self._agents: dict[str, Agents] = {}  # by token
        self._outcomes = Outcomes(self.runs_dir)
        self._queue_asker: Asker[Queue | None] = Asker()
        self._sacct_asker: Asker[list[Ended] | None] = Asker()
        self._accounting = Accounting(self.settings.queue_every_s)
        self._recovery = Recovery(self)
        self._ask_s = 0.0

    def run(self) -> dict[str, str]:
        """run_id -> status, once all have one or the user interrupts."""
        with Interrupts() as self.interrupts:
            self._tell()
            for run_id in self.jobs:
                clear_cancel(self.folder(run_id))
            with self.lock():
                start = Start(self)
                start.take_over()
                start.submit_rest()
            while self.open() and not self.interrupts.count and not self.settings.detach:
                self._round()
                self._tell()
                select.select([self.interrupts.wake_fd], [], [], WATCH_EVERY_S)
            for run_id in self.open():
                self.statuses[run_id] = INTERRUPTED
            self._tell()
        return {run_id: self.statuses[run_id] for run_id in self.jobs}

    def open(self) -> list[str]:
        """Wanted runs without a status."""
        return [run_id for run_id in self.jobs if run_id not in self.statuses]

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs_dir / run_id)

    def lock(self, wait_s: float = LOCK_S) -> AbstractContextManager[bool]:
        """Held while submitting, so that two controllers do not submit the same twice."""
        return locked(self.runs_dir / FOLDER / ".lock", wait_s)

    def end(self, run_id: str, status: str) -> None:
        """A run has its status."""
        self.statuses[run_id] = status
        if run_id in self.stand_of:
            self.stand_of[run_id].end(run_id)

    def has_failed(self, run_id: str, since_s: float) -> bool:
        """Whether it failed later than that and nothing happened to it since."""
        events = self.folder(run_id).read_events()
        return bool(events) and events[-1].get("kind") == FAILED and events[-1].get("time_s", 0) >= since_s

    def interrupt(self, run_ids: Iterable[str], why: str) -> None:
        """These runs are left as they are in this session."""
        names = list(run_ids)
        for run_id in names:
            self.end(run_id, INTERRUPTED)
        if names:
            self.notes.append(f"{runs_in_words(len(names))} left for another `harness run`: {why}")

    def new_stand(self, submission: Submission, name: str) -> Stand:
        """A group of a submission, so far without runs."""
        agents = self._agents.setdefault(submission.token, Agents(submission))
        return Stand(submission, submission.groups[name], agents)

    def put(self, run_id: str, stand: Stand) -> None:
        """The run is that group's."""
        stand.run_ids[run_id] = None
        self.stand_of[run_id] = stand

    def _round(self) -> None:
        """Look at the folders and, every now and then, ask Slurm."""
        for agents in self._agents.values():
            for run_id in set(agents.look()):
                self._on_hint(run_id)
        for run_id, status in self._outcomes.look(self.open()).items():
            self.end(run_id, status)
        now_s = time.monotonic()
        if self._queue_asker.is_idle and now_s >= self._ask_s:
            self._ask_s = now_s + min(ASK_EVERY_S, self.settings.queue_every_s)
            clusters = {each for stand in self.stands for each in stand.submission.clusters()}
            self._queue_asker.ask(lambda: ask_queue(self.runs_dir, self.settings.queue_every_s, clusters))
        for queue in self._queue_asker.fetch():
            self._on_queue(queue)
        self._recovery.round(self._sacct_asker, self._accounting)

    def _on_hint(self, run_id: str) -> None:
        """An agent says that it has brought a run to an end; the run's folder says to which."""
        stand = self.stand_of.get(run_id)
        if stand is None or run_id in self.statuses:
            return
        for status in self._outcomes.status(run_id):
            self.end(run_id, status)
            return
        if self.has_failed(run_id, stand.submission.created_s):
            self.end(run_id, FAILED)
        elif run_state(self.folder(run_id)) == CANCELLED:
            self.interrupt([run_id], "cancelled")

    def _on_queue(self, queue: Queue | None) -> None:
        if queue is None:
            self.on_silence()
            return
        if not self._answers:
            self._answers = True
            self.notes.append("Slurm answers again")
        self.queue = queue
        for submission in {stand.submission.token: stand.submission for stand in self.stands}.values():
            if unanswered(submission) or nameless(submission) or strangers(submission, queue):
                with self.lock(wait_s=0) as alone:
                    self.notes += adopt(submission, queue, alone=alone)
        for stand in self.stands:
            stand.look_for_agents(queue)
            if stand.has_agents(queue):
                stand.gone_s = None
            elif stand.gone_s is None:
                stand.gone_s = time.monotonic()
        self._recovery.close_what_has_gone()

    def on_silence(self) -> None:
        """Slurm did not answer: nothing is known, and nothing changes."""
        if self._answers:
            self._answers = False
            self.notes.append("Slurm does not answer; until it does, nothing is taken for lost")

    def _tell(self) -> None:
        running = {
            run_id
            for stand in self.stands
            if stand.gone_s is None
            for run_id in stand.agents.running()
            if self.stand_of.get(run_id) is stand and run_id not in self.statuses
        }
        self._watch(
            Progress(
                waiting=len(self.jobs) - len(self.statuses) - len(running),
                running=tuple(running),
                ended=dict(self.statuses),
                note="\n".join(self.notes),
                queue=self._queue_line(),
            )
        )
        self.notes.clear()

    def _queue_line(self) -> str:
        """How many agents are at work, how many wait, and for what."""
        if self.queue is None:
            return ""
        names = {stand.submission.job_name(stand.group.name) for stand in self.stands}
        tasks = [task for task in self.queue.tasks if task.name in names]
        at_work = sum(task.is_running for task in tasks)
        reasons = Counter(task.reason for task in tasks if not task.is_running)
        reason = next((f" ({each})" for each, _ in reasons.most_common(1) if each != "None"), "")
        waiting = f", {reasons.total()} queued{reason}" if reasons else ""
        return f"{at_work} agent{'' if at_work == 1 else 's'}{waiting}"
