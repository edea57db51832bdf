"""What a run was made with reaches the report through the store, also from folders mirrored long ago."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.runs.folder import RunFolder, read_json, write_json
from harness.tracking.collect import collect
from harness.tracking.mirror import Mirror
from harness.tracking.store import Store
from tests.tracking.folders import finished
from tests.tracking.test_mirror import SIZE, STUDY, mlflow_runs


def sync(store: Store, folder: RunFolder) -> tuple[int, ...]:
    """created, updated, unchanged, skipped, by a process that has just started."""
    return tuple(asdict(Mirror(store, STUDY, SIZE, {}).sync([folder])).values())


def records(store: Store) -> pd.DataFrame:
    return collect(store, STUDY, SIZE)[0]


def env_of(store: Store) -> Any:
    [text] = records(store)["env"]
    return None if text is None else json.loads(text)


def test_env_json_is_collected_as_it_is(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    assert sync(store, folder) == (1, 0, 0, 0)
    assert env_of(store) == read_json(folder.env) == {"python": "3.11"}


def test_a_store_of_an_older_version_is_read_and_made_up_for_once(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    sync(store, folder)
    before = records(store)
    store.client().delete_tag(mlflow_runs(store)[folder.run_id].info.run_id, "env")
    assert env_of(store) is None  # not recorded, and no error
    assert sync(store, folder) == (0, 1, 0, 0)
    pd.testing.assert_frame_equal(records(store), before)
    assert sync(store, folder) == (0, 0, 1, 0)


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"a": "' + 8000 * "x" + '"}'])
def test_an_env_json_that_no_tag_can_hold_is_not_recorded(
    store: Store, runs_dir: Path, content: str | None
) -> None:
    folder = finished(runs_dir)
    folder.env.unlink()
    if content is not None:
        folder.env.write_text(content)
    assert sync(store, folder) == (1, 0, 0, 0)
    assert env_of(store) is None
    assert sync(store, folder) == (0, 0, 1, 0)


def test_a_lost_env_json_takes_nothing_out_of_the_store(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    sync(store, folder)
    folder.env.unlink()
    assert sync(store, folder) == (0, 0, 1, 0)
    assert env_of(store) == {"python": "3.11"}


def test_joules_are_collected_where_they_were_measured(store: Store, runs_dir: Path) -> None:
    measured, not_measured = finished(runs_dir), finished(runs_dir, lr=0.2)
    write_json(measured.summary, {**(read_json(measured.summary) or {}), "energy_j": 1 / 3})
    for folder in (measured, not_measured):
        sync(store, folder)
    found = dict(zip(records(store)["run_id"], records(store)["energy_j"], strict=True))
    assert found[measured.run_id] == 1 / 3
    assert pd.isna(found[not_measured.run_id])
