"""Where the MLflow mirror lives, and how it is opened: created and migrated once, under a lock.

Of several processes that open a fresh SQLite store at once, MLflow leaves most failed and the file sometimes
broken, so creation is behind a file lock here. MLflow is imported when a store is opened, not before.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from harness.study.problems import Problem, StudyError
from harness.study.secrets import masked
from harness.tracking import reach

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = reach.SQLITE
_OPTIONS = re.compile(r"\?\w+=[^/]*$")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
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
        from mlflow import MlflowClient

        with self._locked_if_possible():
            try:
                self._create()
                if self.database is not None:
                    reach.check_file(self.database)
                reach.check(self._connection_uri())
                client = MlflowClient(tracking_uri=self._connection_uri())
                if reach.is_server(self.uri):
                    client = cast("MlflowClient", reach.Patient(client, self.uri))
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
            reach.check_file(self.database, writes=True)
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
        return None if reach.is_server(self.uri) else (self.artifacts.resolve() / experiment).as_uri()

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
        MlflowClient(tracking_uri=reach.sqlite_uri(draft)).search_experiments(max_results=1)
        draft.replace(self.database)

    def _connection_uri(self) -> str:
        """The URI, changed to an equivalent one where the SQLite file was replaced during this process.

        MLflow caches a connection per URI. After the file was deleted, the cached connection still writes to
        the deleted one, so a new file gets a URI of its own: the same path with `/.` in it.
        """
        if self.database is None:
            return reach.usable(self.uri)
        inode, generation = _generations.get(self.database, (0, 0))
        if inode and inode != _inode(self.database):
            generation += 1
            _generations[self.database] = (0, generation)
        return reach.sqlite_uri(self.database, generation)

    def _remember(self) -> None:
        if self.database is not None:
            generation = _generations.get(self.database, (0, 0))[1]
            _generations[self.database] = (_inode(self.database), generation)

    def explained(self, error: Exception) -> str:
        """What is wrong with the store, and what to do; deleting it is advised where it is damaged only."""
        text = masked(reach.in_words(error), self.uri)
        if self.database is None:
            return f"cannot open the tracking store {self.shown}: {text}"
        if isinstance(error, reach.Locked) or "database is locked" in text:
            who = text if isinstance(error, reach.Locked) else f"{reach.holders_of(self.database)} holds it"
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
