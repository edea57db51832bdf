"""MLflow's own web pages over the mirror."""

from __future__ import annotations

import os
import sys

from harness.tracking import reach
from harness.tracking.store import Store, StoreError

HOST = "127.0.0.1"  # this machine only: MLflow's server asks nobody for a password
URI_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that execute what nobody asks for


def ui_command(store: Store, port: int = 5000) -> list[str]:
    """The command line that serves the store's pages.

    A URI with a password goes into this process's environment, which the command inherits: a command line
    can be read by every user of the machine. So does what keeps the server small.

    Raises:
        StoreError: the store is a tracking server, which has pages already.
    """
    if reach.is_server(store.uri):
        raise StoreError(f"{store.shown} is a tracking server with pages of its own: open it in a browser")
    for name, value in NO_JOBS.items():
        os.environ.setdefault(name, value)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--workers",
        "1",
    ]  # for one person; four take seconds more
    if store.shown == store.uri:
        command += ["--backend-store-uri", store.uri]
    else:
        os.environ[URI_VARIABLE] = reach.usable(store.uri)
    return [*command, "--host", HOST, "--port", str(port)]
