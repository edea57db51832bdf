"""Run folders -> MLflow: one experiment per study, one MLflow run per run, idempotent and incremental.

How far a run has been mirrored is a tag of its MLflow run (`mirrored`), written last. Killed at any point,
the next sync repeats at most what the tag does not cover; repeated points have the same step and time, and
MLflow keeps them once. Deleting the store loses nothing: the run folders are the truth.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from harness.errors import masked, printable
from harness.runs.folder import RunFolder
from harness.runs.records import reason
from harness.tracking import content
from harness.tracking.content import Cells, Change, Damaged, Marker, artifacts, mlflow_status, parameters
from harness.tracking.store import Store, StoreError, holders_of, in_words, is_server, within

if TYPE_CHECKING:
    from mlflow import MlflowClient


# The calls that write one run into MLflow, few and batched.


POINTS_PER_BATCH = (
    800  # MLflow takes 1,000 points, parameters and tags at once, 100 of either of the last two
)
PARAMETERS_PER_BATCH = 100
PAGE = 1000
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
NOTHING = Marker(offset=0, state="created", summary="").to_text()


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes into one experiment."""

    client: MlflowClient
    experiment_id: str
    study: str
    size: str

    def create(self, change: Change) -> tuple[str, str]:
        """A new MLflow run without content: its id and the place of its artifacts.

        It gets as many tags as possible: here MLflow inserts them at once, later one by one.
        """
        run = self.client.create_run(
            self.experiment_id,
            start_time=change.started_ms,
            tags={**change.identity(self.study, self.size), **change.description(), "mirrored": NOTHING},
            run_name=change.title(),
        )
        return run.info.run_id, run.info.artifact_uri

    def write(
        self,
        change: Change,
        mlflow_id: str,
        artifact_uri: str,
        *,
        is_new: bool,
        kept: Mapping[str, str] = NO_PARAMETERS,
    ) -> None:
        """Files, status, points, parameters; the tags come last, with the one that says how far this went.

        kept: long parameters that the run has already; MLflow changes none.
        """
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if change.summary is not None:
            repository = get_artifact_repository(artifact_uri, tracking_uri=self.client.tracking_uri)
            for path in artifacts(change.folder):
                self._log_artifact(repository, path)
        status = mlflow_status(change.marker.state)
        if status == "RUNNING":
            self.client.update_run(mlflow_id, status=status)
        else:
            self.client.set_terminated(mlflow_id, status, change.ended_ms)
        tags = change.conclusion() if is_new else {**change.description(), **change.conclusion()}
        points = [Metric(p.name, p.value, p.time_ms, p.step) for p in change.points]
        params = [Param(key, value) for key, value in {**parameters(change.spec), **kept}.items()]
        while len(points) > POINTS_PER_BATCH or len(params) > PARAMETERS_PER_BATCH:
            self.client.log_batch(
                mlflow_id, metrics=points[:POINTS_PER_BATCH], params=params[:PARAMETERS_PER_BATCH]
            )
            points, params = points[POINTS_PER_BATCH:], params[PARAMETERS_PER_BATCH:]
        self.client.log_batch(
            mlflow_id,
            metrics=points,
            params=params,
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def _log_artifact(self, repository: Any, path: str) -> None:
        uri = self.client.tracking_uri
        if is_server(uri):
            within(lambda: repository.log_artifact(path), uri, "log_artifact")
        else:
            repository.log_artifact(path)

    def delete(self, mlflow_id: str) -> None:
        """Mark a run as deleted; nothing reads it any more."""
        self.client.delete_run(mlflow_id)


def open_writer(store: Store, study: str, size: str) -> tuple[Writer, list[Any]]:
    """A writer for the study's experiment, created if needed, and the MLflow runs it has at this size.

    Raises:
        StoreError: the store cannot be opened.
    """
    client = store.client()
    store.follow()
    experiment_id = _experiment_id(client, store, study)
    return Writer(client, experiment_id, study, size), find_runs(client, experiment_id, size)


def _experiment_id(client: MlflowClient, store: Store, study: str) -> str:
    """The study's experiment; made if there is none, restored if it was deleted in MLflow's pages."""
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return client.create_experiment(study, artifact_location=store.artifact_location(study))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def find_runs(client: MlflowClient, experiment_id: str, size: str) -> list[Any]:
    """Every MLflow run (mlflow.entities.Run) of the experiment at this size."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.size = '{size}'", max_results=PAGE, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


# Which runs are written, and how far each has come.


_log = logging.getLogger(__name__)
REFUSED = "INVALID_PARAMETER_VALUE"  # what MLflow says of a name or value that it cannot keep


@dataclass(slots=True)
class SyncCount:
    """What one sync did, in runs."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0  # folders without a spec or without any event, and damaged ones


Stamp = tuple[tuple[int, int] | None, ...]  # (modified, size) of the events and the summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A run as the store has it."""

    mlflow_id: str
    artifact_uri: str
    marker: Marker
    rows: str
    env: str
    long: Mapping[str, str] = field(default_factory=dict)  # parameters as an earlier version wrote them
    stamp: Stamp | None = None  # of the files, where they were seen whole by this process

    @staticmethod
    def new(change: Change, mlflow_id: str, artifact_uri: str) -> Known:
        """Of a run that the store has just got."""
        return Known(
            mlflow_id=mlflow_id,
            artifact_uri=artifact_uri,
            marker=change.marker,
            rows=change.rows,
            env=change.env,
        )


@dataclass(slots=True)
class Mirror:
    """Mirrors the run folders of one study at one size.

    cells: arm_id -> the table cells that it answers, each {"table", "row", "column"}.
    """

    store: Store
    study: str
    size: str
    cells: Cells = field(default_factory=dict)
    _known: dict[str, Known] = field(default_factory=dict, init=False)
    _token: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    _writer: Writer | None = field(default=None, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    def sync(self, folders: Iterable[RunFolder]) -> SyncCount:
        """Bring the store up to date with the folders. Doing it twice changes nothing the second time.

        A folder with a damaged file is left out, and logged once.

        Raises:
            StoreError: the store cannot be opened, or was lost on the way: the next sync goes on from there.
        """
        count = SyncCount()
        with self.store.locked(f"mirror-{self.study}") as lock:
            self.store.require_writable()
            lock.seek(0)
            seen = lock.read()
            if self._writer is None or seen != self._token or not self.store.exists():
                # The first time, another process has written since, or the store was deleted.
                self._open()
                lock.truncate(0)
                lock.write(self._token)
            try:
                for folder in folders:
                    self._sync_unless_damaged(folder, count)
            except StoreError:
                raise
            except Exception as error:  # of MLflow, SQLAlchemy, the driver or the network
                self._writer = None  # what the store has is read again
                raise StoreError(self._lost(error)) from error
        return count

    def _lost(self, error: Exception) -> str:
        why = masked(in_words(error), self.store.uri)
        if self.store.database is not None and "database is locked" in why:
            why = f"{holders_of(self.store.database)} holds it"
        return (
            f"lost the tracking store {self.store.shown}: {why}; the run folders have everything, and"
            " `harness sync` goes on from here"
        )

    def _sync_unless_damaged(self, folder: RunFolder, count: SyncCount) -> None:
        try:
            self._sync_one(folder, count)
        except Damaged as error:
            self._leave_out(str(error), count)
        except Exception as error:
            if is_in(error, folder):
                self._leave_out(f"{error.filename} cannot be read ({reason(error)})", count)  # type: ignore[attr-defined]
            elif getattr(error, "error_code", None) == REFUSED:
                why = f"{folder.path}: MLflow refuses it ({in_words(error)}); the run folder keeps all of it"
                self._leave_out(why, count)
            else:
                raise

    def _leave_out(self, why: str, count: SyncCount) -> None:
        count.skipped += 1
        why = printable(masked(why, self.store.uri))
        if why not in self._said:
            self._said.add(why)
            _log.warning("%s. Other runs are not affected.", why)

    def _open(self) -> None:
        self._writer, runs = open_writer(self.store, self.study, self.size)
        self._known = {}
        for run in runs:
            if "run_id" not in run.data.tags:
                continue  # not one of ours
            marker = content.marker_of(run.data.tags)
            if marker is None or (marker.summary and not _has_files(run.info.artifact_uri)):
                self._writer.delete(run.info.run_id)
                continue
            self._known[run.data.tags["run_id"]] = Known(
                mlflow_id=run.info.run_id,
                artifact_uri=run.info.artifact_uri,
                marker=marker,
                rows=run.data.tags.get("rows", ""),
                env=run.data.tags.get("env", ""),
                long={
                    key: text
                    for key, text in run.data.params.items()
                    if len(text) > content.LONGEST_PARAMETER
                },
            )

    def _sync_one(self, folder: RunFolder, count: SyncCount) -> None:
        assert self._writer is not None
        known = self._known.get(folder.run_id)
        stamp = stamp_of(folder)
        if known is not None and known.marker.has_ended and known.stamp == stamp:
            count.unchanged += 1  # most folders of a long study, at every round
            return
        if known is not None and content.was_replaced(folder, known.marker):
            self._writer.delete(known.mlflow_id)
            known = self._known.pop(folder.run_id) and None
        change = content.read_change(folder, known.marker if known else None, self.cells)
        if change is None:
            count.skipped += 1
        elif known is None:
            mlflow_id, artifact_uri = self._writer.create(change)
            self._write(change, Known.new(change, mlflow_id, artifact_uri), is_new=True)
            count.created += 1
        elif (change.marker, change.rows, change.env or known.env) != (known.marker, known.rows, known.env):
            self._write(change, known, is_new=False)
            count.updated += 1
        else:
            count.unchanged += 1
        if folder.run_id in self._known:
            self._known[folder.run_id] = replace(self._known[folder.run_id], stamp=stamp)

    def _write(self, change: Change, known: Known, *, is_new: bool) -> None:
        assert self._writer is not None
        self._writer.write(change, known.mlflow_id, known.artifact_uri, is_new=is_new, kept=known.long)
        now = replace(known, marker=change.marker, rows=change.rows, env=change.env, stamp=None)
        self._known[change.folder.run_id] = now


def _has_files(artifact_uri: str) -> bool:
    """Whether the files of a run that has ended are still there, where they are on this machine's disk."""
    return not artifact_uri.startswith("file:///") or os.path.isdir(unquote(urlsplit(artifact_uri).path))


def is_in(error: Exception, folder: RunFolder) -> bool:
    """Whether it is a file of the run folder that cannot be used; else it is the store."""
    name = getattr(error, "filename", None)
    return (
        isinstance(error, OSError)
        and name is not None
        and Path(os.fsdecode(name)).is_relative_to(folder.path)
    )


def stamp_of(folder: RunFolder) -> Stamp:
    """Changes whenever the events or the summary do."""
    stats = (path.stat() if path.exists() else None for path in (folder.events, folder.summary))
    return tuple((stat.st_mtime_ns, stat.st_size) if stat else None for stat in stats)


# Mirroring while runs train: a background thread of the controller that never disturbs it.


_live_log = logging.getLogger(__name__)


class LiveMirror:
    """Syncs every `every_s` seconds until it is closed; `close` syncs once more.

    `folders` may name runs that have not begun; those are skipped until they have. The mirror is made in the
    thread, so that importing MLflow and creating the store delay no run. An error is logged and kept in
    `problem`; the next round tries again, and `harness sync` can always repair it later.
    """

    def __init__(
        self,
        make_mirror: Callable[[], Mirror],
        folders: Collection[RunFolder],
        every_s: float = 2.0,
    ) -> None:
        self._make_mirror = make_mirror
        self._folders = folders
        self._every_s = every_s
        self._mirror: Mirror | None = None
        self._closing = threading.Event()
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._loop, name="mirror", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 120.0) -> str | None:
        """Sync everything once more and stop the thread.

        Returns:
            None where the last sync went through, else what went wrong, in one line.
        """
        self._closing.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problem = f"the MLflow mirror did not finish within {timeout_s:.0f} s"
        return self.problem

    def __enter__(self) -> LiveMirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _loop(self) -> None:
        while not self._closing.wait(self._every_s):
            self._sync()
        self._sync()

    def _sync(self) -> None:
        try:
            if self._mirror is None:
                if not any(folder.path.exists() for folder in self._folders):
                    return  # nothing has begun: what was refused leaves no empty store behind
                self._mirror = self._make_mirror()
            self._mirror.sync(tuple(self._folders))
            self.problem = None
        except Exception as error:
            message = (str(error).splitlines() or [""])[0]
            text = f"{type(error).__name__}: {message}"
            if text != self.problem:  # once, not every two seconds
                _live_log.warning(
                    "the MLflow mirror is behind (%s); `harness sync` brings it up to date", text
                )
            self.problem = text
