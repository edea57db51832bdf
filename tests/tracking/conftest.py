"""One migrated, empty SQLite store per session, copied for each test: creating one takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.tracking.store import Store
from tests.conftest import CREATE_STORE


@pytest.fixture
def stores_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are for users: a new store is migrated, in place of copied."""
    monkeypatch.setattr(Store, "_create", CREATE_STORE)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(runs_dir: Path, empty_database: Path) -> Store:
    made = Store.beside(runs_dir)
    assert made.database is not None
    shutil.copyfile(empty_database, made.database)
    return made
