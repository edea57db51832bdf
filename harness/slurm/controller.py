"""Slurm: take over what is in the queue, submit the rest, watch, recover. Jobs do not need this process."""

from __future__ import annotations

import dataclasses
import math
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from harness.errors import Problem, StudyError, counted
from harness.runs import provenance
from harness.runs.claims import clear_cancel
from harness.runs.folder import CANCELLED, RUNNING, RunFolder, record, record_refused, run_state
from harness.runs.provenance import changes, code_version
from harness.scheduling.base import INTERRUPTED, Interrupts, Job, Progress, RunOne, Watch
from harness.slurm.cluster import Cluster
from harness.slurm.evidence import MOST_IN_VAIN, Decision, Stand, decide
from harness.slurm.queue import EVERY_S, Accounting, Agents, Ended, Outcomes, Queue, ask_queue, locked
from harness.slurm.sbatch import NoAnswer, Refused, Submitter, adopt, nameless, strangers, unanswered
from harness.slurm.submission import (
    FOLDER,
    JobsOf,
    Order,
    Submission,
    by_run_id,
    draft,
    make_groups,
    new_token,
    submissions,
    write_submission,
)
from harness.spec import ENDED, FAILED

# Slurm: submit what nobody has submitted, then watch. The jobs do not need this process, nor it them.
#
# `harness run --on slurm` may be closed, killed or started twice: what is submitted goes on, and the next
# one finds it in the folder of runs.


UNSEEN_S = 60.0  # for a queue to show what sbatch said it had submitted
SETTLE_S = 6.0  # between leaving the queue and being asked for in sacct, which lags behind


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """What is submitted, and how it is watched."""

    runs_dir: Path
    data_dir: Path
    cluster: Cluster
    study: str
    size: str
    exact: bool = True
    compile: bool = False
    at_most: int | None = None  # agents at once; None: as the cluster file says
    detach: bool = False  # do not watch
    queue_every_s: float = EVERY_S
    settle_s: float = SETTLE_S
    unseen_s: float = UNSEEN_S

    @property
    def agents(self) -> int:
        """The most agents at once."""
        return self.at_most or self.cluster.at_most


