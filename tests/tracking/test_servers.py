"""The mirror on real servers: PostgreSQL, and MLflow's own tracking server over SQLite and over PostgreSQL.

`make test-servers`. Each test compares with the frames of the usual SQLite file, bit for bit.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.runs.folder import RunFolder
from harness.spec import DIVERGED
from harness.tracking import store
from harness.tracking.collect import collect
from harness.tracking.mirror import Mirror, Writer
from harness.tracking.store import Store, StoreError, ui_command, ui_environment
from tests.fuzz.workplace import finished_study
from tests.tracking.folders import epoch, finish, finished, observer_spec, run_spec, start
from tests.tracking.servers import HOST, Postgres, Server, free_port, listening, mlflow_server, postgres

ROOT = Path(__file__).parents[2]
STUDY, SIZE = "bag_of_tricks", "mini"
# Until an error is said: less than MLflow's own limit of 134 s, and more than imports take on a busy machine.
PATIENCE_S = 100.0

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def template(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with MLflow's tables, which take seconds to make."""
    uri = database.fresh()
    Store(uri, tmp_path_factory.mktemp("template")).client()
    return database.databases[-1]


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Servers that are put here are killed after the test."""
    started: list[Server] = []
    yield started
    for server in started:
        server.kill()


@pytest.fixture
def folders(runs_dir: Path) -> list[RunFolder]:
    """Finished, diverged and interrupted runs, an ensemble, a metric of a plugin, NaN and infinity."""
    done = [finished(runs_dir, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (1, 0)]
    killed, diverged, rich = (start(runs_dir, run_spec(lr=lr)) for lr in (0.3, 0.4, 0.5))
    ensemble = start(runs_dir, observer_spec())
    epoch(killed, 1)
    epoch(diverged, 1, train_loss=float("nan"))
    epoch(diverged, 2, train_loss=float("inf"))
    finish(diverged, run_spec(lr=0.4), status=DIVERGED)
    finish(rich, run_spec(lr=0.5), macro_f1=1 / 7)
    finish(ensemble, observer_spec(), epochs=0)
    return [*done, killed, diverged, rich, ensemble]


def counts(sync: Any) -> tuple[int, ...]:
    return tuple(asdict(sync).values())  # created, updated, unchanged, skipped


def assert_mirrors_like_sqlite(store: Store, sqlite: Store, folders: list[RunFolder]) -> None:
    """Everything is new at first, nothing the second time, and the frames are those of the SQLite file."""
    mirror = Mirror(store, STUDY, SIZE)
    assert counts(mirror.sync(folders)) == (len(folders), 0, 0, 0)
    assert counts(mirror.sync(folders)) == (0, 0, len(folders), 0)
    assert_same_frames(store, sqlite, folders)


def assert_same_frames(store: Store, sqlite: Store, folders: list[RunFolder]) -> None:
    Mirror(sqlite, STUDY, SIZE).sync(folders)
    for ours, usual in zip(collect(store, STUDY, SIZE), collect(sqlite, STUDY, SIZE), strict=True):
        assert len(usual) > 5
        pd.testing.assert_frame_equal(ours, usual, check_exact=True)


def test_postgresql_gives_the_frames_of_sqlite_and_a_second_sync_changes_nothing(
    database: Postgres, template: str, store: Store, folders: list[RunFolder], tmp_path: Path
) -> None:
    uri = database.fresh(template)
    ours = Store(uri, tmp_path / "artifacts")
    assert_mirrors_like_sqlite(ours, store, folders)
    before = database.content(uri)
    assert sum(map(len, before.values())) > 300
    assert counts(Mirror(ours, STUDY, SIZE).sync(folders)) == (0, 0, len(folders), 0)  # as another process
    assert database.content(uri) == before
    assert (ours.artifacts / STUDY).is_dir()  # beside the runs, not wherever the command was called


def test_a_report_from_postgresql_has_the_bytes_of_one_from_sqlite(
    database: Postgres, template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = finished_study(tmp_path)
    uri = database.fresh(template)
    for out, more in (("usual", []), ("ours", ["--tracking-uri", uri])):
        assert place.harness("sync", *more) == 0
        assert place.harness("report", "--out", str(tmp_path / out), *more) == 0
    capsys.readouterr()
    usual = {
        path.relative_to(tmp_path / "usual"): path.read_bytes() for path in (tmp_path / "usual").rglob("*.*")
    }
    assert len(usual) > 10
    for path, content in usual.items():
        assert (tmp_path / "ours" / path).read_bytes() == content, path


def test_an_mlflow_server_over_sqlite_killed_in_the_middle_and_started_again(
    store: Store,
    folders: list[RunFolder],
    tmp_path: Path,
    servers: list[Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind = Store.beside(tmp_path / "behind" / "runs")
    behind.artifacts.parent.mkdir()
    shutil.copyfile(store.database or "", behind.database or "")
    server = mlflow_server(behind.uri, tmp_path / "behind")
    servers.append(server)
    server.start()
    assert server.process is not None
    assert listening(server.process.pid) == {f"{HOST}:{server.port}"}
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    _kill_when_begun(3, server, monkeypatch)
    ours = Store(server.uri, tmp_path / "locks")
    mirror = Mirror(ours, STUDY, SIZE)
    began_s = time.monotonic()
    with pytest.raises(StoreError, match=f"lost the tracking store {server.uri}.*harness sync"):
        mirror.sync(folders)
    assert time.monotonic() - began_s < PATIENCE_S
    with pytest.raises(StoreError, match=f"cannot open the tracking store {server.uri}.*refused"):
        mirror.sync(folders)
    server.start()
    assert counts(mirror.sync(folders)) == (len(folders) - 3, 1, 2, 0)  # two were whole, one had been begun
    assert counts(Mirror(ours, STUDY, SIZE).sync(folders)) == (0, 0, len(folders), 0)
    assert_same_frames(ours, store, folders)


def _kill_when_begun(runs: int, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the server once so many runs were begun; the last of them has nothing yet."""
    begun: list[str] = []
    create = Writer.create

    def counted(self: Writer, change: Any) -> tuple[str, str]:
        made = create(self, change)
        begun.append(change.folder.run_id)
        if len(begun) == runs:
            server.kill()
        return made

    monkeypatch.setattr(Writer, "create", counted)


