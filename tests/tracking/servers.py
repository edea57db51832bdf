"""A real PostgreSQL and a real MLflow server for tests: private, on 127.0.0.1, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.tracking.store import NO_JOBS, PATIENCE, QUIET, usable

HOST = "127.0.0.1"
READY_S = 240.0  # a limit against hanging, not an expectation
USER, PASSWORD = "harness", secrets.token_hex(8)


@dataclass(frozen=True)
class Postgres:
    """A running server with one user; `template` is a database that MLflow has prepared."""

    bin: Path
    socket: Path
    port: int
    databases: list[str] = field(default_factory=list)

    def uri(self, database: str, password: str = PASSWORD) -> str:
        """Over TCP, with the password."""
        return f"postgresql://{USER}:{password}@{HOST}:{self.port}/{database}"

    def connect(self, database: str) -> Any:
        import psycopg2

        return psycopg2.connect(self.uri(database))

    def fresh(self, template: str = "template1") -> str:
        """The URI of a new database, a copy of another one."""
        name = f"db{len(self.databases)}"
        self.databases.append(name)
        self.disconnect(template)
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}", "postgres")
        return self.uri(name)

    def disconnect(self, database: str) -> None:
        """End every connection to a database, as a restart of the server would."""
        others = f"datname = '{database}' AND pid <> pg_backend_pid()"
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}", "postgres")

    def sql(self, statement: str, database: str) -> list[tuple[object, ...]]:
        """Run one statement as the tests' user."""
        with closing(self.connect(database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def content(self, uri: str) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table of a database."""
        name = uri.rpartition("/")[2]
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)
        return {
            str(table): sorted(self.sql(f'SELECT * FROM "{table}"', name), key=repr) for (table,) in tables
        }


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server in a temporary folder; skips, loudly, where it is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("NO POSTGRESQL HERE: the mirror on it is not tested (apt-get install postgresql)")
    pytest.importorskip("psycopg2", reason="NO POSTGRESQL DRIVER HERE: pip install psycopg2-binary")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        owner = _owner(folder)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if owner:
            shutil.chown(secret, owner)
        options = ["--no-sync", "-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}", "-E", "UTF8"]
        _call([programs / "initdb", "-D", folder / "data", *options], owner)
        port = free_port()
        settings = (
            f"-c listen_addresses={HOST} -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        )
        begin = ["-w", "-D", folder / "data", "-l", folder / "log", "-o", settings, "start"]
        _call([programs / "pg_ctl", *begin], owner)
        try:
            yield Postgres(programs, folder, port)
        finally:
            _call([programs / "pg_ctl", "-m", "immediate", "-D", folder / "data", "stop"], owner)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Where Debian, or the PATH, has initdb and pg_ctl."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


def _owner(folder: Path) -> str | None:
    """PostgreSQL does not run as root: the Debian package's own user then, who gets the folder."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("NO USER postgres HERE, and PostgreSQL does not run as root")
    shutil.chown(folder, "postgres")
    return "postgres"


def _call(command: list[str | Path], owner: str | None) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=owner,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if command[-1] != "start" else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=READY_S,
    )
    assert done.returncode == 0, done.stdout


@dataclass
class Server:
    """An MLflow server that can be killed and started again on the same port."""

    command: list[str]
    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            environment = {**os.environ, **QUIET, **PATIENCE, **NO_JOBS, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=log, stderr=log, process_group=0
            )
        deadline_s = time.monotonic() + READY_S
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline_s, "the MLflow server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """As the power would: all of its processes, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


def mlflow_server(backend: str, folder: Path) -> Server:
    """`mlflow server` on a store, which also keeps the artifacts. Not started yet."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        usable(backend),
        "--workers",
        "1",
    ]
    command += ["--host", HOST, "--port", str(port), "--artifacts-destination", str(folder / "artifacts")]
    return Server(command, port, folder)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def listening(group: int) -> set[str]:
    """The addresses, as `ip:port`, on which the processes of a process group listen."""
    inodes: set[str] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                links = [os.readlink(path) for path in (stat.parent / "fd").iterdir()]
                inodes |= {link.partition("[")[2].rstrip("]") for link in links if link.startswith("socket:")}
        except OSError:  # it has just ended
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ip, _, port = fields[1].partition(":")
                shown = socket.inet_ntoa(bytes.fromhex(ip)[::-1]) if table == "tcp" else f"tcp6 {ip}"
                found.add(f"{shown}:{int(port, 16)}")
    return found
