"""`harness plan --json`: the plan as plain data, with a stable schema.

schema          2; grows when a key changes its meaning or goes
study, size     names
header          paper, question, expect, unknown, metric, metrics (of plugins), smallest_effect (percentage
                points), seeds, smoke, size_line
seeds           [0, 1, ...]: the rows are read at these; of an adaptive study, of the arm that has most by now
looks           [3, 5, ...]: seeds per arm at each look at the results; []: every arm has `seeds`
arm_seeds       {arm_id: how many of `seeds` it is planned with by now}; those that are not named have all
notes           [text]: what the size scales and replaces
claims          [{says, source, table, row, versus, column, versus_column, measure, expect}]
tables          [{key, title, design, columns, note, target, cells}]
                target: {row: label} or {top1: percent}, for steps_to_target; null: none
  cells         [{row, column, arm_id, tricks, versus, paper, paper_versus, note}]
                arm_id null: quoted, not trained
    paper       {name: {value, status}}; top1 and top5 in percent, others as study.paper says; status is
                verified or memory
arms            {arm_id: {label, recipe, tricks, teacher, source, observes, plugins}}
                recipe: every field of study.spec.Recipe
                observes: not empty: nothing is trained, the networks of [{arm, runs}] are evaluated together
runs            [{run_id, arm_id, seed, needs, macs, time_s, rough, done}] in submission order; those with
                other seeds than `seeds` are further members of ensembles, and what these need
                macs: multiply-adds of the whole training, or of evaluating
                time_s: of one worker: training where it is done, else all of the run; null: not known
                rough: time_s is from runs of other networks, by multiply-adds alone
totals          {cells, arms, runs, done, macs, time_s, shared_runs_saved}
                macs and time_s: of the runs that are not done
                shared_runs_saved: runs that the tables would train again if they did not share them
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from harness.study.plan import Cell, Plan, PlanTable

PLAN_SCHEMA = 2


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The data described at the top of this file; `json.dumps` takes it as it is."""
    return {
        "schema": PLAN_SCHEMA,
        "study": plan.study,
        "size": plan.size,
        "header": dict(plan.header),
        "seeds": list(plan.seeds),
        "looks": list(plan.looks),
        "arm_seeds": dict(plan.arm_seeds),
        "notes": list(plan.notes),
        "claims": [dataclasses.asdict(claim) for claim in plan.claims],
        "tables": [_table(table) for table in plan.tables],
        "arms": {
            arm_id: {"label": plan.arm_labels[arm_id], **dataclasses.asdict(arm)}
            for arm_id, arm in plan.arms.items()
        },
        "runs": [{**dataclasses.asdict(run), "needs": list(run.needs)} for run in plan.runs],
        "totals": totals(plan),
    }


def totals(plan: Plan) -> dict[str, Any]:
    """Counts of the whole plan, and the cost of what is not done. time_s is None while any run has none."""
    trained = [cell.arm_id for table in plan.tables for cell in table.cells if cell.arm_id is not None]
    todo = [run for run in plan.runs if not run.done]
    times = [run.time_s for run in todo if run.time_s is not None]
    return {
        "cells": sum(len(table.cells) for table in plan.tables),
        "arms": len(plan.arms),
        "runs": len(plan.runs),
        "done": len(plan.runs) - len(todo),
        "macs": sum(run.macs for run in todo),
        "time_s": sum(times) if len(times) == len(todo) else None,
        "shared_runs_saved": _runs(plan, trained) - _runs(plan, set(trained)),
    }


def _runs(plan: Plan, arm_ids: Iterable[str]) -> int:
    return sum(len(plan.seeds_of(arm_id)) for arm_id in arm_ids)


def _table(table: PlanTable) -> dict[str, Any]:
    return {
        "key": table.key,
        "title": table.title,
        "design": table.design,
        "columns": list(table.columns),
        "note": table.note,
        "target": None if table.target is None else dict(table.target),
        "cells": [_cell(cell) for cell in table.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "row": cell.row,
        "column": cell.column,
        "arm_id": cell.arm_id,
        "tricks": list(cell.tricks),
        "versus": cell.versus,
        "paper": {name: {"value": value.value, "status": value.status} for name, value in cell.paper.items()},
        "paper_versus": cell.paper_versus,
        "note": cell.note,
    }
