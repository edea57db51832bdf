"""A whole study: its tables, the paper's claims and the steps to a target accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.budget import budget_of
from harness.analysis.claims import answer_claims
from harness.analysis.credit import with_credit
from harness.analysis.decide import check, decide_table
from harness.analysis.findings import Findings, Settings
from harness.analysis.flips import flips_of
from harness.analysis.looks import with_looks
from harness.analysis.outcomes import read_outcomes
from harness.analysis.sharing import roots_of
from harness.analysis.speed import Records, read_curves, speed_of
from harness.study.plan import Plan

if TYPE_CHECKING:
    import pandas as pd


def analyse(plan: Plan, records: pd.DataFrame, curves: pd.DataFrame, settings: Settings) -> Findings:
    """What the runs of a plan show. Only runs of the planned seeds are read as a row's own.

    Args:
        records: as for `decide`, with `train_loss` and a column for each metric of a plugin.
        curves: one row per curve point: arm_id, seed, step (optimizer steps), epoch, val_top1 (percent).
    Raises:
        ValueError: as for `decide`.
    """
    settings = with_looks(settings, plan.looks)
    check(settings)
    more = dict.fromkeys(name for arm in plan.arms.values() for name in arm.recipe.metrics)
    outcomes = read_outcomes(records, [settings.metric, *more])
    seeds = tuple(sorted(plan.seeds))
    planned = {arm_id: tuple(sorted(plan.seeds_of(arm_id))) for arm_id in plan.arm_seeds}
    roots = roots_of(plan.arms)
    evidence = Records(
        outcomes=outcomes,
        curves=read_curves(curves, outcomes),
        seeds=seeds,
        planned=planned,
        observers=frozenset(arm_id for arm_id, arm in plan.arms.items() if arm.observes),
        looks=settings.looks,
    )
    speeds = (speed_of(table, evidence) for table in plan.tables)
    tables = tuple(decide_table(table, outcomes, settings, seeds, roots, planned) for table in plan.tables)
    tables = with_credit(plan.tables, tables, settings, roots)
    return Findings(
        study=plan.study,
        size=plan.size,
        settings=settings,
        seeds=tuple(plan.seeds),
        tables=tables,
        claims=answer_claims(plan.claims, plan.tables, evidence),
        speed=tuple(speed for speed in speeds if speed is not None),
        budget=budget_of(tables, plan.arms, records[records["seed"].isin(seeds)]),
        flips=flips_of(plan.tables, outcomes, seeds),
    )
