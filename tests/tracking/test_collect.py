"""The frames that analysis and reports read: exact, sorted, and the same after the store was deleted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.study.reserved import CURVE_COLUMNS, RECORD_COLUMNS
from harness.tracking import collect as reading
from harness.tracking.collect import collect
from harness.tracking.mirror import Mirror
from harness.tracking.store import Store, StoreError
from tests.tracking.folders import TEST_IMAGES, epoch, finish, finished, observer_spec, run_spec, start

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import many_mirrored_runs

STUDY, SIZE = "bag_of_tricks", "mini"


@pytest.fixture
def folders(runs_dir: Path) -> list:
    """Two arms with two seeds each, and a run that was killed."""
    done = [finished(runs_dir, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (1, 0)]
    killed = start(runs_dir, run_spec(lr=0.3))
    epoch(killed, 1)
    return [*done, killed]


def test_records_have_the_values_of_the_summaries_exactly(store: Store, folders: list) -> None:
    Mirror(store, STUDY, SIZE).sync(folders)
    records, curves = collect(store, STUDY, SIZE)
    assert list(records.columns) == list(RECORD_COLUMNS)
    assert list(curves.columns) == list(CURVE_COLUMNS)
    assert list(zip(records["arm_id"], records["seed"], strict=True)) == sorted(
        zip(records["arm_id"], records["seed"], strict=True)
    )
    for folder in folders[:-1]:
        row = records[records["run_id"] == folder.run_id].iloc[0]
        summary = folder.read_summary()
        for name in ("top1", "top5", "loss"):
            assert row[name] == summary["metrics"][name]
        for name in ("train_loss", "images_per_s", "params", "macs", "ended_s", "model", "torch", "status"):
            assert row[name] == summary[name]
        assert row["predictions"] == folder.predictions.read_bytes()
        bits = np.unpackbits(np.frombuffer(row["predictions"], np.uint8), count=TEST_IMAGES)
        assert 100 * bits.mean() == pytest.approx(row["top1"], abs=1e-9)
    killed = records[records["status"] == "stopped"].iloc[0]
    assert killed["run_id"] == folders[-1].run_id
    assert np.isnan(killed["top1"])
    assert killed["predictions"] is None
    assert len(curves) == 4 * 3 + 1
    first = curves[curves["run_id"] == folders[0].run_id]
    assert first["epoch"].tolist() == [1.0, 2.0, 3.0]
    assert first["lr"].tolist() == [0.1, 0.1 / 2, 0.1 / 3]


def test_every_point_of_a_curve_travels_with_its_optimizer_step(store: Store, runs_dir: Path) -> None:
    spec = run_spec()
    folder = start(runs_dir, spec)
    for point in range(1, 7):  # three points an epoch; a loss only where an epoch ends
        ends = {"train_loss": 1.0} if point % 3 == 0 else {"train_loss": None}
        epoch(folder, point, epoch=point / 3, step=7 * point, val_top1=50.0 + point / 3, **ends)
    finish(folder, spec, epochs=2)
    Mirror(store, STUDY, SIZE).sync([folder])
    _, curves = collect(store, STUDY, SIZE)
    assert curves["step"].tolist() == [7, 14, 21, 28, 35, 42]
    assert curves["epoch"].tolist() == [point / 3 for point in range(1, 7)]
    assert curves["val_top1"].tolist() == [50.0 + point / 3 for point in range(1, 7)]
    assert curves["train_loss"].isna().tolist() == [True, True, False] * 2


def test_metrics_of_plugins_get_columns_of_their_own(store: Store, runs_dir: Path) -> None:
    plain, rich = run_spec(lr=0.1), run_spec(lr=0.2)
    folders = [start(runs_dir, plain), start(runs_dir, rich)]
    finish(folders[0], plain)
    finish(folders[1], rich, macro_f1=1 / 7, attempts=5.5, lowest_class=12.0)
    Mirror(store, STUDY, SIZE).sync(folders)
    records, _ = collect(store, STUDY, SIZE)
    assert list(records.columns) == [*RECORD_COLUMNS, "lowest_class", "macro_f1"]
    row = records[records["run_id"] == rich.run_id].iloc[0]
    assert (row["macro_f1"], row["lowest_class"]) == (1 / 7, 12.0)
    assert row["attempts"] == 1  # the run's own, not the metric of that name
    assert records[records["run_id"] == plain.run_id]["macro_f1"].isna().all()


def test_an_ensemble_and_its_further_members_travel_like_any_run(store: Store, runs_dir: Path) -> None:
    ensemble = observer_spec()
    members = [finished(runs_dir, seed=seed) for seed in (0, 1000, 2000)]
    folder = start(runs_dir, ensemble)
    finish(folder, ensemble, epochs=0)
    Mirror(store, STUDY, SIZE).sync([*members, folder])
    records, curves = collect(store, STUDY, SIZE)
    assert [member.run_id for member in members] == list(ensemble.member_run_ids)
    assert set(records["run_id"]) == {folder.run_id, *ensemble.member_run_ids}
    row = records[records["run_id"] == folder.run_id].iloc[0]
    assert (row["status"], row["steps"], row["train_time_s"]) == ("finished", 0, 0)
    assert np.isnan(row["train_loss"])
    assert row["top1"] > 0
    assert folder.run_id not in set(curves["run_id"])


def test_the_frames_are_equal_after_the_store_was_deleted(store: Store, folders: list) -> None:
    Mirror(store, STUDY, SIZE).sync(folders)
    before = collect(store, STUDY, SIZE)
    store.database.unlink()
    with pytest.raises(StoreError, match="harness sync"):
        collect(store, STUDY, SIZE)
    assert Mirror(store, STUDY, SIZE).sync(reversed(folders)).created == len(folders)
    for old, new in zip(before, collect(store, STUDY, SIZE), strict=True):
        pd.testing.assert_frame_equal(old, new, check_exact=True)


def by_both_ways(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The frames by queries to the tables of MLflow, and by its client."""
    by_query = collect(store, STUDY, SIZE)
    monkeypatch.setattr(reading, "KNOWN_SCHEMAS", frozenset())
    asked = []
    client = reading.from_client
    monkeypatch.setattr(reading, "from_client", lambda *args: asked.append(1) or client(*args))
    by_client = collect(store, STUDY, SIZE)
    assert asked  # a schema that is not known is left to MLflow itself
    return [by_query, by_client]


