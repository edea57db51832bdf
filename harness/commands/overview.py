"""A study as it stands now: plan, states of runs, open submissions, and why something waits."""

from __future__ import annotations

import argparse
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.data import QUICK, again, look_at_records
from harness.commands.floors import below_by_now
from harness.commands.workspace import asked_part, expand_plan, workspace
from harness.errors import counted, mutable
from harness.runs.folder import CANCELLED, MISSING, OTHER_DATA, RUNNING, STOPPED, Holder
from harness.runs.state import QUEUED, SHORT_ID, LookRecord, RunView, look, read_blocks
from harness.spec import DIVERGED, FAILED, FINISHED
from harness.study.plan import Plan, PlannedRun, without_garbage_collection

if TYPE_CHECKING:
    from harness.slurm.queue import Queue
    from harness.slurm.submission import Group, Submission
    from harness.study.part import PlanPart


# Open submissions and what Slurm says of their agents, as far as it is known here. No controller is needed.
#
# Where the commands of Slurm are, they are asked through the shared query (at most once in 30 s, whoever
# asks); elsewhere the newest answer in the folder of runs is read, however old: it says when it was given.


REASONS = {  # Slurm's word -> what it means for who waits
    "Resources": "no free node has what it asks for",
    "Priority": "other jobs go first",
    "Dependency": "other jobs must end first",
    "DependencyNeverSatisfied": "a job it waits for can never end well; cancel it and run again",
    "JobArrayTaskLimit": "the array's own limit on tasks at once",
    "QOSMaxJobsPerUserLimit": "the limit on your jobs at once",
    "QOSMaxCpuPerUserLimit": "the limit on your CPUs at once",
    "QOSMaxGRESPerUser": "the limit on your GPUs at once",
    "MaxJobsPerAccount": "the limit on your account's jobs at once",
    "AssocMaxJobsLimit": "the limit on your jobs at once",
    "AssocGrpCpuLimit": "your group's limit on CPUs",
    "AssocGrpGRES": "your group's limit on GPUs",
    "PartitionDown": "the partition is down",
    "PartitionTimeLimit": "it asks for more time than the partition gives; cancel it and ask for less",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives; cancel it and ask for fewer",
    "ReqNodeNotAvail": "the nodes it asks for are down or reserved",
    "BeginTime": "it was requeued and starts again in a moment",
    "JobHeldUser": "you hold it: scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "launch failed requeued held": "it could not be started and is held: scontrol release",
    "Licenses": "no licence is free",
    "None": "Slurm has not looked at it yet",
}
LATE_S = 5.0  # an answer this much younger than a submission knows of all of its jobs


@mutable
class GroupView:
    """One group of a submission: its runs that are not done, and its agents."""

    name: str
    group: Group
    left: list[str] = field(default_factory=list)  # run_ids
    running: int = 0  # agents
    pending: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # Slurm's words for those that wait
    arrays: dict[str, str] = field(default_factory=dict)  # id -> cluster, of those the queue shows by name
    is_known: bool = False  # whether the two numbers are an answer of Slurm's that knows of all its jobs

    @property
    def is_alive(self) -> bool:
        """Whether something will take its runs, as far as is known: no answer is no evidence of an end."""
        return not self.is_known or self.running + self.pending > 0

    @property
    def workers(self) -> int:
        """Runs that its agents train at a time."""
        return self.running * self.group.resources.least_beside


@mutable
class SubmissionView:
    """One open submission that has runs of the plan."""

    submission: Submission
    groups: dict[str, GroupView]


@mutable
class QueueView:
    """Everything that is known of the queue."""

    submissions: list[SubmissionView] = field(default_factory=list)
    asked_s: float | None = None  # when Slurm answered; None: it did not, or nobody could ask
    unreadable: list[str] = field(default_factory=list)  # submissions of others

    @property
    def can_ask(self) -> bool:
        """Whether the commands of Slurm are here."""
        import shutil

        return shutil.which("squeue") is not None

    @property
    def workers(self) -> int:
        return sum(group.workers for each in self.submissions for group in each.groups.values())


def look_at_queue(runs_dir: Path, views: Mapping[str, RunView]) -> QueueView:
    """The submissions that may still do some of these runs; marks those runs as queued."""
    found = QueueView()
    if not (runs_dir / ".submissions").is_dir():
        return found
    from harness.slurm.queue import ask_queue, read_queue  # not where there is no Slurm: 50 ms
    from harness.slurm.submission import submissions

    opened = [each for each in submissions(runs_dir, found.unreadable) if not each.is_closed]
    for submission in opened:
        view = _submission(submission, views)
        if view is not None:
            found.submissions.append(view)
    if found.submissions:
        clusters = {name for each in found.submissions for name in each.submission.clusters()}
        queue = ask_queue(runs_dir, clusters=clusters) if found.can_ask else None
        queue = queue or read_queue(runs_dir, math.inf, clusters)
        if queue is not None:
            found.asked_s = queue.asked_s
            _fill(found.submissions, queue)
        _mark(found.submissions, views)
    return found


