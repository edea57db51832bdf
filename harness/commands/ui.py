"""`harness ui`: MLflow's own UI over the tracking store, on this machine only."""

from __future__ import annotations

import argparse
import subprocess

from harness.commands.workspace import workspace


def main(args: argparse.Namespace) -> int:
    from harness.tracking.ui import ui_command

    command = ui_command(workspace(args).store(), args.port)
    print(f"MLflow UI: http://127.0.0.1:{args.port}   (Ctrl-C ends it)", flush=True)
    return subprocess.call(command)  # noqa: S603 - a fixed argument list, no shell
