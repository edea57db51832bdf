"""The mirror is idempotent and incremental, and survives a kill at any point."""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.runs.folder import RunFolder
from harness.spec import DIVERGED, RunSpec
from harness.tracking.collect import collect
from harness.tracking.mirror import Mirror, Writer, find_runs
from harness.tracking.store import Store, StoreError
from tests.tracking.folders import STARTED_S, epoch, event, finish, finished, observer_spec, run_spec, start

STUDY, SIZE = "bag_of_tricks", "mini"


def mirror(store: Store, **cells: Any) -> Mirror:
    return Mirror(store, STUDY, SIZE, cells)


def mlflow_runs(store: Store) -> dict[str, Any]:
    """run_id -> mlflow.entities.Run, straight from MLflow's own client."""
    client = store.client()
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    runs = find_runs(client, experiment.experiment_id, SIZE)
    assert len({run.data.tags["run_id"] for run in runs}) == len(runs), "a run was mirrored twice"
    return {run.data.tags["run_id"]: run for run in runs}


def counts(sync: Any) -> tuple[int, int, int, int]:
    return tuple(asdict(sync).values())  # type: ignore[return-value]  # created, updated, unchanged, skipped


def test_a_finished_run_is_complete_in_mlflow(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    arm_id = run_spec().arm.arm_id
    cells = [{"table": "table5", "row": "ResNet-50-D", "column": None}]
    assert counts(mirror(store, **{arm_id: cells}).sync([folder])) == (1, 0, 0, 0)
    run = mlflow_runs(store)[folder.run_id]
    assert (run.info.status, run.info.start_time) == ("FINISHED", STARTED_S * 1000)
    assert run.info.end_time == (STARTED_S + 10.25) * 1000
    assert run.info.run_name == "table5 / ResNet-50-D / seed 0"
    tags = run.data.tags
    assert (tags["arm_id"], tags["seed"], tags["size"], tags["status"]) == (arm_id, "0", SIZE, "finished")
    assert (tags["torch"], tags["device"], tags["data_fingerprint"]) == ("2.13.0", "a small CPU", "ab" * 32)
    assert json.loads(tags["rows"]) == cells
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["model"] == "resnet50"
    assert run.data.params["model.width"] == "0.25"
    assert run.data.params["augment.flip"] == "0.5"
    assert (run.data.params["tricks"], run.data.params["mixup.alpha"]) == ("mixup", "0.2")
    assert run.data.metrics["top5"] == 200 / 3
    history = store.client().get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.timestamp, m.value) for m in sorted(history, key=lambda m: m.step)] == [
        (10 * n, int((STARTED_S + n) * 1000), 2 / 3 / n) for n in (1, 2, 3)
    ]
    assert {file.path for file in store.client().list_artifacts(run.info.run_id)} == {
        "spec.json",
        "env.json",
        "summary.json",
        "predictions.bin",
    }


def test_what_an_arm_rests_on_is_among_its_parameters(store: Store, runs_dir: Path) -> None:
    ensemble, base = observer_spec(), run_spec()
    tuned_arm = replace(base.arm, source=ensemble.arm.arm_id, plugins={"my_lab.py": "ab" * 32})
    tuned = RunSpec(arm=tuned_arm, seed=0)
    folders = [start(runs_dir, spec) for spec in (ensemble, tuned)]
    mirror(store).sync(folders)
    runs = mlflow_runs(store)
    assert runs[ensemble.run_id].data.params["observes"] == f"3 x {base.arm.arm_id}"
    assert runs[ensemble.run_id].data.params["eval_crops"] == "10"
    params = runs[tuned.run_id].data.params
    assert (params["source"], params["observes"]) == (ensemble.arm.arm_id, "none")
    assert params["plugins.my_lab.py"] == "ab" * 32


def test_more_parameters_than_mlflow_takes_at_once_all_arrive(store: Store, runs_dir: Path) -> None:
    base = run_spec()
    many = {f"argument_{k}": k for k in range(230)}
    recipe = replace(base.arm.recipe, model=base.arm.recipe.model.with_args(**many))
    spec = RunSpec(arm=replace(base.arm, recipe=recipe), seed=0)
    mirror(store).sync([start(runs_dir, spec)])
    params = mlflow_runs(store)[spec.run_id].data.params
    assert [params[f"model.argument_{k}"] for k in range(230)] == [str(k) for k in range(230)]


def test_a_second_sync_changes_nothing(store: Store, runs_dir: Path) -> None:
    folders = [finished(runs_dir, seed=seed) for seed in range(2)]
    one = mirror(store)
    assert counts(one.sync(folders)) == (2, 0, 0, 0)
    before = store.database.read_bytes()
    assert counts(one.sync(folders)) == (0, 0, 2, 0)
    assert counts(mirror(store).sync(folders)) == (0, 0, 2, 0)  # another process knows it from the store
    assert store.database.read_bytes() == before


