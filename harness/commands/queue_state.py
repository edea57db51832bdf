"""Open submissions and what Slurm says of their agents, as far as it is known here. No controller is needed.

Where the commands of Slurm are, they are asked through the shared query (at most once in 30 s, whoever asks);
elsewhere the newest answer in the folder of runs is read, however old: it says when it was given.
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.states import QUEUED, RunView
from harness.study.records import FAILED, MISSING, RUNNING, STOPPED

if TYPE_CHECKING:
    from harness.scheduling.slurm_queue import Queue
    from harness.scheduling.submission import Group, Submission


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


@dataclass(slots=True, kw_only=True)
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
        return self.running * self.group.resources.runs_side_by_side


@dataclass(slots=True, kw_only=True)
class SubmissionView:
    """One open submission that has runs of the plan."""

    submission: Submission
    groups: dict[str, GroupView]


@dataclass(slots=True, kw_only=True)
class QueueView:
    """Everything that is known of the queue."""

    submissions: list[SubmissionView] = field(default_factory=list)
    asked_s: float | None = None  # when Slurm answered; None: it did not, or nobody could ask
    can_ask: bool = False  # whether the commands of Slurm are here
    unreadable: list[str] = field(default_factory=list)  # submissions of others

    @property
    def workers(self) -> int:
        return sum(group.workers for each in self.submissions for group in each.groups.values())


def look_at_queue(runs_dir: Path, views: Mapping[str, RunView]) -> QueueView:
    """The submissions that may still do some of these runs; marks those runs as queued."""
    found = QueueView(can_ask=shutil.which("squeue") is not None)
    if not (runs_dir / ".submissions").is_dir():
        return found
    from harness.scheduling.slurm_queue import ask_queue, read_queue  # not where there is no Slurm: 50 ms
    from harness.scheduling.submission import submissions

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
