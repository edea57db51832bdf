"""The MLflow store: whether it can be reached, and whether this MLflow can write to it. Changes nothing."""

from __future__ import annotations

import base64
import http.client
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from harness.commands.checks.base import (
    FAIL,
    OK,
    WARN,
    Finding,
    ProgramError,
    probe,
)
from harness.commands.workspace import Workspace
from harness.study.secrets import masked

ANSWER_S = 5.0
QUICK_CHECK_S = 5.0
DATABASES = ("postgresql", "postgres", "mysql", "mssql")
NOTHING_LOST = "no run needs it while it trains, and `harness sync` mirrors them later"


def store(place: Workspace) -> Iterator[Finding]:
    """One line about the store, whichever kind it is."""
    uri = place.store().uri
    shown = masked(uri)
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        yield server(uri, shown)
    elif scheme == "sqlite":
        database = place.store().database
        assert database is not None
        yield sqlite(database)
    elif scheme.split("+")[0] in DATABASES:
        yield sql_server(uri, shown)
    else:
        yield Finding("mlflow", WARN, f"{shown}: not a kind of store that is checked", NOTHING_LOST)


def server(uri: str, shown: str) -> Finding:
    """A tracking server, asked for its health."""
    start_s = time.perf_counter()
    try:
        with urllib.request.urlopen(health_of(uri), timeout=ANSWER_S) as answer:  # noqa: S310  http(s) only
            body = answer.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        mend = "MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN" * (error.code in (401, 403))
        return Finding(
            "mlflow", FAIL, f"{shown} answers {error.code} {error.reason}", mend or "look at its log"
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = masked(str(getattr(error, "reason", error)), uri)
        says = f"{shown} does not answer: {reason}"
        return Finding("mlflow", FAIL, says, f"start it, or correct MLFLOW_TRACKING_URI; {NOTHING_LOST}")
    if body != "OK":
        mend = "correct MLFLOW_TRACKING_URI: this does not look like a tracking server of MLflow"
        return Finding("mlflow", WARN, f"{shown} answers its health with {body[:40]!r}", mend)
    return Finding("mlflow", OK, f"{shown} is healthy ({(time.perf_counter() - start_s) * 1000:.0f} ms)")


def health_of(uri: str) -> urllib.request.Request:
    """The question for its health, with the credentials that MLflow itself would send."""
    parts = urlsplit(uri)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    request = urllib.request.Request(f"{address}/health")  # noqa: S310  http(s) only
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def sqlite(database: Path) -> Finding:
    """A SQLite file, read only: whole, and of this MLflow's schema."""
    if not database.exists():
        return Finding("mlflow", OK, f"{database} is made by the first `harness run`")
    rebuild = f"it is a mirror: delete {database} and run `harness sync`"
    try:
        with closing(
            sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=ANSWER_S)
        ) as connection:
            damage = _damage(connection)
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        return Finding("mlflow", FAIL, f"{database} cannot be read: {error}", rebuild)
    if damage:
        return Finding("mlflow", FAIL, f"{database} is damaged: {damage}", rebuild)
    return of_this_version(str(database), found[0] if found else None, rebuild)


def _damage(connection: sqlite3.Connection) -> str:
    """What SQLite's quick check says against the file; a very large one is looked at for a few seconds."""
    deadline_s = time.monotonic() + QUICK_CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline_s, 10_000)
    try:
        [answer] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return ""
    finally:
        connection.set_progress_handler(None, 0)
    return "" if answer == "ok" else str(answer)


def of_this_version(shown: str, found: str | None, mend: str) -> Finding:
    """Whether the schema in the store is the one that the installed MLflow writes."""
    try:
        facts = probe("mlflow")
    except ProgramError as error:
        return Finding("mlflow", FAIL, str(error), "pip install --force-reinstall mlflow")
    return compared(shown, facts["mlflow"], facts["schema"], found, mend)


def compared(shown: str, version: str, schema: str | None, found: str | None, mend: str) -> Finding:
    """schema: what this MLflow writes, None where it does not tell; found: what the store has."""
    about = f"{shown}, MLflow {version}, schema {found}"
    if found is None or schema is None or found == schema:
        return Finding("mlflow", OK, about)
    return Finding("mlflow", FAIL, f"{about}, but this MLflow writes {schema}", mend)


def sql_server(uri: str, shown: str) -> Finding:
    """A database server, asked for its schema."""
    try:
        facts = probe("database", MLFLOW_TRACKING_URI=uri)
    except ProgramError as error:
        says = masked(str(error), uri)
        mend = f"start it, or correct MLFLOW_TRACKING_URI; {NOTHING_LOST}"
        return Finding("mlflow", FAIL, f"{shown} does not answer: {says}", mend)
    return compared(
        shown, facts["mlflow"], facts["schema"], facts["found"], "mlflow db upgrade URI, after a backup"
    )
