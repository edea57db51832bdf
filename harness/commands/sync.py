"""`harness sync`: mirror every run folder of a study into MLflow. Twice does nothing the second time."""

from __future__ import annotations

import argparse

from harness.commands.workspace import load_plan, mirror, workspace


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    count = mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
    print(
        f"{plan.study} ({plan.size}): {count.created} runs added, {count.updated} updated, "
        f"{count.unchanged} unchanged, {count.skipped} not begun"
    )
    return 0
