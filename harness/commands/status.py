"""`harness status`: which runs are done, running, stopped, failed or missing. Reads only."""

from __future__ import annotations

import argparse
import json
from collections import Counter

from harness.commands.workspace import load_plan, workspace
from harness.study.records import run_state


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    states = {run.run_id: run_state(place.folder(run.run_id)) for run in plan.runs}
    counts = dict(sorted(Counter(states.values()).items()))
    if args.json:
        runs = [
            {
                "run_id": run.run_id,
                "arm": plan.arm_labels[run.arm_id],
                "seed": run.seed,
                "state": states[run.run_id],
            }
            for run in plan.runs
        ]
        print(json.dumps({"study": plan.study, "size": plan.size, "counts": counts, "runs": runs}, indent=1))
    else:
        from harness.display import show_status

        show_status(plan, states, counts)
    return 0
