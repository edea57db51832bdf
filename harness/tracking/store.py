"""Where the MLflow mirror lives, whether it can be reached, and how it is opened."""

from __future__ import annotations

import atexit
import errno
import fcntl
import glob
import logging
import os
import queue
import re
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from harness.errors import Problem, StudyError, masked, printable

if TYPE_CHECKING:
    from mlflow import MlflowClient


# Whether a tracking store that is no file can be reached, asked once and within seconds.
#
# MLflow itself asks a database that refuses ten times in 100 s, and a server that is not there for minutes.


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
    installed = [name for name in ("psycopg2", "psycopg") if find_spec(name)]
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


# Where the MLflow mirror lives, and how it is opened: created and migrated once, under a lock.
#
# Of several processes that open a fresh SQLite store at once, MLflow leaves most failed and the file
# sometimes broken, so creation is behind a file lock here. MLflow is imported when a store is opened, not
# before.


_OPTIONS = re.compile(r"\?\w+=[^/]*$")
# MLflow has no call for this: where the files of runs lie, in its tables.
_EXPERIMENTS = (
    "SELECT experiment_id, name, artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%'"
)
_MOVE_RUNS = """UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)
WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?"""
_MOVE_EXPERIMENT = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
OF_DATABASES = ("sqlalchemy", "alembic")  # which mlflow-skinny does not bring
READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
PATIENCE = {  # with a tracking server: at most 4 x 30 s and 14 s between, for each request
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a server may ask for hours
}

# SQLite file -> (inode, how often this process saw it replaced); see `_connection_uri`
_generations: dict[Path, tuple[int, int]] = {}


class StoreError(StudyError):
    """The tracking store cannot be used; the message says what to do. No run folder is touched by that."""

    consequence = "no run is lost by it"

    def __init__(self, message: str) -> None:
        problem = Problem("MLflow", 0, masked(message))
        super().__init__([problem])
        self.message = problem.message

    def __str__(self) -> str:
        return self.message


class ReadOnlyStore(StoreError):
    """The store, or the folder beside it, can be read only."""


