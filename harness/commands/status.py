"""`harness status`: every row's runs, the queue, why something waits, time left and cost so far.

Needs no controller and writes nothing, but for the shared answer of Slurm's queue (`runs/.queue.json`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from harness.commands.declare import declared_line
from harness.commands.overview import Overview, look_at_study
from harness.commands.queue_state import SubmissionView, age_s
from harness.commands.states import RunView
from harness.commands.waits import waits
from harness.commands.workspace import workspace
from harness.study.plan import PlannedRun
from harness.study.problems import DONE


def main(args: argparse.Namespace) -> int:
    overview = look_at_study(args)
    if args.json:
        print_json(to_json(overview))
    else:
        from harness.status_display import show_status

        declared = declared_line(overview.plan, workspace(args))
        show_status(overview, [declared, *overview.data, *waits(overview)])
    return DONE


def to_json(overview: Overview) -> dict[str, Any]:
    """Documented in docs/json.md."""
    plan, views, queue = overview.plan, overview.views, overview.queue
    return {
        "study": plan.study,
        "size": plan.size,
        "seeds": list(plan.seeds),
        "looks": list(plan.looks),
        "looks_taken": [dataclasses.asdict(look) for look in overview.looks],
        "counts": overview.counts,
        "workers": overview.workers,
        "work_s": overview.work_s,
        "eta_s": overview.eta_s,
        "used_worker_s": overview.used_s,
        "used_gpu_s": overview.gpu_s,
        "data": list(overview.data),
        "waits": list(waits(overview)),
        "queue": {
            "asked_s": queue.asked_s,
            "age_s": None if queue.asked_s is None else age_s(queue.asked_s),
            "can_ask": queue.can_ask,
            "unreadable": queue.unreadable,
            "submissions": [_submission_json(each) for each in queue.submissions],
        },
        "rows": [
            {
                "table": table.key,
                "row": cell.row,
                "column": cell.column,
                "arm": plan.arm_labels[cell.arm_id],
                "seeds": len(plan.seeds_of(cell.arm_id)),
            }
            for table in plan.tables
            for cell in table.cells
            if cell.arm_id is not None
        ],
        "runs": [_run_json(run, plan.arm_labels[run.arm_id], views[run.run_id]) for run in plan.runs],
    }


def _run_json(run: PlannedRun, label: str, view: RunView) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "arm": label,
        "seed": run.seed,
        "state": view.state,
        "progress": view.progress,
        "used_s": view.used_s,
        "gpus": view.gpus,
        "time_s": run.time_s,
        "holder": view.holder.place if view.holder else None,
        "message": view.message or None,
    }


def _submission_json(each: SubmissionView) -> dict[str, Any]:
    return {
        "token": each.submission.token,
        "study": each.submission.study,
        "created_s": each.submission.created_s,
        "job_ids": each.submission.job_ids(),
        "groups": [
            {
                "group": view.name,
                "left": len(view.left),
                "agents_running": view.running if view.is_known else None,
                "agents_pending": view.pending if view.is_known else None,
                "reasons": dict(view.reasons),
                "after": list(view.group.after),
            }
            for view in each.groups.values()
        ],
    }


def print_json(data: Mapping[str, Any]) -> None:
    """One key a line, and of a list one entry a line; indenting all would take a second for 10,000 runs."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(each) for each in value) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    print("{\n" + ",\n".join(parts) + "\n}")
