"""Why something waits, in sentences: for Slurm, for a place with an agent, or for another run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.commands.overview import TO_DO, Overview
from harness.commands.queue_state import GroupView, in_words
from harness.commands.states import QUEUED, SHORT_ID
from harness.study.plan import Plan
from harness.study.records import CANCELLED, DIVERGED, FAILED, FINISHED, RUNNING


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
        yield f"{where}: {_agents(count)} waiting for {in_words(reason)}{after}"
    if group.running and states[QUEUED]:
        yield f"{where}: {_runs(states[QUEUED])} for a place with its {_agents(group.running)}"


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
    arm = plan.arms[arm_id]
    if arm.teacher == need_arm:
        return "the teacher"
    return "the networks it evaluates" if arm.observes else "the training it starts from"


def _runs(count: int) -> str:
    return f"{count} runs wait" if count != 1 else "1 run waits"


def _agents(count: int) -> str:
    return f"{count} agent{'s' if count != 1 else ''}"
