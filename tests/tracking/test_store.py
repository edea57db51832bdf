"""The store is created once however many processes open it, speaks plainly when broken, and stays private."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from harness import cli
from harness.runs.folder import RunFolder
from harness.tracking.collect import collect
from harness.tracking.mirror import LiveMirror, Mirror, SyncCount
from harness.tracking.store import (
    HOST,
    URI_VARIABLE,
    Store,
    StoreError,
    require_free,
    serve,
    ui_command,
    ui_environment,
)
from tests.conftest import mostly_campaign
from tests.timing import PATIENCE_S
from tests.tracking.folders import finished, run_spec

OPEN = """
import sys
from pathlib import Path
from harness.tracking.store import Store
store = Store.beside(Path(sys.argv[1]))
client = store.client()
client.create_experiment(sys.argv[2])
print(len(client.search_experiments()))
"""


@pytest.mark.campaign
def test_processes_that_open_a_fresh_store_at_once_all_succeed(runs_dir: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", OPEN, str(runs_dir)]
    children = [
        subprocess.Popen(
            [*command, f"study{number}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for child in children:
        _, errors = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, errors
        assert errors == ""  # no progress lines, no warnings
    database = Store.beside(runs_dir).database
    with closing(sqlite3.connect(database)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM experiments")}
    assert {"study0", "study1"} <= names


def test_importing_the_package_imports_neither_mlflow_nor_pandas() -> None:
    code = (
        "import sys, harness.tracking.mirror, harness.tracking.collect\n"
        "import harness.tracking.mirror, harness.tracking.store\n"
        "print([m for m in ('mlflow', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_store_is_beside_the_runs_folder(tmp_path: Path) -> None:
    store = Store.beside(tmp_path / "runs")
    assert store.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.artifacts == tmp_path / "mlartifacts"
    assert not store.exists()


def test_a_relative_sqlite_uri_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("sqlite:///runs.db", tmp_path).database == tmp_path / "runs.db"


def test_a_broken_database_is_explained(runs_dir: Path) -> None:
    store = Store.beside(runs_dir)
    store.database.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match=r"delete .*mlflow\.db and run `harness sync`"):
        store.client()
    with pytest.raises(StoreError, match=r"delete it and run `harness sync`"):
        collect(store, "any", "mini")


def test_an_unknown_tracking_uri_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the tracking store nonsense://x"):
        Store("nonsense://x", tmp_path).client()


def test_the_user_interface_is_for_this_machine_only() -> None:
    command = ui_command(5123)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5123"
    assert command[:4] == [sys.executable, "-m", "mlflow", "ui"]


@pytest.mark.usefixtures("stores_are_made")
@pytest.mark.parametrize(
    "name", mostly_campaign(["a?b", "x?y=z", "50%25", "a#b", "[a]* b", "\u732b"], "x?y=z")
)
def test_a_store_may_lie_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    """In a URI a ? begins the options, and SQLAlchemy 2.1 resolves %-signs."""
    runs_dir = tmp_path / name / "runs"
    done = finished(runs_dir)
    store = Store.beside(runs_dir)
    assert store.database == tmp_path / name / "mlflow.db"
    Mirror(store, "study", "mini").sync([done])
    records, _ = collect(store, "study", "mini")
    assert records["run_id"].tolist() == [done.run_id]
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["mlartifacts", "mlflow.db", "runs"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def stored(runs_dir: Path, *seeds: int) -> Store:
    """A project with one run, mirrored."""
    store = Store.beside(runs_dir)
    Mirror(store, "study", "mini").sync([finished(runs_dir, seed=seed) for seed in seeds])
    return store


def artifact_uris(store: Store) -> set[str]:
    assert store.database is not None
    with closing(sqlite3.connect(store.database)) as connection:
        runs = "SELECT artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
        uris = f"{runs} UNION SELECT artifact_location FROM experiments WHERE name = 'study'"
        return {uri for (uri,) in connection.execute(uris)}


@pytest.mark.parametrize("is_copied", [True, False], ids=["copied", "moved"])
def test_a_project_that_was_moved_or_copied_has_its_own_artifacts(tmp_path: Path, is_copied: bool) -> None:
    stored(tmp_path / "old" / "runs", 0)
    new = tmp_path / "new %41?"
    (shutil.copytree if is_copied else shutil.move)(tmp_path / "old", new)
    store = Store.beside(new / "runs")
    if is_copied:  # of two that are there, its own
        for path in (tmp_path / "old" / "mlartifacts").rglob("predictions.bin"):
            path.write_bytes(b"of the other project")
    assert len(collect(store, "study", "mini")[0]) == 1, "it is read before anybody repairs it"
    [run] = (new / "runs").glob("[!.]*")
    count = Mirror(store, "study", "mini").sync([RunFolder(run), finished(new / "runs", seed=1)])
    assert (count.created, count.unchanged) == (1, 1)
    assert all(uri.startswith(store.artifacts.resolve().as_uri()) for uri in artifact_uris(store))
    assert len(collect(store, "study", "mini")[0]) == 2
    old = len(list((tmp_path / "old").rglob("summary.json"))) if is_copied else 2
    assert old == 2, "nothing was written into the old place"


def test_a_store_that_came_without_its_artifacts_gets_them_from_the_run_folders(tmp_path: Path) -> None:
    store = stored(tmp_path / "old" / "runs", 0)
    new = tmp_path / "new"
    shutil.copytree(tmp_path / "old", new, ignore=shutil.ignore_patterns("mlartifacts"))
    shutil.rmtree(store.artifacts)
    store = Store.beside(new / "runs")
    with pytest.raises(StoreError, match=r"predictions\.bin is missing in .*: the folder was moved; delete"):
        collect(store, "study", "mini")
    [run] = (new / "runs").glob("[!.]*")
    Mirror(store, "study", "mini").sync([RunFolder(run)])
    assert len(collect(store, "study", "mini")[0]) == 1
    assert Mirror(store, "study", "mini").sync([RunFolder(run)]).unchanged == 1


def test_a_store_elsewhere_keeps_the_places_that_it_names(tmp_path: Path) -> None:
    store = stored(tmp_path / "old" / "runs", 0)
    before = artifact_uris(store)
    other = Store(store.uri, tmp_path / "other" / "mlartifacts")
    other.follow()
    assert artifact_uris(other) == before
    assert len(collect(other, "study", "mini")[0]) == 1


def test_options_of_a_sqlite_uri_are_no_part_of_the_file_s_name(tmp_path: Path) -> None:
    assert Store(f"sqlite:///{tmp_path}/my.db?timeout=9", tmp_path).database == tmp_path / "my.db"


def test_pages_on_a_taken_port_are_one_sentence_and_nothing_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["ui", "--port", str(port), "--runs", str(tmp_path / "runs")]) == cli.USAGE_ERROR
    said = capsys.readouterr()
    assert said.out == ""
    first, last = said.err.splitlines()
    assert first.startswith(f"cannot serve on port {port}: Address already in use; say another one")
    assert last == "1 problem; no run is lost by it."
    with pytest.raises(StoreError, match=r"there is no port 70000: ports go to 65535"):
        require_free(70_000)


def test_pages_are_announced_once_they_are_there() -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    serve_once = f"import socket; s = socket.create_server(('{HOST}', {port})); s.accept(); s.accept()"
    said: list[str] = []

    def say() -> None:
        said.append("listens")
        socket.create_connection((HOST, port)).close()

    assert serve([sys.executable, "-c", serve_once], {}, port, say) == 0
    assert said == ["listens"]
    with pytest.raises(StoreError, match="ended with code 3 before it listened"):
        serve([sys.executable, "-c", "raise SystemExit(3)"], {}, port, say)
    assert said == ["listens"]


def test_no_address_of_a_store_is_on_a_command_line(tmp_path: Path) -> None:
    store = Store("postgresql://db/x?password=hush", tmp_path)
    assert "hush" in ui_environment(store)[URI_VARIABLE]
    assert not any("postgresql" in part for part in ui_command(5000))


def test_without_the_whole_of_mlflow_its_pages_say_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tracking.store.find_spec", lambda name: None if name == "flask" else name)
    with pytest.raises(StoreError, match=r"mlflow-skinny.*: pip install mlflow$"):
        ui_environment(store)


def test_a_database_without_what_reads_it_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tracking.store.find_spec", lambda name: None if name == "alembic" else name)
    with pytest.raises(StoreError, match=r"needs alembic beside mlflow-skinny: pip install alembic; "):
        store.client()


SKINNY = """
import sys
WHOLE = {"flask", "flask_cors", "graphene", "gunicorn", "huey", "docker", "pyarrow", "skops", "waitress",
         "aiohttp", "sklearn"}  # what mlflow needs and mlflow-skinny does not