def assert_equal_frames(one: tuple, other: tuple) -> None:
    for mine, theirs in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_queries_and_mlflows_client_give_equal_frames(
    store: Store, folders: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = run_spec(lr=0.5)
    odd = start(store.artifacts.parent / "runs", spec)
    epoch(odd, 1, val_top1=float("nan"), train_loss=float("inf"))
    finish(odd, spec, lowest_class=12.0)
    Mirror(store, "another study", SIZE).sync(folders[2:])
    Mirror(store, STUDY, "gpu").sync(folders[:1])
    Mirror(store, STUDY, SIZE).sync([*folders[:2], odd])
    by_query, by_client = by_both_ways(store, monkeypatch)
    assert_equal_frames(by_query, by_client)
    assert set(by_query[0]["run_id"]) == {folder.run_id for folder in (*folders[:2], odd)}
    assert len(by_query[1]) == 2 * 3 + 1


@pytest.mark.parametrize("others", [False, True])
def test_a_store_of_one_study_and_one_of_many_are_read_alike(
    store: Store, folders: list, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    Mirror(store, STUDY, SIZE).sync(folders[:2])
    if others:  # then the runs of the study are chosen within the query
        Mirror(store, "another study", SIZE).sync(folders)
    by_query, by_client = by_both_ways(store, monkeypatch)
    assert_equal_frames(by_query, by_client)
    assert len(by_query[0]) == 2


def test_of_two_values_at_one_step_the_later_one_counts(
    store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = run_spec()
    folder = start(runs_dir, spec)
    epoch(folder, 1, val_top1=40.0)
    epoch(folder, 1, val_top1=60.0, time_s=1_700_000_050.0)
    finish(folder, spec, epochs=1)
    Mirror(store, STUDY, SIZE).sync([folder])
    by_query, by_client = by_both_ways(store, monkeypatch)
    assert_equal_frames(by_query, by_client)
    assert by_query[1]["val_top1"].tolist() == [60.0]


def test_copied_rows_read_like_mirrored_ones(tmp_path: Path) -> None:
    """The store of `benchmarks/bench_collect.py` has the shape that the mirror gives."""
    made = many_mirrored_runs.make_store(tmp_path, 6, mirrored=2)
    study, size = many_mirrored_runs.STUDY, many_mirrored_runs.SIZE
    records, curves = collect(made, study, size)
    assert len(records) == 6
    assert len(set(records["run_id"])) == 6
    mirrored = Store.beside(tmp_path / "all" / "runs")
    folders = [many_mirrored_runs.finished_run(tmp_path / "all" / "runs", number) for number in range(6)]
    Mirror(mirrored, study, size).sync(folders)
    wanted, points = collect(mirrored, study, size)
    own = ["predictions", "top1"]  # copies have those of the run that they were copied from
    pd.testing.assert_frame_equal(records.drop(columns=own), wanted.drop(columns=own))
    pd.testing.assert_frame_equal(curves, points)


def test_reading_never_writes(store: Store, folders: list) -> None:
    Mirror(store, STUDY, SIZE).sync(folders)
    before = store.database.read_bytes()
    collect(store, STUDY, SIZE)
    assert store.database.read_bytes() == before


def test_a_study_that_was_never_run_gives_empty_frames_with_columns(store: Store) -> None:
    records, curves = collect(store, "unknown", SIZE)
    assert (len(records), len(curves)) == (0, 0)
    assert list(records.columns) == list(RECORD_COLUMNS)


def test_predictions_of_another_run_are_refused(store: Store, folders: list) -> None:
    Mirror(store, STUDY, SIZE).sync(folders[:1])
    (path,) = store.artifacts.glob("*/*/artifacts/predictions.bin")
    path.write_bytes(b"\x00" + path.read_bytes()[1:])
    with pytest.raises(StoreError, match="do not belong to its summary"):
        collect(store, STUDY, SIZE)
    path.unlink()
    with pytest.raises(StoreError, match=r"predictions\.bin is missing"):
        collect(store, STUDY, SIZE)
