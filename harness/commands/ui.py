"""`harness ui`: MLflow's own UI over the tracking store, on this machine only."""

from __future__ import annotations

import argparse

from harness.commands.workspace import workspace


def main(args: argparse.Namespace) -> int:
    from harness.tracking.store import HOST, require_free, serve, ui_command, ui_environment

    environment = ui_environment(workspace(args).store())
    require_free(args.port)

    def say() -> None:
        print(f"MLflow UI: http://{HOST}:{args.port}   (Ctrl-C ends it)", flush=True)

    return serve(ui_command(args.port), environment, args.port, say)