def test_a_running_run_grows_by_its_new_lines_only(store: Store, runs_dir: Path) -> None:
    spec = run_spec()
    folder = start(runs_dir, spec)
    epoch(folder, 1)
    one = mirror(store)
    one.sync([folder])
    epoch(folder, 2)
    with folder.events.open("a") as file:
        file.write('{"kind": "epoch", "step": 30, "trai')  # the writer was killed here
    seen: list[int] = []
    write = Writer.write
    patch = pytest.MonkeyPatch()
    patch.setattr(Writer, "write", lambda *args, **kw: (seen.append(len(args[1].points)), write(*args, **kw)))
    try:
        assert counts(one.sync([folder])) == (0, 1, 0, 0)
        assert counts(one.sync([folder])) == (0, 0, 1, 0)
    finally:
        patch.undo()
    assert seen == [5]  # one epoch line has five numbers
    _, curves = collect(store, STUDY, SIZE)
    assert curves["step"].tolist() == [10, 20]


def test_killed_between_any_two_writes_nothing_is_lost_or_doubled(
    store: Store, runs_dir: Path, tmp_path: Path
) -> None:
    """The k-th call to MLflow fails; a new mirror finishes; the frames equal those of an undisturbed one."""
    spec = run_spec()
    folder = start(runs_dir, spec)
    for number in (1, 2, 3):
        epoch(folder, number)
    finish(folder, spec)
    store.client()
    failures = 0
    for allowed in range(10):
        client = _Failing(allowed)
        patch = pytest.MonkeyPatch()
        client.install(patch)
        one = Mirror(store, f"{STUDY}_{allowed}", SIZE)
        try:
            one.sync([folder])
        except StoreError:
            failures += 1
        finally:
            patch.undo()
        Mirror(store, f"{STUDY}_{allowed}", SIZE).sync([folder])
    assert failures >= 4
    expected = collect(store, f"{STUDY}_9", SIZE)
    for allowed in range(9):
        for got, want in zip(collect(store, f"{STUDY}_{allowed}", SIZE), expected, strict=True):
            pd.testing.assert_frame_equal(got, want)


