"""`harness plan`: what would be run, what is shared, what it costs. Reads only."""

from __future__ import annotations

import argparse
import json

from harness.commands.workspace import load_plan, missing_data, workspace
from harness.study.plan_json import plan_to_json


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    missing = missing_data(plan, place)
    if args.json:
        print(json.dumps({**plan_to_json(plan), "missing_data": missing}, indent=1))
    else:
        from harness.display import show_plan

        show_plan(plan, missing)
    return 0
