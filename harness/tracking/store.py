"""Where the MLflow mirror lives, and how it is opened: created and migrated once, under a lock.

Of several processes that open a fresh SQLite store at once, MLflow leaves most failed and the file sometimes
broken, so creation is behind a file lock here. MLflow is imported when a store is opened, not before.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

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
PATIENCE = {  # with a tracking server: at most 4 x 30 s and 14 s between, for each request
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
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

        with self.locked("store"):
            try:
                self._create()
                if self.database is not None:
                    reach.check_file(self.database)
                reach.check(self._connection_uri())
                client = MlflowClient(tracking_uri=self._connection_uri())
                client.search_experiments(max_results=1)  # creates the tables
            except Exception as error:  # of MLflow, SQLAlchemy, the driver or the network
                raise StoreError(self._explain(error)) from error
            self._remember()
        return client

    def artifact_location(self, experiment: str) -> str | None:
        """Where a new experiment keeps its files; None leaves the choice to a tracking server."""
        return None if reach.is_server(self.uri) else (self.artifacts.resolve() / experiment).as_uri()

    @contextmanager
    def locked(self, name: str) -> Iterator[IO[str]]:
        """Hold the lock file `name` of this store; waits for other processes. Yields the open file."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        with (self.artifacts / f".{name}.lock").open("a+") as file:
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

    def _explain(self, error: Exception) -> str:
        text = masked(reach.in_words(error), self.uri)
        if self.database is None:
            return f"cannot open the tracking store {self.shown}: {text}"
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
