"""MLflow's own web pages over the mirror."""

from __future__ import annotations

import sys

from harness.tracking.store import Store

HOST = "127.0.0.1"  # this machine only: MLflow's server asks nobody for a password


def ui_command(store: Store, port: int = 5000) -> list[str]:
    """The command line that serves the store's pages. For a tracking server there is nothing to start."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    return [*command, "--host", HOST, "--port", str(port)]
