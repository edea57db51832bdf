"""What goes wrong between run folders and the store is named and waited for within limits; no run is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.runs import records
from harness.runs.folder import RunFolder
from harness.spec import Arm, RunSpec
from harness.tracking import store as opening
from harness.tracking.collect import collect
from harness.tracking.content import IN_ARTIFACT, LONGEST_PARAMETER, parameters
from harness.tracking.mirror import Mirror
from harness.tracking.store import ReadOnlyStore, Store, StoreError
from tests.tracking.folders import epoch, finish, finished, run_spec, start
from tests.tracking.test_mirror import SIZE, STUDY, counts, mirror, mlflow_runs


@pytest.fixture(autouse=True)
def new_command() -> None:
    records.begin()


# D19: one run that cannot be read


@pytest.mark.parametrize("name", ["events.jsonl", "predictions.bin", "spec.json", "summary.json"])
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_mirrored(
    name: str, store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [finished(runs_dir, seed=seed) for seed in range(3)]
    spoiled = str(folders[1].path / name)
    really = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path) == spoiled:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    mirror(store).sync(folders)
    monkeypatch.undo()
    ended = {run_id for run_id, run in mlflow_runs(store).items() if run.data.tags["status"] == "finished"}
    assert ended == {folders[0].run_id, folders[2].run_id}
    [said] = {record.getMessage() for record in caplog.records}
    assert spoiled in said
    assert "Permission denied" in said
    assert "lost the tracking store" not in said


def test_what_the_store_refuses_of_one_run_stops_no_other(
    store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    folders = [finished(runs_dir, seed=seed) for seed in range(2)]
    really = MlflowClient.create_run

    def refuse(self: Any, experiment_id: str, **about: Any) -> Any:
        if about["tags"]["run_id"] == folders[0].run_id:
            raise MlflowException.invalid_parameter_value("no such thing")
        return really(self, experiment_id, **about)

    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    assert counts(mirror(store).sync(folders)) == (1, 0, 0, 1)
    [said] = [record.getMessage() for record in caplog.records]
    assert folders[0].run_id in said
    assert "no such thing" in said
    assert "delete" not in said


# B11: long summaries and parameters

MANY = {f"probability_of_class_{index:03d}": index / 7 for index in range(200)}


def long_run(runs_dir: Path) -> RunFolder:
    """A finished run with 200 metrics of a plugin, which its recipe names too."""
    spec = RunSpec(arm=Arm(recipe=replace(run_spec().arm.recipe, metrics=tuple(MANY))), seed=0)
    folder = start(runs_dir, spec)
    epoch(folder, 1)
    finish(folder, spec, epochs=1, **MANY)
    return folder


def test_a_summary_that_no_tag_holds_comes_back_exactly(store: Store, runs_dir: Path) -> None:
    folder = long_run(runs_dir)
    assert folder.summary.stat().st_size > 8000
    assert counts(mirror(store).sync([folder])) == (1, 0, 0, 0)
    tags = mlflow_runs(store)[folder.run_id].data.tags
    assert tags["summary"].startswith(IN_ARTIFACT)
    records, _ = collect(store, STUDY, SIZE)
    assert {name: records[name][0] for name in MANY} == MANY
    summary = folder.read_summary()
    assert summary is not None
    assert records["top1"][0] == summary["metrics"]["top1"]
    assert counts(mirror(store).sync([folder])) == (0, 0, 1, 0)


def test_a_summary_that_an_earlier_version_cut_is_mirrored_again(store: Store, runs_dir: Path) -> None:
    folder = long_run(runs_dir)
    mirror(store).sync([folder])
    mlflow_id = mlflow_runs(store)[folder.run_id].info.run_id
    whole = json.dumps(folder.read_summary(), sort_keys=True, separators=(",", ":"))
    store.client().set_tag(mlflow_id, "summary", whole[:7997] + "...")
    with pytest.raises(StoreError, match="cannot be read"):
        collect(store, STUDY, SIZE)
    assert counts(mirror(store).sync([folder])) == (1, 0, 0, 0)
    records, _ = collect(store, STUDY, SIZE)
    assert {name: records[name][0] for name in MANY} == MANY


def test_a_summary_whose_artifact_changed_is_refused(store: Store, runs_dir: Path) -> None:
    folder = long_run(runs_dir)
    mirror(store).sync([folder])
    [artifact] = store.artifacts.rglob("summary.json")
    artifact.write_bytes(artifact.read_bytes().replace(b"2.0", b"3.0", 1))
    with pytest.raises(StoreError, match="has changed"):
        collect(store, STUDY, SIZE)


def test_every_parameter_fits_every_server_and_the_whole_text_is_in_an_artifact(
    store: Store, runs_dir: Path
) -> None:
    folder = long_run(runs_dir)
    given = parameters(json.loads(folder.spec.read_text()))
    assert max(map(len, given.values())) == LONGEST_PARAMETER
    assert given["metrics"].endswith(" ... (see spec.json)")
    mirror(store).sync([folder])
    [artifact] = store.artifacts.rglob("spec.json")
    assert artifact.read_bytes() == folder.spec.read_bytes()


def test_a_run_whose_long_parameters_an_earlier_version_wrote_goes_on(store: Store, runs_dir: Path) -> None:
    folder = long_run(runs_dir)
    summary = folder.summary.read_bytes()
    folder.summary.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.tracking.content.LONGEST_PARAMETER", 6000)
        mirror(store).sync([folder])
    before = mlflow_runs(store)[folder.run_id].data.params
    assert len(before["metrics"]) > 4000
    folder.summary.write_bytes(summary)
    assert counts(mirror(store).sync([folder])) == (0, 1, 0, 0)
    after = mlflow_runs(store)[folder.run_id]
    assert (after.data.params, after.data.tags["status"]) == (before, "finished")


# D21: locked by another program

HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def held(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program has locked the file."""
    command = [sys.executable, "-c", HOLD, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_locked_store_is_waited_for_then_its_holder_is_named(
    store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "PATIENCE_S", 0.2)
    monkeypatch.setattr(opening.check_file, "__kwdefaults__", {"writes": False, "wait_s": 0.5})
    folder = finished(runs_dir)
    assert store.database is not None
    with held(store.database) as process:
        for use in (lambda: mirror(store).sync([folder]), lambda: collect(store, STUDY, SIZE), store.client):
            with pytest.raises(StoreError) as caught:
                use()
            said = str(caught.value)
            assert f"process {process.pid} (" in said
            assert "delete" not in said
        assert "waiting for" in caplog.text
    assert counts(mirror(store).sync([folder])) == (1, 0, 0, 0)


def test_a_store_that_is_let_go_in_time_is_used(store: Store, runs_dir: Path) -> None:
    assert opening.LOCKED_S == 60.0
    folder = finished(runs_dir)
    assert store.database is not None
    with held(store.database) as process:
        threading.Timer(0.3, process.kill).start()
        assert counts(mirror(store).sync([folder])) == (1, 0, 0, 0)


# D21: servers that answer late or never


class Slow(BaseHTTPRequestHandler):
    """Asks to be asked again in ten minutes, or sends a byte now and then for ever."""

    def do_GET(self) -> None:
        if self.server.drips:  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with contextlib.suppress(OSError):
                while not self.server.over.wait(0.02):  # type: ignore[attr-defined]
                    self.wfile.write(b" ")
                    self.wfile.flush()
            return
        self.server.asked += 1  # type: ignore[attr-defined]
        self.send_response(429)
        self.send_header("Retry-After", "600")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def slow_server(*, drips: bool) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.drips, server.over, server.asked = drips, threading.Event(), 0  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("drips", [True, False], ids=["one byte at a time", "Retry-After: 600"])
def test_a_server_has_a_limit_for_its_whole_answer_and_it_is_said_that_it_is_waited_for(
    drips: bool, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "SILENT_S", 0.2)
    monkeypatch.setattr(opening, "deadline_s", lambda: 1.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with slow_server(drips=drips) as uri:
        with pytest.raises(StoreError, match="cannot open the tracking store"):
            Store(uri, runs_dir.parent / "mlartifacts").client()
        if drips:  # else it is not asked again at the time it says
            assert f"waiting for the tracking server {uri} (search_experiments), at most" in caplog.text


def test_the_limit_is_that_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    assert opening.deadline_s() == 134.0


def test_an_answer_in_time_is_given_on_and_so_is_an_error() -> None:
    assert opening.within(lambda: 7, "http://h", "x", limit_s=5) == 7
    with pytest.raises(KeyError, match="a"):
        opening.within(lambda: {}["a"], "http://h", "x", limit_s=5)
    with pytest.raises(TimeoutError, match=r"no whole answer \(x\) within 0 s"):
        opening.within(threading.Event().wait, "http://h", "x", limit_s=0.05)


# D22: a store that can only be read


def test_a_store_that_can_only_be_read_is_read_and_says_why_nothing_is_mirrored(
    store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(runs_dir)
    mirror(store).sync([folder])
    really = Path.open

    def refuse(self: Path, *rest: Any, **more: Any) -> Any:
        if self.suffix == ".lock":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return really(self, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ReadOnlyStore, match="nothing can be mirrored"):
        Mirror(store, STUDY, SIZE).sync([folder])
    assert store.client().search_experiments(max_results=1)


def test_a_file_that_refuses_writes_is_read_only(
    store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(runs_dir)
    mirror(store).sync([folder])

    def refuse(database: Path, timeout_s: float, *, writes: bool) -> None:
        if writes:
            raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(opening, "_try_file", refuse)
    with pytest.raises(ReadOnlyStore, match="can be read only"):
        mirror(store).sync([folder])
    assert len(collect(store, STUDY, SIZE)[0]) == 1