def _submission(submission: Submission, views: Mapping[str, RunView]) -> SubmissionView | None:
    mine = [run_id for run_id in submission.run_ids() if run_id in views]
    if not mine:
        return None
    groups = {name: GroupView(name=name, group=group) for name, group in submission.groups.items()}
    for run_id in mine:
        view = views[run_id]
        name = submission.group_of(run_id)
        again = view.state == FAILED and view.failed_s < submission.created_s
        if name in groups and (again or view.state in (MISSING, STOPPED, RUNNING)):
            groups[name].left.append(run_id)
    return SubmissionView(submission=submission, groups=groups)


def _fill(found: list[SubmissionView], queue: Queue) -> None:
    for each in found:
        submitted = [said.get("submitted_s", 0.0) for said in each.submission.chunks().values()]
        is_new = not submitted or queue.asked_s <= max(submitted) + LATE_S
        is_known = each.submission.is_ours and not is_new
        lost = {chunk for chunk, said in each.submission.chunks().items() if not said.get("job_id")}
        for name, view in each.groups.items():
            tasks = queue.of_name(each.submission.job_name(name))
            view.running = sum(task.is_running for task in tasks)
            view.pending = len(tasks) - view.running
            view.arrays = {task.array_id: task.cluster for task in tasks}
            view.reasons = Counter(task.reason for task in tasks if not task.is_running)
            is_lost = any(chunk.startswith(f"{name}.") for chunk in lost)  # submitted, nobody knows as what
            view.is_known = (is_known and not is_lost) or bool(tasks)


def _mark(found: list[SubmissionView], views: Mapping[str, RunView]) -> None:
    for each in found:
        for view in each.groups.values():
            for run_id in view.left:
                if views[run_id].state != RUNNING and view.is_alive:
                    views[run_id].state = QUEUED


def in_words(reason: str) -> str:
    """Slurm's reason, and what it means.

    >>> in_words("Priority"), in_words("(ReqNodeNotAvail, UnavailableNodes:n1)"), in_words("New")
    ('Priority: other jobs go first', 'ReqNodeNotAvail: the nodes it asks for are down or reserved', 'New')
    """
    plain = reason.strip("()")
    word = re.split(r"[,:(]", plain)[0].strip()
    meaning = REASONS.get(plain) or REASONS.get(word)
    return f"{word}: {meaning}" if meaning else word


def age_s(asked_s: float) -> float:
    """How old an answer is, by this machine's clock."""
    return max(0.0, time.time() - asked_s)


# A study as it stands now: its plan, the state of every run, the queue, what is left and the cost so far.


ORDER = (FINISHED, DIVERGED, RUNNING, QUEUED, STOPPED, MISSING, OTHER_DATA, FAILED, CANCELLED)
TO_DO = frozenset({RUNNING, QUEUED, STOPPED, MISSING, OTHER_DATA})


@dataclass(eq=False, repr=False)
class Overview:
    """A study as it stands now; never changed once it is made."""

    plan: Plan
    views: Mapping[str, RunView]
    queue: QueueView
    data: tuple[str, ...] = ()  # which data changed since runs ended
    looks: tuple[LookRecord, ...] = ()  # at the results of an adaptive study, so far
    below: tuple[str, ...] = ()  # what lies below the floor of its data by now, a line each
    part: PlanPart | None = None  # `plan` is that of the part

    @property
    def counts(self) -> dict[str, int]:
        """State -> runs, in a fixed order; states without a run are left out."""
        counts = Counter(view.state for view in self.views.values())
        known = {state: counts.pop(state) for state in ORDER if state in counts}
        return known | dict(sorted(counts.items()))

    @property
    def workers(self) -> int:
        """How many runs are trained at a time now; what a halted process holds is not."""
        running = sum(
            view.state == RUNNING and view.holder not in self.halted for view in self.views.values()
        )
        return max(running, self.queue.workers)

    @cached_property
    def halted(self) -> frozenset[Holder]:
        """Who holds runs of this study and was stopped: it goes on with them when it is continued."""
        holders = {view.holder.token: view.holder for view in self.views.values() if view.holder}
        tokens = {token for token, holder in holders.items() if holder.is_halted()}
        held = (view.holder for view in self.views.values())
        return frozenset(holder for holder in held if holder and holder.token in tokens)

    @property
    def work_s(self) -> float | None:
        """Seconds of one worker that are still to do; None: nothing like it has been measured yet."""
        left = [self._left_s(run) for run in self.plan.runs if self.views[run.run_id].state in TO_DO]
        known = [each for each in left if each is not None]
        return sum(known) if len(known) == len(left) else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until all have ended, if the workers stay as many; None: unknown, or none at work."""
        work_s = self.work_s
        if work_s is None or not self.workers:
            return None
        longest_s = max(
            (self._left_s(run) or 0.0 for run in self.plan.runs if self._is_to_do(run)), default=0.0
        )
        return max(longest_s, work_s / self.workers)

    @property
    def used_s(self) -> float:
        """Seconds of workers so far."""
        return sum(view.used_s for view in self.views.values())

    @property
    def gpu_s(self) -> float:
        """Seconds of GPUs so far; runs that share a GPU count each."""
        return sum(view.used_s * view.gpus for view in self.views.values())

    def label(self, run: PlannedRun) -> str:
        return f"{self.plan.arm_labels[run.arm_id]}, seed {run.seed}"

    def failures(self) -> list[PlannedRun]:
        """Runs that failed, in the order of the plan."""
        return [run for run in self.plan.runs if self.views[run.run_id].state == FAILED]

    def _is_to_do(self, run: PlannedRun) -> bool:
        return self.views[run.run_id].state in TO_DO

    def _left_s(self, run: PlannedRun) -> float | None:
        if run.time_s is None:
            return None
        return run.time_s * (1.0 - (self.views[run.run_id].progress or 0.0))


def look_at_study(args: argparse.Namespace, *, only_part: bool = False) -> Overview:
    """The plan and what is known of its runs; of the part that the command line names, where that is meant.

    Raises:
        StudyError: every mistake in the study, but for those that show at another size only.
    """
    place = workspace(args)
    whole = expand_plan(args, place, every_size=False)
    part = asked_part(args, whole) if only_part else None
    plan = part.plan if part else whole
    with without_garbage_collection():  # thousands of records that all stay
        found = look_at_records(plan, place.runs_dir, place.data_dir, QUICK)
        views = look(plan, place.runs_dir, {**found.summaries, **found.others})
        for run_id in found.why:
            views[run_id].state = OTHER_DATA
        blocks = read_blocks(place.runs_dir, whole) if whole.is_adaptive else None
        looks = blocks.looks if blocks else ()
        queue = look_at_queue(place.runs_dir, views)
        below = below_by_now(plan, place, found.summaries)
        data = tuple(again(text) for text in found.says)
        return Overview(plan, views, queue, data, looks, below, part)


# Why something waits, in sentences: for Slurm, for a place with an agent, or for another run.


def waits(overview: Overview) -> Iterator[str]:
    """Why something waits, a sentence each."""
    for each in overview.queue.submissions:
        for group in each.groups.values():
            if group.left:
                where = f"{each.submission.token}/{group.name}"
                yield from _group_waits(overview, group, where)
    yield from _needs(overview)


def _group_waits(overview: Overview, group: GroupView, where: str) -> Iterator[str]:
    states = Counter(overview.views[run_id].state for run_id in group.left)
    if not group.is_alive:
        left = sum(count for state, count in states.items() if state != RUNNING)
        if left:
            again = f"`harness run` submits them again; see harness logs {group.left[0][:SHORT_ID]}"
            yield f"{where}: {_runs(left)} and no agent is in the queue: {again}"
        return
    for reason, count in sorted(group.reasons.items()):
        after = (
            f" ({', '.join(group.group.after)})"
            if reason.startswith("Dependency") and group.group.after
            else ""
        )
        yield f"{where}: {counted(count, 'agent')} waiting for {in_words(reason)}{after}"
    if group.running and states[QUEUED]:
        yield f"{where}: {_runs(states[QUEUED])} for a place with its {counted(group.running, 'agent')}"


def _needs(overview: Overview) -> Iterator[str]:
    """Runs that need another one, where something is at work or the other one cannot come."""
    at_work = any(view.state in (RUNNING, QUEUED) for view in overview.views.values())
    for (arm_id, need_arm), needs in _unfinished_needs(overview).items():
        states = Counter(overview.views[need].state for need in dict.fromkeys(needs.values()))
        if at_work or states.keys() & {FAILED, CANCELLED, DIVERGED}:
            label, need_label = overview.plan.arm_labels[arm_id], overview.plan.arm_labels[need_arm]
            said = ", ".join(f"{count} {state}" for state, count in states.items())
            role = _role(overview.plan, arm_id, need_arm)
            yield f"{label}: {_runs(len({run_id for run_id, _ in needs}))} for {role}, {need_label} ({said})"


def _unfinished_needs(overview: Overview) -> dict[tuple[str, str], dict[tuple[str, str], str]]:
    """(arm, arm it needs) -> (run_id, needed run_id) -> needed run_id, of runs that wait."""
    arm_of = {run.run_id: run.arm_id for run in overview.plan.runs}
    found: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for run in overview.plan.runs:
        if run.needs and overview.views[run.run_id].state in TO_DO:
            for need in run.needs:
                if need in arm_of and overview.views[need].state != FINISHED:
                    found.setdefault((run.arm_id, arm_of[need]), {})[run.run_id, need] = need
    return found


def _role(plan: Plan, arm_id: str, need_arm: str) -> str:
    arm = plan.arms[arm_id]  # a command needs none
    if arm.teacher == need_arm:
        return "the teacher"
    return "the networks it evaluates" if arm.observes else "the training it starts from"


def _runs(count: int) -> str:
    return f"{count} runs wait" if count != 1 else "1 run waits"
