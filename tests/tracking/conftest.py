"""One migrated, empty SQLite store per session, copied for each test: creating one takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.tracking.store import Store
from tests.conftest import Once


@pytest.fixture(scope="session")
def empty_database(once: Once[Path]) -> Path:
    def create(folder: Path) -> Path:
        store = Store.beside(folder / "runs")
        store.client()
        assert store.database is not None
        return store.database

    return once("empty_database", create)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(runs_dir: Path, empty_database: Path) -> Store:
    made = Store.beside(runs_dir)
    assert made.database is not None
    shutil.copyfile(empty_database, made.database)
    return made
