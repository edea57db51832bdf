"""`harness cancel`: ask the unfinished runs of a study, or of some rows, to stop; from any machine.

The request is a file in the run's folder. Whoever trains the run sees it at its next beat, writes a
checkpoint and stops; whoever would take it leaves it. `harness run` of a study that wants the run removes it.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.commands.machine import ProgramError, answer_of
from harness.commands.overview import Overview, look_at_study
from harness.commands.status import print_json
from harness.commands.workspace import Workspace, runs_of, workspace
from harness.errors import DONE, SOME_FAILED, counted
from harness.runs.claims import request_cancel
from harness.runs.folder import CANCELLED, MISSING, RUNNING, STOPPED
from harness.runs.state import QUEUED
from harness.spec import ENDED, FAILED
from harness.study.plan import PlannedRun

if TYPE_CHECKING:
    from harness.commands.overview import GroupView
    from harness.slurm.submission import Submission

WRITERS = 16  # requests that are written at a time: each waits for the disk
SCANCEL_S = 10.0
GONE = ("Invalid job id", "No active jobs match")  # what scancel says of jobs that have left the queue
MOST_TROUBLES = 5


@dataclass(slots=True)
class Cancelled:
    """What was done, by run_id."""

    stopping: list[str] = field(default_factory=list)  # were running
    not_started: list[str] = field(default_factory=list)
    done_before: list[str] = field(default_factory=list)  # had ended, had failed or were cancelled already
    left_running: list[str] = field(default_factory=list)  # because of --queued
    needed_by: dict[str, int] = field(default_factory=dict)  # label of another arm -> its runs that need one
    also_for: dict[str, int] = field(default_factory=dict)  # another study -> runs submitted for it
    scancelled: list[str] = field(default_factory=list)  # ids of arrays
    left_in_queue: list[str] = field(default_factory=list)  # likewise, of which Slurm was not told
    by_hand: list[str] = field(default_factory=list)  # commands that take those out
    troubles: list[str] = field(default_factory=list)


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    overview = look_at_study(args)
    wanted = runs_of(overview.plan, args.row or (), args.seed or (), args.study)
    done = cancel(overview, wanted, place, only_queued=args.queued)
    if args.json:
        about = {"study": overview.plan.study, "size": overview.plan.size}
        print_json({**about, **{name: getattr(done, name) for name in Cancelled.__slots__}})
    else:
        for line in in_words(done, str(args.study)):
            print(line)
    return SOME_FAILED if done.troubles else DONE


def cancel(
    overview: Overview, wanted: Iterable[PlannedRun], place: Workspace, *, only_queued: bool
) -> Cancelled:
    """Ask these runs to stop, and take what has nothing left to do out of Slurm's queue."""
    done, views = Cancelled(), overview.views
    for run in wanted:
        state = views[run.run_id].state
        if state == RUNNING:
            (done.left_running if only_queued else done.stopping).append(run.run_id)
        elif state in (QUEUED, STOPPED, MISSING):
            done.not_started.append(run.run_id)
        else:
            done.done_before.append(run.run_id)
    asked = {*done.stopping, *done.not_started}
    by = f"{_user()}@{socket.gethostname()}"

    def ask(run_id: str) -> str | None:
        try:
            request_cancel(place.folder(run_id), by)
        except OSError as error:
            return f"{place.folder(run_id).path}: {error.strerror or error}"
        return None

    with ThreadPoolExecutor(WRITERS) as pool:
        done.troubles += filter(None, pool.map(ask, sorted(asked)))
    done.needed_by = dict(
        Counter(overview.plan.arm_labels[run.arm_id] for run in _dependents(overview, asked))
    )
    _empty_queue(overview, asked, done)
    return done


def _dependents(overview: Overview, asked: set[str]) -> Iterator[PlannedRun]:
    """Runs that were not asked to stop and need one that was, or need such a run in turn."""
    lost = set(asked)
    for run in overview.plan.runs:  # needs come first
        is_over = overview.views[run.run_id].state in (*ENDED, CANCELLED, RUNNING)
        if run.run_id not in asked and not is_over and lost.intersection(run.needs):
            lost.add(run.run_id)
            yield run