class Whole:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in WHOLE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Whole())
from pathlib import Path
from harness.tracking.store import Store
client = Store.beside(Path("runs")).client()
client.create_experiment("mine")
print([each.name for each in client.search_experiments()])
"""


@pytest.mark.campaign
def test_a_store_needs_no_more_than_mlflow_skinny_sqlalchemy_and_alembic(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SKINNY], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "['mine', 'Default']", done.stderr


def test_the_live_mirror_follows_and_closes_with_everything(store: Store, runs_dir: Path) -> None:
    folders = [RunFolder(runs_dir / run_spec(seed=seed).run_id) for seed in (0, 1)]
    finished(runs_dir, seed=0)
    synced = threading.Event()

    class Watched(Mirror):
        def sync(self, folders: Iterable[RunFolder]) -> SyncCount:
            count = super().sync(folders)
            synced.set()
            return count

    live = LiveMirror(lambda: Watched(store, "study", "mini"), folders, every_s=0.01)
    assert synced.wait(PATIENCE_S)
    assert collect(store, "study", "mini")[0]["seed"].tolist() == [0]
    finished(runs_dir, seed=1)
    assert live.close() is None
    assert collect(store, "study", "mini")[0]["seed"].tolist() == [0, 1]
    assert not live._thread.is_alive()


def test_no_mirror_is_made_for_runs_that_never_begin(store: Store, runs_dir: Path) -> None:
    made: list[Mirror] = []

    def make() -> Mirror:
        made.append(Mirror(store, "study", "mini"))
        return made[-1]

    folders = [RunFolder(runs_dir / run_spec(seed=0).run_id)]
    assert LiveMirror(make, folders, every_s=0.01).close() is None
    assert not made  # so that what was refused leaves no empty store behind
    finished(runs_dir, seed=0)
    assert LiveMirror(make, folders).close() is None
    assert len(made) == 1


def test_the_live_mirror_never_raises_into_the_controller(
    runs_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Mirror:
        raise OSError("disk full\nmore")

    folder = RunFolder(runs_dir / run_spec(seed=0).run_id)
    finished(runs_dir, seed=0)
    live = LiveMirror(broken, [folder], every_s=0.01)
    assert live.close() == "OSError: disk full"
    assert [record.getMessage() for record in caplog.records] == [
        "the MLflow mirror is behind (OSError: disk full); `harness sync` brings it up to date"
    ]
