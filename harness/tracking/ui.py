"""MLflow's own web pages over the mirror."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from harness.tracking import reach
from harness.tracking.store import Store, StoreError

HOST = "127.0.0.1"  # this machine only: MLflow's server asks nobody for a password
URI_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that execute what nobody asks for
LAST_PORT = 65_535
ASK_AGAIN_S = 0.1


def ui_command(port: int = 5000) -> list[str]:
    """The command line that serves the store's pages; the store itself is in `ui_environment`."""
    one = ["--workers", "1"]  # for one person; four take seconds more
    return [sys.executable, "-m", "mlflow", "ui", *one, "--host", HOST, "--port", str(port)]


def ui_environment(store: Store) -> dict[str, str]:
    """What the command reads beside its arguments: a command line can be read by every user of the machine.

    Raises:
        StoreError: the store is a tracking server, which has pages already.
    """
    if reach.is_server(store.uri):
        raise StoreError(f"{store.shown} is a tracking server with pages of its own: open it in a browser")
    uri = reach.usable(store.uri) if store.database is None else reach.sqlite_uri(store.database)
    return {**NO_JOBS, **os.environ, URI_VARIABLE: uri}


def require_free(port: int) -> None:
    """
    Raises:
        StoreError: nothing can listen there; another program does, for example.
    """
    if port > LAST_PORT:
        raise StoreError(f"there is no port {port}: ports go to {LAST_PORT}")
    try:
        with socket.create_server((HOST, port)):
            pass
    except OSError as error:
        mend = f"say another one, such as --port {port + 1 if port < LAST_PORT else port - 1}"
        raise StoreError(f"cannot serve on port {port}: {os.strerror(error.errno or 0)}; {mend}") from None


def serve(
    command: Sequence[str], environment: Mapping[str, str], port: int, say: Callable[[], object]
) -> int:
    """Run the server until it ends, and call `say` once it listens. Returns: its exit code.

    Raises:
        StoreError: it ended before it listened.
    """
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - a fixed argument list, no shell
    try:
        while process.poll() is None and not _listens(port):
            time.sleep(ASK_AGAIN_S)
        if process.poll() is not None:
            raise StoreError(f"MLflow's server ended with code {process.returncode} before it listened")
        say()
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
