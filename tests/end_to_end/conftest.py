"""One finished tiny study for the whole folder, and copies of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Once
from tests.end_to_end.workplace import TINY, Workplace


@dataclass(frozen=True)
class Finished:
    """The study after one undisturbed `harness run`, and what that said. Not to be changed."""

    place: Workplace
    exit_code: int
    output: str
    errors: str


@pytest.fixture(scope="session")
def finished(once: Once[Finished]) -> Finished:
    """Run by a process of its own, as a user's; made once, also where pytest has several workers."""

    def run(folder: Path) -> Finished:
        done = begin(folder / "place").call_apart("run", "tiny.yaml")
        return Finished(Workplace(folder / "place"), done.returncode, done.stdout, done.stderr)

    return once("finished", run)


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