class Slurm:
    """Executes jobs as agents in Slurm arrays. `run_one` is theirs: they run what the snapshot has."""

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status; INTERRUPTED is what goes on without this process, or was cancelled.

        Ctrl-C ends the watching, not the jobs.

        Raises:
            StudyError: Slurm accepts none of it; nothing was submitted.
        """

        return SlurmSession(self, by_run_id(jobs), watch).run()

    def scripts(self, jobs: Sequence[Job]) -> str:
        """The sbatch scripts of all these jobs. Submits and writes nothing."""
        from harness.slurm.sbatch import scripts

        named = by_run_id(jobs)
        groups, group_of = make_groups(named, self.settings.cluster, self.settings.agents)
        source = provenance.package()
        path = provenance.snapshot_path(self.settings.runs_dir, source)
        folder = self.settings.runs_dir / FOLDER / new_token()
        submission = Submission(folder, draft(folder, self._order(path, source), groups))
        names = list(group_of.values())
        try:
            return scripts(submission, {name: names.count(name) for name in submission.groups})
        except ValueError as error:
            raise self.problem(str(error)) from None

    def write(self, jobs: dict[str, Job], elsewhere: JobsOf) -> Submission:
        """Write a new submission of these jobs; `elsewhere` says which Slurm jobs do the runs they need.

        Raises:
            StudyError: the folder of runs cannot be written.
        """
        settings, source = self.settings, provenance.package()
        groups, group_of = make_groups(jobs, settings.cluster, settings.agents, elsewhere)
        folder = settings.runs_dir / FOLDER / new_token()
        try:
            order = self._order(provenance.take_snapshot(settings.runs_dir, source), source)
            diff = changes(source.parent) if order.dirty else ""
            return write_submission(draft(folder, order, groups), folder, jobs, group_of, diff)
        except OSError as error:
            raise StudyError([Problem(str(settings.runs_dir), 0, f"cannot be written: {error}")]) from None

    def problem(self, message: str) -> StudyError:
        """An error that names the cluster file."""
        return StudyError([Problem(self.settings.cluster.path, 0, message)])

    def _order(self, path: Path, source: Path) -> Order:
        settings = self.settings
        return Order(
            study=settings.study,
            size=settings.size,
            data_dir=str(settings.data_dir),
            exact=settings.exact,
            compile=settings.compile,
            python=sys.executable,
            snapshot=str(path),
            cluster_file=settings.cluster.path,
            **code_version(source.parent),
        )


# The beginning of a session on Slurm: what is in the queue already is taken over, the rest is submitted.


class Start:
    """Puts every wanted run into a group of a submission."""

    def __init__(self, session: SlurmSession) -> None:
        self._session = session

    def take_over(self) -> None:
        """Find the wanted runs that agents of earlier submissions will do or are doing."""
        session = self._session
        found = [each for each in submissions(session.runs_dir) if each.is_ours and not each.is_closed]
        if not found:
            return
        clusters = {cluster for each in found for cluster in each.clusters()}
        # An answer from before is not enough to give up what may have been submitted.
        unknown = any(nameless(each) or unanswered(each) for each in found)
        every_s = 0.0 if unknown else session.settings.queue_every_s
        session.queue = ask_queue(session.runs_dir, every_s, clusters)
        if session.queue is None:
            session.on_silence()
        for submission in reversed(found):  # the newest has the newest code
            self._take_over_one(submission)
        if session.stand_of:
            jobs = ", ".join(job_id for stand in session.stands for job_id in stand.arrays())
            session.notes.append(f"{counted(len(session.stand_of), 'run')} in the queue already (job {jobs})")

    def _take_over_one(self, submission: Submission) -> None:
        session = self._session
        if session.queue is not None:
            session.notes += adopt(submission, session.queue, alone=True)
        stands = {name: session.new_stand(submission, name) for name in submission.groups}
        for each in stands.values():
            each.look_for_agents(session.queue)
        living = {name: stand for name, stand in stands.items() if stand.has_agents(session.queue)}
        if not living:
            submission.close()
            return
        for run_id in submission.run_ids():
            stand = living.get(submission.group_of(run_id) or "")
            wanted = run_id in session.jobs and run_id not in session.stand_of
            # Agents do not try again what failed since they were submitted.
            if stand and wanted and not session.has_failed(run_id, submission.created_s):
                session.put(run_id, stand)
        session.stands += [stand for stand in living.values() if stand.run_ids]
        for stand in living.values():
            stand.mark()

    def submit_rest(self) -> None:
        """Submit the runs that nobody has, group by group. What sbatch refuses is left for the user to mend.

        Raises:
            StudyError: it refuses all, or does not answer where nobody would ask it again.
        """
        session = self._session
        rest = {run_id: session.jobs[run_id] for run_id in session.open() if run_id not in session.stand_of}
        if not rest:
            return
        submission = session.slurm.write(rest, self._elsewhere)
        stands = {name: session.new_stand(submission, name) for name in submission.groups}
        session.stands += stands.values()
        for run_id in rest:
            session.put(run_id, stands[submission.group_of(run_id) or ""])
        try:
            refused = self._submit(submission, list(stands.values()))
        except NoAnswer as silence:
            if session.settings.detach and not silence.maybe:
                raise session.slurm.problem(f"Slurm does not answer ({silence}); try again later") from None
            what = "it is not known whether it was submitted" if silence.maybe else "Slurm does not answer"
            then = "the same command asks again" if session.settings.detach else "it is asked every 30 s"
            session.notes.append(f"{what} ({silence}); {then}")
            return
        if refused and not submission.job_ids():
            submission.close()
            raise session.slurm.problem(f"not accepted: {next(iter(refused.values()))}")
        for name, why in refused.items():
            session.interrupt(list(stands[name].run_ids), f"{why} ({session.settings.cluster.path})")

    def _submit(self, submission: Submission, stands: list[Stand]) -> dict[str, str]:
        """Returns the groups that were refused, and why.

        Raises:
            NoAnswer: Slurm does not answer; the groups that are left are recovered when it does.
        """
        session, refused = self._session, dict[str, str]()
        submitter = Submitter(submission)
        for stand in stands:
            stand.mark()
            group = stand.group
            if session.interrupts.count:
                break
            if refused.keys() & set(group.after):
                refused[group.name] = "not submitted, because runs that they need were refused"
                continue
            try:
                before = [each for each in stands if stand.waits_for(each)]
                after = [job_id for each in before for job_id in each.arrays()]
                ids = submitter.submit(group, [*group.after_jobs, *after])
            except (Refused, ValueError) as refusal:
                refused[group.name] = str(refusal)
            else:
                session.notes.append(
                    f"submitted {counted(len(stand.run_ids), 'run')} as job {', '.join(ids)}"
                )
        return refused

    def _elsewhere(self, need: str) -> list[str]:
        stand = self._session.stand_of.get(need)
        by_cluster = stand.arrays_by_cluster() if stand else {}
        return [f"{each};{cluster}".rstrip(";") for cluster, ids in by_cluster.items() for each in ids]


# Asking Slurm beside the watching: an answer may take ten seconds, and the display must not wait for it.


Answer = TypeVar("Answer")


class Asker(Generic[Answer]):
    """One question at a time, asked in a thread; the answer waits until it is fetched."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._answers: list[Answer] = []

    @property
    def is_idle(self) -> bool:
        """Whether no question is under way and no answer waits."""
        return self._thread is None

    def ask(self, question: Callable[[], Answer]) -> None:
        """Ask; only when idle. `question` does not raise."""
        self._thread = threading.Thread(
            target=lambda: self._answers.append(question()), name="slurm", daemon=True
        )
        self._thread.start()

    def fetch(self) -> list[Answer]:
        """The answer, once; empty while there is none."""
        if self._thread is None or self._thread.is_alive():
            return []
        self._thread = None
        answers, self._answers = self._answers, []
        return answers


