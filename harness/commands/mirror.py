"""`harness sync` and `harness ui`: run folders into MLflow, and MLflow's own UI over them."""

from __future__ import annotations

import argparse

from harness.commands.workspace import load_plan, mirror, workspace


def sync(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    count = mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
    print(
        f"{plan.study} ({plan.size}): {count.created} runs added, {count.updated} updated, "
        f"{count.unchanged} unchanged, {count.skipped} not begun"
    )
    return 0


def ui(args: argparse.Namespace) -> int:
    from harness.tracking.store import HOST, require_free, serve, ui_command, ui_environment

    environment = ui_environment(workspace(args).store())
    require_free(args.port)

    def say() -> None:
        print(f"MLflow UI: http://{HOST}:{args.port}   (Ctrl-C ends it)", flush=True)

    return serve(ui_command(args.port), environment, args.port, say)
