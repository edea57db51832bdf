"""A study as it stands now: its plan, the state of every run, the queue, what is left and the cost so far."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.commands.data_now import QUICK, again, look_at_records
from harness.commands.queue_state import QueueView, look_at_queue
from harness.commands.states import QUEUED, RunView, look
from harness.commands.workspace import expand_plan, workspace
from harness.study.blocks import Look, read_blocks
from harness.study.holders import Holder
from harness.study.memory import without_garbage_collection
from harness.study.plan import Plan, PlannedRun
from harness.study.records import (
    CANCELLED,
    DIVERGED,
    FAILED,
    FINISHED,
    MISSING,
    OTHER_DATA,
    RUNNING,
    STOPPED,
)

ORDER = (FINISHED, DIVERGED, RUNNING, QUEUED, STOPPED, MISSING, OTHER_DATA, FAILED, CANCELLED)
TO_DO = frozenset({RUNNING, QUEUED, STOPPED, MISSING, OTHER_DATA})


@dataclass(frozen=True)
class Overview:
    """A study as it stands now."""

    plan: Plan
    views: Mapping[str, RunView]
    queue: QueueView
    data: tuple[str, ...] = ()  # which data changed since runs ended
    looks: tuple[Look, ...] = ()  # at the results of an adaptive study, so far

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


def look_at_study(args: argparse.Namespace) -> Overview:
    """The plan and what is known of its runs.

    Raises:
        StudyError: every mistake in the study.
    """
    place = workspace(args)
    plan = expand_plan(args, place)
    with without_garbage_collection():  # thousands of records that all stay
        found = look_at_records(plan, place.runs_dir, place.data_dir, QUICK)
        views = look(plan, place.runs_dir, {**found.summaries, **found.others})
        for run_id in found.why:
            views[run_id].state = OTHER_DATA
        blocks = read_blocks(place.runs_dir, plan) if plan.is_adaptive else None
        looks = blocks.looks if blocks else ()
        queue = look_at_queue(place.runs_dir, views)
        return Overview(plan, views, queue, tuple(again(text) for text in found.says), looks)
