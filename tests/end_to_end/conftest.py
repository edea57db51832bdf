"""One finished tiny study for the whole folder, and copies of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.workplace import TINY, Workplace


@dataclass(frozen=True)
class Finished:
    """The study after one undisturbed `harness run`, and what that said. Not to be changed."""

    place: Workplace
    exit_code: int
    output: str
    errors: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Made once, also where pytest has several workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    said = folder / "finished.json"
    place = Workplace(folder / "finished")
    with (folder / "finished.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            shutil.rmtree(place.path, ignore_errors=True)
            done = begin(place.path).call_apart("run", "tiny.yaml")
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return Finished(place, *json.loads(said.read_text()))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Workplace:
    """The finished study in a folder of its own, without its MLflow store, which names absolute paths."""
    return copy_of(finished, tmp_path / "copy")


@pytest.fixture
def fresh(tmp_path: Path) -> Workplace:
    """The study file and nothing else."""
    return begin(tmp_path / "fresh")


def copy_of(finished: Finished, folder: Path) -> Workplace:
    assert finished.exit_code == 0, finished.errors
    shutil.copytree(finished.place.path, folder, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    return Workplace(folder)


def begin(folder: Path) -> Workplace:
    folder.mkdir()
    shutil.copy(TINY, folder)
    return Workplace(folder)