class _Failing:
    """Lets a number of writing calls of MLflow's client through, then fails as a killed process would."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed

    def install(self, patch: pytest.MonkeyPatch) -> None:
        from mlflow import MlflowClient
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        for owner, name in (
            (MlflowClient, "create_run"),
            (LocalArtifactRepository, "log_artifact"),
            (MlflowClient, "set_terminated"),
            (MlflowClient, "log_batch"),
        ):
            patch.setattr(owner, name, self._limited(getattr(owner, name)))

    def _limited(self, call: Any) -> Any:
        def limited(*args: Any, **kwargs: Any) -> Any:
            if self.allowed == 0:
                raise ConnectionError("killed")
            self.allowed -= 1
            return call(*args, **kwargs)

        return limited


def test_more_points_than_one_batch_holds(store: Store, runs_dir: Path) -> None:
    mirror(store).sync([finished(runs_dir, epochs=400)])
    _, curves = collect(store, STUDY, SIZE)
    assert curves["step"].tolist() == [10 * number for number in range(1, 401)]
    assert curves["train_loss"].tolist() == [2 / 3 / number for number in range(1, 401)]


def status_after(store: Store, folder: RunFolder) -> tuple[str, str]:
    mirror(store).sync([folder])
    run = mlflow_runs(store)[folder.run_id]
    return run.info.status, run.data.tags["status"]


def test_the_status_follows_the_run_and_is_right_after_a_kill(store: Store, runs_dir: Path) -> None:
    spec = run_spec()
    folder = start(runs_dir, spec)
    epoch(folder, 1)
    folder.lock.touch()
    with folder.lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert status_after(store, folder) == ("RUNNING", "running")
    assert status_after(store, folder) == ("KILLED", "stopped")  # its process is gone
    assert mlflow_runs(store)[folder.run_id].info.end_time == (STARTED_S + 1) * 1000
    event(folder, "failed", 2, message="ValueError: no such file")
    assert status_after(store, folder) == ("FAILED", "failed")
    assert mlflow_runs(store)[folder.run_id].data.tags["error"] == "ValueError: no such file"
    event(folder, "attempt", 3, attempt=2, device="cpu", threads=1)
    with folder.lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert status_after(store, folder) == ("RUNNING", "running")
    finish(folder, spec)
    assert status_after(store, folder) == ("FINISHED", "finished")


def test_without_a_lock_file_fresh_events_mean_running(store: Store, runs_dir: Path) -> None:
    folder = start(runs_dir, run_spec())
    assert status_after(store, folder) == ("KILLED", "stopped")  # its last event is years old
    folder.append_event("checkpoint", time_s=time.time())
    assert status_after(store, folder) == ("RUNNING", "running")
    folder.append_event("stop", time_s=time.time())
    assert status_after(store, folder) == ("KILLED", "stopped")


def test_a_diverged_run_has_ended_and_says_so(store: Store, runs_dir: Path) -> None:
    spec = run_spec()
    folder = start(runs_dir, spec)
    epoch(folder, 1, train_loss=float("nan"))
    epoch(folder, 2, train_loss=float("inf"))
    finish(folder, spec, status=DIVERGED)
    assert status_after(store, folder) == ("FINISHED", DIVERGED)
    records, curves = collect(store, STUDY, SIZE)
    assert records["status"].tolist() == [DIVERGED]
    assert records[["top1", "top5", "loss"]].isna().all(axis=None)
    assert records["predictions"].tolist() == [None]
    assert curves["train_loss"].isna().tolist() == [True, False]
    assert curves["train_loss"].tolist()[1] == float("inf")


def test_a_run_that_was_trained_again_replaces_the_old_one(store: Store, runs_dir: Path) -> None:
    import shutil

    folder = finished(runs_dir, epochs=3)
    one = mirror(store)
    one.sync([folder])
    shutil.rmtree(folder.path)
    finished(runs_dir, epochs=2)
    one.sync([folder])
    records, curves = collect(store, STUDY, SIZE)
    assert records["steps"].tolist() == [20]
    assert curves["step"].tolist() == [10, 20]


def test_a_new_row_of_an_old_arm_reaches_its_runs(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    mirror(store).sync([folder])
    cells = [{"table": "table2", "row": "baseline", "column": None}]
    assert counts(mirror(store, **{run_spec().arm.arm_id: cells}).sync([folder])) == (0, 1, 0, 0)
    assert json.loads(mlflow_runs(store)[folder.run_id].data.tags["rows"]) == cells


def test_folders_with_nothing_to_show_are_skipped(store: Store, runs_dir: Path) -> None:
    empty = RunFolder(runs_dir / "empty")
    empty.path.mkdir(parents=True)
    assert counts(mirror(store).sync([empty, RunFolder(runs_dir / "absent")])) == (0, 0, 0, 2)


def test_two_mirrors_of_one_study_take_turns(store: Store, runs_dir: Path) -> None:
    """`harness sync` beside a running `harness run`: neither mirrors a run a second time."""
    first, second = mirror(store), mirror(store)
    a, b = finished(runs_dir, seed=1), finished(runs_dir, seed=2)
    assert counts(first.sync([a])) == (1, 0, 0, 0)
    assert counts(second.sync([a, b])) == (1, 0, 1, 0)
    assert counts(first.sync([a, b])) == (0, 0, 2, 0)
    assert set(mlflow_runs(store)) == {a.run_id, b.run_id}


def test_sizes_are_kept_apart(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    mirror(store).sync([folder])
    assert len(collect(store, STUDY, "gpu")[0]) == 0
    assert len(collect(store, STUDY, SIZE)[0]) == 1


def test_an_experiment_deleted_in_mlflows_pages_comes_back(store: Store, runs_dir: Path) -> None:
    folder = finished(runs_dir)
    mirror(store).sync([folder])
    client = store.client()
    client.delete_experiment(client.get_experiment_by_name(STUDY).experiment_id)
    mirror(store).sync([folder])
    assert len(collect(store, STUDY, SIZE)[0]) == 1


def test_a_run_that_has_begun_but_written_no_event_waits_for_the_next_round(
    store: Store, runs_dir: Path
) -> None:
    folder = start(runs_dir, run_spec())
    folder.events.unlink(missing_ok=True)
    ours = mirror(store)
    with folder.lock.open("w") as lock:  # the worker holds the lock; its first event is still to come
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert counts(ours.sync([folder])) == (0, 0, 0, 1)
        event(folder, "attempt", 0, attempt=1, device="cpu")
        assert counts(ours.sync([folder])) == (1, 0, 0, 0)


def test_an_ended_run_that_did_not_change_is_not_read_again(
    store: Store, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(runs_dir)
    ours = mirror(store)
    ours.sync([folder])
    monkeypatch.setattr("harness.tracking.content.read_change", lambda *_: pytest.fail("read again"))
    assert counts(ours.sync([folder])) == (0, 0, 1, 0)
    folder.append_event("note", message="something new")
    with pytest.raises(pytest.fail.Exception, match="read again"):
        ours.sync([folder])
