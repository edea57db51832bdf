"""Whether a tracking store that is no file can be reached, asked once and within seconds.

MLflow itself asks a database that refuses ten times in 100 s, and a server that is not there for minutes.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import queue
import re
import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from harness.study.problems import printable
from harness.study.secrets import masked

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)

WAIT_S = 10.0  # for a connection
LOCKED_S = 60.0  # for a process that has locked a SQLite file
PATIENCE_S = 5.0  # before it is said that a file is waited for
SILENT_S = 10.0  # before it is said that a server is waited for
LONGEST, MOST_HOLDERS = 80, 3  # characters of a command line, and processes, that are named
HTTP_PORTS = {"http": 80, "https": 443}
SQLITE = "sqlite:///"
_URI_SIGNS = re.compile("[?#%]")
DRIVERS = {
    "psycopg": "psycopg2-binary",
    "psycopg2": "psycopg2-binary",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
}  # module -> package


def is_server(uri: str) -> bool:
    """Whether the URI is that of a server that speaks HTTP: it then also keeps the files."""
    return urlsplit(uri).scheme in HTTP_PORTS or uri.partition(":")[0] == "databricks"


def sqlite_uri(database: Path, generation: int = 0) -> str:
    """The URI by which MLflow opens a SQLite file; each generation is another URI of the same file.

    In a URI a ? begins the options, and versions of SQLAlchemy differ in whether they resolve %-signs: a path
    with one of these is opened through a link in a folder of this process.
    """
    path = _link(database) if _URI_SIGNS.search(str(database)) else database
    return f"{SQLITE}{path.parent}{'/.' * generation}/{path.name}"


@cache
def _link(database: Path) -> Path:
    """A path without signs of a URI to the file, until this process ends."""
    place = Path(tempfile.mkdtemp(prefix="harness-store-"))  # for this user alone
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    link = place / "mlflow.db"
    link.symlink_to(database)
    return link


def usable(uri: str) -> str:
    """The URI of a PostgreSQL database with an installed driver and a limit to how long connecting may take.

    SQLAlchemy reads `postgresql:` as psycopg2 up to version 2.0 and as psycopg from 2.1, installed or not.
    Other URIs are given back as they are.
    """
    parts = urlsplit(uri)
    scheme = "postgresql" + parts.scheme.removeprefix("postgresql").removeprefix("postgres")
    if scheme.partition("+")[0] != "postgresql":
        return uri
    installed = [name for name in ("psycopg2", "psycopg") if importlib.util.find_spec(name)]
    if "+" not in scheme and installed:
        scheme = f"postgresql+{installed[0]}"
    query = urlencode({"connect_timeout": round(WAIT_S), **dict(parse_qsl(parts.query))})
    return urlunsplit(parts._replace(scheme=scheme, query=query))


def check(uri: str) -> None:
    """Connect once.

    Raises:
        OSError: a tracking server does not answer within `WAIT_S`.
        Exception: what SQLAlchemy and the driver say of a database, among them ModuleNotFoundError.
    """
    parts = urlsplit(uri)
    if parts.scheme in HTTP_PORTS:
        proxied = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
        if not proxied:  # else only the proxy knows
            socket.create_connection((parts.hostname, parts.port or HTTP_PORTS[parts.scheme]), WAIT_S).close()
    elif "://" in uri and not is_server(uri) and parts.scheme.partition("+")[0] in _DATABASES:
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def check_file(database: Path, *, writes: bool = False, wait_s: float = LOCKED_S) -> None:
    """Open a SQLite file once; MLflow tries for 100 s. Waits for a process that has locked it, and says so.

    writes: whether it must be possible to write; nothing is written.

    Raises:
        Locked: another process still holds it after `wait_s`.
        sqlite3.Error: it is no database, is damaged where its tables are listed, or cannot be written.
    """
    first_s = min(PATIENCE_S, wait_s)
    for timeout_s in (first_s, wait_s - first_s):
        try:
            _try_file(database, timeout_s, writes=writes)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            if timeout_s == first_s:
                _log.warning("waiting for %s: %s holds it", database, holders_of(database))
    raise Locked(f"{holders_of(database)} has held {database} for {wait_s:.0f} s")


def _try_file(database: Path, timeout_s: float, *, writes: bool) -> None:
    uri = f"{database.absolute().as_uri()}?mode={'rw' if writes else 'ro'}"
    with closing(sqlite3.connect(uri, uri=True, timeout=timeout_s)) as connection:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if writes:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()


class Locked(Exception):
    """Another process holds the database. Nothing is wrong with it."""


def holders_of(database: Path) -> str:
    """Which processes of this machine have a file open, or its journal, in words."""
    names = {str(database.absolute()), *(f"{database.absolute()}{end}" for end in ("-wal", "-journal"))}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        try:
            if any(os.readlink(each) in names for each in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                found.append(f"process {folder.name} ({printable(masked(words.strip()))[:LONGEST]})")
        except OSError:  # another user's, or it has ended
            continue
    return " or ".join(found[:MOST_HOLDERS]) or "a process that cannot be seen from here"


def within(call: Callable[[], Answer], uri: str, what: str, *, limit_s: float | None = None) -> Answer:
    """The answer of a call that asks a tracking server, which has so long for all of it.

    MLflow's own limits count from byte to byte: a server that sends one a second is never too late. A call
    that is given up goes on in a thread that ends with this process.

    Raises:
        TimeoutError: the server did not answer in time.
        Exception: what the call raises.
    """
    limit_s = deadline_s() if limit_s is None else limit_s
    answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # it is raised again where somebody waits for it
            answers.put((None, error))

    threading.Thread(target=ask, name=f"tracking server: {what}", daemon=True).start()
    told_s = min(SILENT_S, limit_s)
    try:
        answer, error = answers.get(timeout=told_s)
    except queue.Empty:
        _log.warning("waiting for the tracking server %s (%s), at most %.0f s", masked(uri), what, limit_s)
        try:
            answer, error = answers.get(timeout=max(0.0, limit_s - told_s))
        except queue.Empty:
            raise TimeoutError(f"no whole answer ({what}) within {limit_s:.0f} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def deadline_s() -> float:
    """How long a server has for one answer: so many tries of so long each, and the pauses between them."""
    tries = 1 + int(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"))
    return tries * float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")) + float(2**tries - 2)


class Patient:
    """A client of MLflow of which every call has `deadline_s`."""

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value
        return lambda *args, **kwargs: within(lambda: value(*args, **kwargs), self._uri, name)


def in_words(error: Exception) -> str:
    """What went wrong, in one line, and what to install where it is a driver."""
    text = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
    package = DRIVERS.get(error.name or "") if isinstance(error, ModuleNotFoundError) else None
    return f"{text}; install it with pip install {package}" if package else text


_DATABASES = frozenset({"postgresql", "mysql", "mssql"})