def test_an_mlflow_server_over_postgresql_gives_the_frames_of_sqlite(
    database: Postgres,
    template: str,
    store: Store,
    folders: list[RunFolder],
    tmp_path: Path,
    servers: list[Server],
) -> None:
    uri = database.fresh(template)
    server = mlflow_server(uri, tmp_path)
    servers.append(server)
    server.start()
    ours = Store(server.uri, tmp_path / "locks")
    assert_mirrors_like_sqlite(ours, store, folders)
    before = database.content(uri)
    assert counts(Mirror(ours, STUDY, SIZE).sync(folders)) == (0, 0, len(folders), 0)
    assert database.content(uri) == before
    database.disconnect(database.databases[-1])  # as a restart of the database does
    assert counts(Mirror(ours, STUDY, SIZE).sync(folders)) == (0, 0, len(folders), 0)


def test_the_pages_listen_on_this_machine_only_and_no_password_is_in_a_command_line(
    database: Postgres, template: str, tmp_path: Path, servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, port = database.fresh(template), free_port()
    for name, value in ui_environment(Store(uri, tmp_path)).items():
        monkeypatch.setenv(name, value)
    pages = Server(ui_command(port), port, tmp_path)
    servers.append(pages)
    pages.start()
    assert pages.process is not None
    assert listening(pages.process.pid) == {f"{HOST}:{port}"}
    secret = uri.partition("@")[0].rpartition(":")[2].encode()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert any(b"mlflow" in line for line in lines)
    assert not any(secret in line for line in lines)


def test_a_store_of_another_version_of_mlflow_is_explained(
    database: Postgres, template: str, store: Store, tmp_path: Path
) -> None:
    uri = database.fresh(template)
    other = "UPDATE alembic_version SET version_num = '0123456789ab'"
    database.sql(other, database.databases[-1])
    with pytest.raises(StoreError, match=r"0123456789ab|another version"):
        Store(uri, tmp_path).client()
    with closing(sqlite3.connect(store.database or "")) as connection:
        connection.execute(other)
        connection.commit()
    with pytest.raises(StoreError, match=r"0123456789ab.* delete .* and run `harness sync` to rebuild"):
        store.client()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nonsense://x", "unsupported URI"),
        ("postgresql://me:hush@no.such.host/x", "no.such.host"),
        ("postgresql://me:hush@127.0.0.1:{free}/x", "refused"),
        ("http://127.0.0.1:{free}", "refused"),
        ("http://me:hush@no.such.host:5000", "no.such.host|not known"),
        ("postgresql://me:hush@127.0.0.1:{silent}/x", "timeout|timed out"),
        ("http://127.0.0.1:{silent}", r"no whole answer \(\w+\) within 2 s"),
        ("{database}_not_there", "does not exist"),
        ("{wrong_password}", "password authentication failed"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_error_within_seconds_and_shows_no_password(
    uri: str, says: str, database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT_S", 2.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server((HOST, 0)) as silent:  # takes connections and never answers
        known = {"free": free_port(), "silent": silent.getsockname()[1], "database": database.uri("x")}
        known["wrong_password"] = database.uri("postgres", "hush")
        began_s = time.monotonic()
        with pytest.raises(StoreError, match=says) as caught:
            Store(uri.format(**known), tmp_path).client()
    assert time.monotonic() - began_s < PATIENCE_S
    assert "hush" not in str(caught.value)
    assert database.uri("x").split(":")[2].partition("@")[0] not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_command_line_says_it_in_one_sentence_and_exits_with_2(tmp_path: Path) -> None:
    place = finished_study(tmp_path)
    uri = f"postgresql://me:hush@{HOST}:{free_port()}/x"
    command = [sys.executable, "-m", "harness.cli", "sync", str(place.study), "--runs", str(place.runs_dir)]
    done = subprocess.run(
        [*command, "--tracking-uri", uri], capture_output=True, text=True, timeout=600, cwd=ROOT
    )
    assert done.returncode == 2
    first, *_ = done.stderr.splitlines()
    assert first.startswith(f"cannot open the tracking store postgresql://***@{HOST}:")
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr
