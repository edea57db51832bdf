"""The next block of an adaptive plan: which arms get more seeds, and the runs that those need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from harness.study.order import Work, needs_runs, runs_of
from harness.study.plan import Plan
from harness.study.spec import MEMBER_STRIDE, Arm


def grow(plan: Plan, wanted: Mapping[str, int]) -> Plan:
    """The plan with at least the wanted seeds; what is known of its runs is kept.

    A run needs others of the same seed: its teacher, its source, the networks that it evaluates. Their arms
    get as many seeds. No arm loses any.

    Args:
        wanted: arm_id -> seeds. Arms that are not named stay as they are.
    Raises:
        ValueError: an arm is not of this plan, more seeds than at the last look, or too many runs.
    """
    counts = {arm_id: len(plan.seeds_of(arm_id)) for arm_id in plan.arms}
    most = plan.looks[-1] if plan.looks else len(plan.seeds)
    for arm_id, seeds in wanted.items():
        if arm_id not in counts:
            raise ValueError(f"{arm_id} is no arm of {plan.study}")
        if seeds > most:
            raise ValueError(f"{plan.arm_labels[arm_id]}: {seeds} seeds are more than the budget of {most}")
        _raise_to(seeds, arm_id, plan.arms, counts)
    largest = max(counts.values(), default=0)
    macs = {run.arm_id: run.macs for run in plan.runs}
    work = [Work(arm_id, needs_runs(arm), macs[arm_id]) for arm_id, arm in plan.arms.items()]
    known = {run.run_id: run for run in plan.runs}
    runs = runs_of(plan.arms, work, counts)
    return dataclasses.replace(
        plan,
        seeds=tuple(range(largest)),
        arm_seeds={arm_id: count for arm_id, count in counts.items() if count < largest},
        runs=[known.get(run.run_id, run) for run in runs],
    )


def runs_at_most(plan: Plan) -> int:
    """How many runs the plan would have with all its arms at the last look."""
    of_one_seed = sum(run.seed % MEMBER_STRIDE == 0 for run in plan.runs)
    return of_one_seed * (plan.looks[-1] if plan.looks else len(plan.seeds))


def _raise_to(seeds: int, arm_id: str, arms: Mapping[str, Arm], counts: dict[str, int]) -> None:
    """Of an arm and of all that its runs need."""
    if counts[arm_id] >= seeds:
        return  # and so have those that it needs
    counts[arm_id] = seeds
    arm = arms[arm_id]
    for needed in (arm.teacher, arm.source, *(member.arm for member in arm.observes)):
        if needed is not None:
            _raise_to(seeds, needed, arms, counts)
