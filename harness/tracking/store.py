"""Where the MLflow mirror lives, and how it is opened: created and migrated once, under a lock.

Of several processes that open a fresh SQLite store at once, MLflow leaves most failed and the file sometimes
broken, so creation is behind a file lock here. MLflow is imported when a store is opened, not before.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}

# SQLite file -> (inode, how often this process saw it replaced); see `_connection_uri`
_generations: dict[Path, tuple[int, int]] = {}


class StoreError(Exception):
    """The tracking store cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Store:
    """A tracking URI of MLflow, and the local folder for artifacts (SQLite only) and locks."""

    uri: str
    artifacts: Path

    @staticmethod
    def beside(runs_dir: Path) -> Store:
        """The default: mlflow.db and mlartifacts/ in the folder that holds the runs folder."""
        folder = runs_dir.resolve().parent
        return Store(f"{SQLITE}{folder / 'mlflow.db'}", folder / "mlartifacts")

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for another kind of store."""
        return Path(self.uri.removeprefix(SQLITE)).absolute() if self.uri.startswith(SQLITE) else None

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
                client = MlflowClient(tracking_uri=self._connection_uri())
                client.search_experiments(max_results=1)  # creates the tables
            except Exception as error:  # of MLflow, SQLAlchemy, the driver or the network
                raise StoreError(self._explain(error)) from error
            self._remember()
        return client

    def artifact_location(self, experiment: str) -> str | None:
        """Where a new experiment keeps its files; None leaves the choice to a tracking server."""
        return None if self.database is None else (self.artifacts.resolve() / experiment).as_uri()

    @contextmanager
    def locked(self, name: str) -> Iterator[IO[str]]:
        """Hold the lock file `name` of this store; waits for other processes. Yields the open file."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        with (self.artifacts / f".{name}.lock").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _connection_uri(self) -> str:
        """The URI, changed to an equivalent one where the SQLite file was replaced during this process.

        MLflow caches a connection per URI. After the file was deleted, the cached connection still writes to
        the deleted one, so a new file gets a URI of its own: the same path with `/.` in it.
        """
        if self.database is None:
            return self.uri
        inode, generation = _generations.get(self.database, (0, 0))
        if inode and inode != _inode(self.database):
            generation += 1
            _generations[self.database] = (0, generation)
        return f"{SQLITE}{self.database.parent}{'/.' * generation}/{self.database.name}"

    def _remember(self) -> None:
        if self.database is not None:
            generation = _generations.get(self.database, (0, 0))[1]
            _generations[self.database] = (_inode(self.database), generation)

    def _explain(self, error: Exception) -> str:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if self.database is None:
            return f"cannot open the tracking store {self.uri}: {text}"
        return (
            f"cannot open the tracking store {self.uri}: {text} "
            f"It is a mirror of the run folders: delete {self.database} and run `harness sync` to rebuild it."
        )


def be_quiet() -> None:
    """No telemetry and no progress lines from MLflow, unless the user's environment says otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
