"""One cluster for all tests: started by whichever needs it first, stopped at the end, however that comes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.end_to_end.workplace import Workplace
from tests.slurm.cluster import Cluster, NoClusterError
from tests.slurm.place import PATIENCE_S, SlurmPlace, begin

FOLDER = "HARNESS_TEST_CLUSTER"  # tells pytest's workers where the cluster is
SHORT = {"epochs": 1, "only_baseline": True}
LONG = {"epochs": 100, "seeds": 4, "only_baseline": True}  # four runs, each some 8 s on a quiet core


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="harness-slurm-")  # 0700, and short for unix sockets


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        folder = Path(os.environ.pop(FOLDER))
        if (folder / "etc").exists():
            Cluster(folder).stop()
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reason = Path(os.environ[FOLDER]) / "skipped"
    if reason.exists():
        terminalreporter.section("NOTHING WAS TESTED ON SLURM", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason.read_text())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)


@contextmanager
def locked(name: str, kind: int = fcntl.LOCK_EX) -> Iterator[Path]:
    """Hold a lock that all of pytest's workers share; the folder they share."""
    folder = Path(os.environ[FOLDER])
    with (folder / f"{name}.lock").open("a") as file:
        fcntl.flock(file, kind)
        yield folder


@pytest.fixture(scope="session")
def running_cluster() -> Cluster:
    with locked("start") as folder:
        cluster, skipped = Cluster(folder), folder / "skipped"
        if not cluster.configuration.exists() and not skipped.exists():
            try:
                cluster.start()
            except NoClusterError as error:
                skipped.write_text(str(error))
        if skipped.exists():
            pytest.skip(skipped.read_text())
    os.environ["SLURM_CONF"] = str(cluster.configuration)
    return cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, undisturbed but for nodes that no other test uses."""
    with locked("use", fcntl.LOCK_SH):
        yield running_cluster


@pytest.fixture
def whole_cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster for one test alone, which may stop its daemons; they are there again for the next."""
    with locked("use", fcntl.LOCK_EX):
        try:
            yield running_cluster
        finally:
            running_cluster.do("dbd-start")
            running_cluster.do("ctld-start")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[..., SlurmPlace]]:
    """Makes the folder of a user of a cluster. What it has submitted is cancelled after the test."""
    made: list[SlurmPlace] = []

    def make(cluster: Cluster, *, code: Path | None = None, **study: int) -> SlurmPlace:
        more = {} if code is None else {"code": code}
        place = SlurmPlace(begin(tmp_path / f"place{len(made)}", **study), cluster=cluster, **more)
        place.resources()
        made.append(place)
        return place

    yield make
    for place in made:
        place.cancel_everything()


@pytest.fixture(scope="session")
def undisturbed() -> Workplace:
    """The tiny study, run on this machine without Slurm."""
    return _run_here("undisturbed", {})


@pytest.fixture(scope="session")
def undisturbed_long() -> Workplace:
    """The long one."""
    return _run_here("undisturbed_long", LONG)


@pytest.fixture(scope="session")
def undisturbed_baseline() -> Workplace:
    """The first row of the tiny study alone, for one epoch."""
    return _run_here("undisturbed_baseline", SHORT)


def _run_here(name: str, study: dict[str, int]) -> Workplace:
    with locked(name) as folder:
        place, done = Workplace(folder / name), folder / f"{name}.json"
        if not done.exists():
            shutil.rmtree(place.path, ignore_errors=True)
            begin(place.path, **study)
            process = place.start("run", "tiny.yaml", "--no-report")
            try:
                _, errors = process.communicate(timeout=2 * PATIENCE_S)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what is left of it
            done.write_text(json.dumps([process.returncode, errors]))
        code, errors = json.loads(done.read_text())
    assert code == 0, errors
    return place