def _empty_queue(overview: Overview, asked: set[str], done: Cancelled) -> None:
    """Take agents that have not begun out of the queue where their group has nothing left; those at work
    leave by themselves."""
    other: Counter[str] = Counter()
    for each in overview.queue.submissions:
        if each.submission.study != overview.plan.study:
            other[each.submission.study] += len(asked.intersection(each.submission.run_ids()))
        for name, view in each.groups.items():
            is_empty = all(_is_over(overview, run_id, asked) for run_id in _runs_of(each.submission, name))
            if is_empty and (view.pending or not view.is_known):
                for command, ids in _orders(each.submission, view):
                    _scancel(command, ids, done, can_ask=overview.queue.can_ask)
    done.also_for = {study: count for study, count in other.items() if count}


def _runs_of(submission: Submission, group: str) -> list[str]:
    return [run_id for run_id in submission.run_ids() if submission.group_of(run_id) == group]


def _is_over(overview: Overview, run_id: str, asked: set[str]) -> bool:
    """Whether no agent will do the run. Of a run of another plan nothing is known: it is left in peace."""
    view = overview.views.get(run_id)
    return view is not None and (run_id in asked or view.state in (*ENDED, CANCELLED, FAILED))


def _orders(submission: Submission, view: GroupView) -> Iterator[tuple[list[str], list[str]]]:
    """Per cluster: the scancel command for what waits of a group, and the ids of its arrays.

    The ids are those that the queue shows under the group's name, where it is known, else those that were
    written down. An id alone might be somebody else's job by now: scancel is told the name too. Only numbers
    and plain names are passed on to a command line.
    """
    found = dict(view.arrays)
    if not view.is_known:
        mine = [said for chunk, said in submission.chunks().items() if chunk.startswith(f"{view.name}.")]
        found = {str(said.get("job_id")): str(said.get("cluster", "")) for said in mine} | found
    by_cluster: dict[str, list[str]] = {}
    for job_id, cluster in found.items():
        if re.fullmatch(r"[0-9]+", job_id) and re.fullmatch(r"[A-Za-z0-9_.-]*", cluster):
            by_cluster.setdefault(cluster, []).append(job_id)
    for cluster, ids in by_cluster.items():
        where = [f"--clusters={cluster}"] if cluster else []
        name = f"--name={submission.job_name(view.name)}"
        yield ["scancel", *where, name, "--state=PENDING", *ids], ids


def _scancel(command: list[str], ids: list[str], done: Cancelled, *, can_ask: bool) -> None:
    if not can_ask or shutil.which("scancel") is None:
        done.left_in_queue += ids
        done.by_hand.append(" ".join(command))
        return
    from harness.slurm.queue import CHANGES_ANSWERS

    try:
        answer_of(command, SCANCEL_S, {name: None for name in os.environ if CHANGES_ANSWERS.match(name)})
    except ProgramError as error:
        if any(words in str(error) for words in GONE):  # what is known of the queue may be 30 s old
            return
        done.left_in_queue += ids
        done.by_hand.append(" ".join(command))
        done.troubles.append(f"scancel: {error}")
    else:
        done.scancelled += ids


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return str(os.getuid())


def in_words(done: Cancelled, study: str) -> Iterator[str]:
    """What a person is told."""
    for run_ids, what in (
        (done.stopping, "will write a checkpoint and stop, in about 10 s"),
        (done.not_started, "will not start"),
        (done.left_running, "at work and left to it (--queued)"),
        (done.done_before, "had ended, failed or been cancelled before"),
    ):
        if run_ids:
            yield f"{counted(len(run_ids), 'run')} {what}"
    for label, count in done.needed_by.items():
        yield f"{counted(count, 'run')} of {label} cannot start either: it needs one of those"
    for other, count in done.also_for.items():
        yield f"{counted(count, 'run')} of those had been submitted for the study {other} as well"
    if done.scancelled:
        yield f"taken out of Slurm's queue: {', '.join(done.scancelled)}"
    for command in done.by_hand:
        yield f"still in Slurm's queue, where they find nothing to do: {command}"
    yield from _shown(done.troubles)
    if done.stopping or done.not_started:
        yield f"`harness run {study}` goes on with them"
    elif not done.left_running:
        yield "nothing is left to cancel"


def _shown(troubles: list[str]) -> Iterator[str]:
    for trouble in troubles[:MOST_TROUBLES]:
        yield f"not done: {trouble}"
    if len(troubles) > MOST_TROUBLES:
        yield f"not done: {len(troubles) - MOST_TROUBLES} more"