@dataclass(frozen=True, slots=True)
class Store:
    """A tracking URI of MLflow, and the local folder for locks and, unless a server keeps them, artifacts."""

    uri: str
    artifacts: Path

    @staticmethod
    def beside(runs_dir: Path) -> Store:
        """The default: mlflow.db and mlartifacts/ in the folder that holds the runs folder."""
        folder = runs_dir.resolve().parent
        return Store(f"{SQLITE}{folder / 'mlflow.db'}", folder / "mlartifacts")

    @property
    def shown(self) -> str:
        """The URI as messages name it."""
        return masked(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for another kind of store. Options after a ? do not count."""
        if not self.uri.startswith(SQLITE):
            return None
        return Path(_OPTIONS.sub("", self.uri.removeprefix(SQLITE))).absolute()

    def exists(self) -> bool:
        """Whether reading makes sense; a store that is not a SQLite file is taken to exist."""
        return self.database is None or self.database.is_file()

    def client(self) -> MlflowClient:
        """A client of the store, which is created if it does not exist.

        Raises:
            StoreError: it cannot be opened, or another version of MLflow made it.
        """
        be_quiet()
        absent = [] if is_server(self.uri) else [each for each in OF_DATABASES if not find_spec(each)]
        if absent:
            raise StoreError(
                f"a store in a file or database needs {' and '.join(absent)} beside mlflow-skinny: pip "
                f"install {' '.join(absent)}; a tracking server (--tracking-uri http://...) does not"
            )
        from mlflow import MlflowClient

        with self._locked_if_possible():
            try:
                self._create()
                if self.database is not None:
                    check_file(self.database)
                check(self._connection_uri())
                client = MlflowClient(tracking_uri=self._connection_uri())
                if is_server(self.uri):
                    client = cast("MlflowClient", Patient(client, self.uri))
                client.search_experiments(max_results=1)  # creates the tables
            except Exception as error:  # of MLflow, SQLAlchemy, the driver or the network
                raise StoreError(self.explained(error)) from error
            self._remember()
        return client

    def require_writable(self) -> None:
        """Wait until no other program has locked the file.

        Raises:
            ReadOnlyStore: it can be read only.
            StoreError: it is still locked; by whom.
        """
        if self.database is None or not self.database.exists():
            return
        try:
            check_file(self.database, writes=True)
        except Exception as error:
            if "readonly" in str(error):
                raise ReadOnlyStore(f"the tracking store {self.shown} can be read only") from None
            raise StoreError(self.explained(error)) from error

    @contextmanager
    def _locked_if_possible(self) -> Iterator[None]:
        """The lock that making a store needs; one that is there and can only be read needs none."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.locked("store"))
            except ReadOnlyStore:
                if not self.exists():
                    raise
            yield

    def artifact_location(self, experiment: str) -> str | None:
        """Where a new experiment keeps its files; None leaves the choice to a tracking server."""
        return None if is_server(self.uri) else (self.artifacts.resolve() / experiment).as_uri()

    def beside_it(self, artifact_uri: str, own: str) -> str:
        """Where a run's files lie now: beside this store, where they are there, whatever the store says.

        own: `artifacts` as a URI; a project that was moved or copied has others in its SQLite file.
        """
        if not artifact_uri.startswith("file:///") or artifact_uri.startswith(f"{own}/"):
            return artifact_uri
        path = self.artifacts.joinpath(*unquote(urlsplit(artifact_uri).path).split("/")[-3:])
        return path.resolve().as_uri() if path.is_dir() else artifact_uri

    def follow(self) -> None:
        """Let a SQLite file name the artifacts beside it, after its folder was moved, renamed or copied.

        Raises:
            StoreError: the file cannot be written.
        """
        if self.database is None or self.database.resolve().parent != self.artifacts.resolve().parent:
            return
        try:
            with closing(sqlite3.connect(self.database, timeout=LOCKED_S)) as connection, connection:
                for number, name, was in connection.execute(_EXPERIMENTS).fetchall():
                    now = (self.artifacts.resolve() / name).as_uri()
                    end = now.removeprefix(self.artifacts.resolve().parent.as_uri())
                    if was != now and was.endswith(end):
                        connection.execute(_MOVE_RUNS, (now, len(was) + 1, number, len(was) + 1, f"{was}/"))
                        connection.execute(_MOVE_EXPERIMENT, (now, number))
        except sqlite3.Error as error:
            raise StoreError(self.explained(error)) from error

    @contextmanager
    def locked(self, name: str) -> Iterator[IO[str]]:
        """Hold the lock file `name` of this store; waits for other processes. Yields the open file.

        Raises:
            ReadOnlyStore: the folder of the locks cannot be written.
        """
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            file = (self.artifacts / f".{name}.lock").open("a+")
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            text = f"nothing can be mirrored: {self.artifacts} cannot be written ({error.strerror})"
            raise ReadOnlyStore(text) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _create(self) -> None:
        """Make a new SQLite file apart and move it into place.

        MLflow makes it in some hundred steps and cannot go on where a process was killed between two of them.
        """
        if self.database is None or self.database.exists():
            return
        from mlflow import MlflowClient

        name = f".{self.database.name}"
        for left in self.database.parent.glob(f"{glob.escape(name)}.*.draft*"):
            left.unlink()
        draft = self.database.with_name(f"{name}.{secrets.token_hex(8)}.draft")  # MLflow caches by name
        MlflowClient(tracking_uri=sqlite_uri(draft)).search_experiments(max_results=1)
        draft.replace(self.database)

    def _connection_uri(self) -> str:
        """The URI, changed to an equivalent one where the SQLite file was replaced during this process.

        MLflow caches a connection per URI. After the file was deleted, the cached connection still writes to
        the deleted one, so a new file gets a URI of its own: the same path with `/.` in it.
        """
        if self.database is None:
            return usable(self.uri)
        inode, generation = _generations.get(self.database, (0, 0))
        if inode and inode != _inode(self.database):
            generation += 1
            _generations[self.database] = (0, generation)
        return sqlite_uri(self.database, generation)

    def _remember(self) -> None:
        if self.database is not None:
            generation = _generations.get(self.database, (0, 0))[1]
            _generations[self.database] = (_inode(self.database), generation)

    def explained(self, error: Exception) -> str:
        """What is wrong with the store, and what to do; deleting it is advised where it is damaged only."""
        text = masked(in_words(error), self.uri)
        if self.database is None:
            return f"cannot open the tracking store {self.shown}: {text}"
        if isinstance(error, Locked) or "database is locked" in text:
            who = text if isinstance(error, Locked) else f"{holders_of(self.database)} holds it"
            return (
                f"cannot use the tracking store {self.shown}: {who}. Once that process has ended or lets it "
                "go, the same command goes on; the run folders have everything"
            )
        return (
            f"cannot open the tracking store {self.shown}: {text} "
            f"It is a mirror of the run folders: delete {self.database} and run `harness sync` to rebuild it."
        )


def be_quiet() -> None:
    """No telemetry, no progress lines and no long waits, unless the user's environment says otherwise."""
    for name, value in {**QUIET, **PATIENCE}.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # each retry is a warning to it


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


# MLflow's own web pages over the mirror.


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
        StoreError: the store is a tracking server, which has pages already; or this MLflow has none.
    """
    if is_server(store.uri):
        raise StoreError(f"{store.shown} is a tracking server with pages of its own: open it in a browser")
    if find_spec("flask") is None:
        raise StoreError(
            "its pages need the whole of MLflow, and this is mlflow-skinny, with which all other commands "
            "work: pip install mlflow"
        )
    uri = usable(store.uri) if store.database is None else sqlite_uri(store.database)
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