# What becomes of runs whose agents have gone, carried out: recorded in their folders, said to the user.


class Recovery:
    """Looks after the stands of a session that have runs but no agents."""

    def __init__(self, session: SlurmSession) -> None:
        self._session = session

    def round(self, asker: Asker[list[Ended] | None], accounting: Accounting) -> None:
        """Ask sacct about those that have been gone for a while, all at once; act on its answer."""
        for ended in asker.fetch():
            for stand in self._gone():
                self._recover(stand, ended)
        gone = self._gone()
        if gone and asker.is_idle and accounting.may_ask():
            arrays: dict[str, list[str]] = {}
            for stand in gone:
                for cluster, ids in stand.arrays_by_cluster().items():
                    arrays.setdefault(cluster, []).extend(ids)
            asker.ask(lambda: accounting.ask(arrays))

    def close_what_has_gone(self) -> None:
        """Close submissions of which nothing is left: no agent, no run. What no queue showed stays open: the
        next command asks for it once more before it submits."""
        queue = self._session.queue
        by_token: dict[str, list[Stand]] = {}
        for stand in self._session.stands:
            by_token.setdefault(stand.submission.token, []).append(stand)
        for stands in by_token.values():
            submission = stands[0].submission
            idle = not any(stand.run_ids or stand.has_agents(queue) for stand in stands)
            names = {submission.job_name(name) for name in submission.groups}
            in_queue = queue is None or any(task.name in names for task in queue.tasks)
            unknown = unanswered(submission) or nameless(submission)
            if idle and not in_queue and not unknown and not submission.is_closed:
                submission.close()

    def _gone(self) -> list[Stand]:
        """Those known to be without agents for long enough; longer, where they were never seen."""
        settings, now_s = self._session.settings, time.monotonic()
        return [
            stand
            for stand in self._session.stands
            if stand.run_ids and stand.gone_s is not None
            if now_s - stand.gone_s >= (settings.unseen_s if stand.is_unseen() else settings.settle_s)
        ]

    def _recover(self, stand: Stand, ended: Sequence[Ended] | None) -> None:
        left = [run_id for run_id in list(stand.run_ids) if self._is_left(run_id, stand)]
        left = [run_id for run_id in left if self._can_go_on(run_id)]
        needed = [each for each in self._session.stands if each.run_ids and stand.waits_for(each)]
        if not left or any(each.gone_s is not None for each in needed):
            return  # over, or alive elsewhere and looked at again, or not before others are recovered
        if not stand.was_submitted():
            decision = Decision(again=left, reason="they had not been submitted")
        elif needed and stand.evidence(ended).is_seen:
            decision = Decision(again=left, reason="the runs they need had not ended")
        else:
            stand.lose()
            decision = decide(left, stand.evidence(ended))
        self._carry_out(stand, decision)

    def _is_left(self, run_id: str, stand: Stand) -> bool:
        """Whether nobody has the run. What has ended meanwhile gets its status."""
        session = self._session
        state = run_state(session.folder(run_id))
        if state in ENDED:
            session.end(run_id, state)
        elif state == FAILED and session.has_failed(run_id, stand.submission.created_s):
            session.end(run_id, FAILED)
        elif state == CANCELLED:
            session.interrupt([run_id], "cancelled")
        else:
            return state != RUNNING
        return False

    def _can_go_on(self, run_id: str) -> bool:
        """Whether nothing has become of the runs it needs that ends it too."""
        session = self._session
        needs = {session.statuses.get(need): need for need in session.jobs[run_id].needs}
        if FAILED in needs:
            why = f"not started: {needs[FAILED]}, which it needs, failed"
            record_refused(session.runs_dir, run_id, why)
            session.end(run_id, FAILED)
        elif INTERRUPTED in needs:
            session.interrupt([run_id], f"it needs {needs[INTERRUPTED]}, which was left too")
        return FAILED not in needs and INTERRUPTED not in needs

    def _carry_out(self, stand: Stand, decision: Decision) -> None:
        session = self._session
        for run_id, why in decision.failed.items():
            record_refused(session.runs_dir, run_id, why)
            session.end(run_id, FAILED)
        by_reason: dict[str, list[str]] = {}
        for run_id, why in decision.interrupted.items():
            self._note(run_id, "interrupted", why)
            by_reason.setdefault(why, []).append(run_id)
        for why, run_ids in by_reason.items():
            session.interrupt(run_ids, why)
        if decision.again:
            self._submit_again(stand, decision)

    def _submit_again(self, stand: Stand, decision: Decision) -> None:
        session, again = self._session, decision.again
        width = math.ceil(len(again) / stand.group.resources.least_beside)
        group = dataclasses.replace(stand.group, width=min(stand.group.width, width))
        with session.lock():
            if stand.has_agents(session.queue):  # another controller was quicker
                stand.mark()
                return
            stand.submit_again()
            try:
                needed = (each for each in session.stands if each.run_ids and stand.waits_for(each))
                after = [job_id for each in needed for job_id in each.arrays()]
                ids = ", ".join(Submitter(stand.submission).submit(group, after))
            except NoAnswer as silence:
                session.notes.append(f"not submitted again yet: Slurm does not answer ({silence})")
                return
            except Refused as refusal:
                session.interrupt(again, f"not submitted again: {refusal}")
                return
        for run_id in again:
            self._note(run_id, "resubmitted", decision.reason, job=ids)
        count = f"{counted(len(again), 'run')} lost their agents"
        tries = f", {stand.in_vain} of {MOST_IN_VAIN} times in vain" if stand.in_vain else ""
        session.notes.append(f"{count} ({decision.reason}{tries}); submitted again as job {ids}")

    def _note(self, run_id: str, kind: str, why: str, **values: str) -> None:
        """An event of a run that has begun; what has not needs no record."""
        if self._session.folder(run_id).events.exists():
            record(self._session.runs_dir, run_id, kind, message=why, **values)


# One call of `Slurm.execute`: take over what is in the queue, submit the rest, watch, recover the lost.


WATCH_EVERY_S = 1.0
ASK_EVERY_S = 5.0  # for the newest answer that any process has; squeue itself is asked far less often
LOCK_S = 60.0


class SlurmSession:
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
            self.notes.append(f"{counted(len(names), 'run')} left for another `harness run`: {why}")

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
        return counted(at_work, "agent") + waiting
