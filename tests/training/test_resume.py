"""A run that is stopped anywhere and goes on gives the bits of a run that was never stopped."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.runs.folder import RunFolder
from harness.spec import Machine, RunSpec, TrickSpec
from tests.conftest import mostly_campaign
from tests.timing import FOREVER_S, PATIENCE_S, until
from tests.training.runs import (
    assert_same_bits,
    folder_of,
    load,
    machine_in,
    results,
    stop_after,
    tiny_spec,
    train,
)

SPECS = {
    "fp32": tiny_spec(),
    "bf16": tiny_spec(precision="bf16"),
    "fp16": tiny_spec(precision="fp16"),
    "adamw": tiny_spec(optimizer="adamw", lr=0.001),
    "fractional epochs": tiny_spec(epochs=1.5, schedule="cosine", warmup_epochs=0.5),
    "ema and mixup": tiny_spec(TrickSpec(name="ema", options={"decay": 0.8}), "mixup"),
    "rmsprop, clipped": tiny_spec(
        optimizer="rmsprop_tf",
        optimizer_args={"eps": 1.0, "momentum": 0.9},
        clip_norm=2.0,
        schedule="exponential",
        decay=0.94,
        decay_every=0.4,
    ),
    "median, groups, shards": tiny_spec(
        read_out="median_of_last_5", norm_images=3, shuffle="within_shards", curve_points=2
    ),
}
SHORT = (*list(SPECS)[-3:], "fp16")


def stop_every(spec: RunSpec, runs_dir: Path, steps: int) -> None:
    """Train with an interruption after every `steps` steps."""
    for _ in range(100):
        if train(spec, runs_dir, stop_after(steps)) == "finished":
            return
    raise AssertionError("the run makes no progress")


@pytest.mark.parametrize("name", mostly_campaign(SPECS, *SHORT))
@pytest.mark.parametrize("steps", mostly_campaign([1, 3], 1))
def test_a_run_stopped_every_few_steps_ends_in_the_same_bits(name: str, steps: int, tmp_path: Path) -> None:
    spec = SPECS[name]
    assert train(spec, tmp_path / "straight") == "finished"
    stop_every(spec, tmp_path / "stopped", steps)
    whole, stopped = folder_of(spec, tmp_path / "straight"), folder_of(spec, tmp_path / "stopped")
    assert_same_bits(results(whole), results(stopped))
    assert stopped.read_summary()["attempts"] >= 3
    assert not stopped.checkpoint.exists()


@pytest.mark.parametrize("name", mostly_campaign(SPECS, *SHORT))
def test_the_whole_state_is_the_same_after_a_stop(name: str, tmp_path: Path) -> None:
    """Weights, batch-norm buffers, momentum, loss scale, averages: not only what shows in the result."""
    spec = SPECS[name]
    assert train(spec, tmp_path / "a", stop_after(6)) == "interrupted"
    for _ in range(3):
        assert train(spec, tmp_path / "b", stop_after(2)) == "interrupted"
    a, b = (load(folder_of(spec, tmp_path / each).checkpoint) for each in "ab")
    assert a["progress"]["step"] == b["progress"]["step"] == 6
    for part in ("model", "optimizer", "precision", "tricks"):
        assert_same_bits(a[part], b[part], part)
    assert torch.equal(a["progress"]["loss_sum"], b["progress"]["loss_sum"])


def test_a_checkpoint_holds_what_its_precision_and_tricks_need(tmp_path: Path) -> None:
    """Guards the tests above: empty states would be equal too."""
    fp16, ema = SPECS["fp16"], SPECS["ema and mixup"]
    for spec in (fp16, ema):
        train(spec, tmp_path, stop_after(3))
    assert load(folder_of(fp16, tmp_path).checkpoint)["precision"]["scale"] > 1
    state = load(folder_of(ema, tmp_path).checkpoint)
    assert state["tricks"]["ema"]["steps"] == 3
    median, rmsprop = SPECS["median, groups, shards"], SPECS["rmsprop, clipped"]
    for spec in (median, rmsprop):
        train(spec, tmp_path, stop_after(6))
    (kept,) = load(folder_of(median, tmp_path).checkpoint)["progress"]["kept"]  # of the first of two epochs
    assert kept["correct"].shape == (30,)
    first = load(folder_of(rmsprop, tmp_path).checkpoint)["optimizer"]["state"][0]
    assert set(first) == {"square_avg", "momentum_buffer"}
    assert len(state["optimizer"]["state"]) == len(list(state["optimizer"]["param_groups"][0]["params"]))


def test_periodic_checkpoints_change_nothing(tmp_path: Path) -> None:
    spec = SPECS["ema and mixup"]
    train(spec, tmp_path / "none", checkpoint_every_s=1e9)
    train(spec, tmp_path / "each", checkpoint_every_s=0.0)
    none, each = folder_of(spec, tmp_path / "none"), folder_of(spec, tmp_path / "each")
    assert_same_bits(results(none), results(each))
    kinds = [event["kind"] for event in each.read_events()]
    assert kinds.count("checkpoint") == 10
    assert "checkpoint" not in [event["kind"] for event in none.read_events()]


# Its second thread stays, and a process with one does not fork to examine layers.
@pytest.mark.campaign
def test_the_threads_of_a_run_are_those_of_the_machine_and_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kernels are examined once more for another number of threads, which proves nothing here.
    monkeypatch.setattr("harness.training.setup.trust_kernels", lambda *_, **__: None)
    before, spec = torch.get_num_threads(), tiny_spec(epochs=0.2)
    train(spec, tmp_path, threads=before + 1)
    assert folder_of(spec, tmp_path).read_summary()["threads"] == before + 1
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def train_until_told(
    runs_dir: Path, spec: RunSpec, steps: int, far_enough: Connection, **machine: Any
) -> None:
    """At a step says so, and waits for `go` in the folder."""
    calls = iter(range(10**6))

    def stop() -> bool:
        if next(calls) == steps:
            far_enough.send(None)
            until((runs_dir / "go").exists, FOREVER_S)
        return False

    train(spec, runs_dir, stop, **machine)


def begun(runs_dir: Path, spec: RunSpec, steps: int, **machine: Any) -> BaseProcess:
    """A process that trains, at its step."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(
        target=train_until_told, args=(runs_dir, spec, steps, theirs), kwargs=machine, daemon=True
    )
    process.start()
    theirs.close()  # so that the end of a process that fails before is seen
    ours.recv()
    return process


def test_a_run_killed_with_sigkill_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    spec = SPECS["ema and mixup"]
    killed = folder_of(spec, tmp_path / "killed")
    # In the middle of the second epoch; the checkpoint is of step 6 or 7.
    process = begun(tmp_path / "killed", spec, 7, checkpoint_every_s=0.0)
    process.kill()
    process.join(PATIENCE_S)
    assert killed.checkpoint.exists()
    killed.events.write_bytes(killed.events.read_bytes()[:-5])  # a line cut off by the crash
    assert train(spec, tmp_path / "killed") == "finished"
    train(spec, tmp_path / "straight")
    assert_same_bits(results(folder_of(spec, tmp_path / "straight")), results(killed))
    resumed = [event["resumed_from_step"] for event in killed.read_events() if event["kind"] == "attempt"]
    assert resumed == [0, 7]


def test_a_curve_has_one_line_per_epoch_even_when_an_epoch_is_trained_twice(tmp_path: Path) -> None:
    spec = tiny_spec()
    folder = folder_of(spec, tmp_path)
    train(spec, tmp_path, stop_after(7))
    folder.checkpoint.unlink()  # as if the process had died before its first checkpoint
    train(spec, tmp_path)
    assert [event["step"] for event in folder.read_events() if event["kind"] == "epoch"] == [5, 10]


def spoil_truncate(folder: RunFolder) -> None:
    data = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(data[: len(data) // 2])


def spoil_empty(folder: RunFolder) -> None:
    folder.checkpoint.write_bytes(b"")


def spoil_foreign(folder: RunFolder) -> None:
    state = load(folder.checkpoint)
    torch.save({**state, "run_id": "0" * 32}, folder.checkpoint)


def spoil_missing_part(folder: RunFolder) -> None:
    state = load(folder.checkpoint)
    del state["optimizer"]
    torch.save(state, folder.checkpoint)


def spoil_code(folder: RunFolder) -> None:
    """A pickle that runs code when it is read."""
    torch.save({"run_id": folder.run_id, "model": Dangerous(folder.path / "executed")}, folder.checkpoint)


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_truncate, "cannot be read"),
        pytest.param(spoil_empty, "cannot be read", marks=pytest.mark.campaign),
        (spoil_code, "cannot be read"),
        (spoil_foreign, "is of run 0000"),
        (spoil_missing_part, "does not fit"),
    ],
)
def test_an_unusable_checkpoint_is_refused_and_the_run_starts_again(
    spoil: Any, reason: str, tmp_path: Path
) -> None:
    spec = SPECS["ema and mixup"]
    folder = folder_of(spec, tmp_path / "spoilt")
    train(spec, tmp_path / "spoilt", stop_after(6))
    spoil(folder)
    assert train(spec, tmp_path / "spoilt") == "finished"
    refused = [event for event in folder.read_events() if event["kind"] == "checkpoint_refused"]
    assert len(refused) == 1
    assert reason in refused[0]["message"]
    assert not (folder.path / "executed").exists()
    train(spec, tmp_path / "straight")
    assert_same_bits(results(folder_of(spec, tmp_path / "straight")), results(folder))


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec()
    folder = folder_of(spec, tmp_path)
    train(spec, tmp_path, stop_after(3))
    before = folder.checkpoint.read_bytes()

    def crash(self: Path, target: Path) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="power cut"):
            train(spec, tmp_path, stop_after(3))
    assert folder.checkpoint.read_bytes() == before
    assert list(folder.path.glob(".*.draft"))
    assert train(spec, tmp_path) == "finished"
    assert not list(folder.path.glob(".*.draft"))


def test_a_run_that_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    spec = tiny_spec()
    train(spec, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in folder_of(spec, tmp_path).path.iterdir()}
    assert train(spec, tmp_path, stop_after(0)) == "finished"
    after = {path.name: path.stat().st_mtime_ns for path in folder_of(spec, tmp_path).path.iterdir()}
    assert after == before


@pytest.mark.campaign
def test_a_second_process_waits_for_the_first_and_trains_nothing(tmp_path: Path) -> None:
    spec = tiny_spec(epochs=1)
    process = begun(tmp_path, spec, 0)
    assert train(spec, tmp_path, lambda: True) == "interrupted", "it stops while it waits"
    (tmp_path / "go").touch()
    assert train(spec, tmp_path) == "finished"
    process.join(PATIENCE_S)
    events = folder_of(spec, tmp_path).read_events()
    assert [event["kind"] for event in events].count("attempt") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SPECS)
def test_resume_on_a_gpu_is_bit_identical_in_exact_mode(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    train(spec, tmp_path / "a", device="cuda:0")
    while train(spec, tmp_path / "b", stop_after(3), device="cuda:0") == "interrupted":
        pass
    assert machine_in(tmp_path).exact
    a, b = (folder_of(spec, tmp_path / each) for each in "ab")
    assert_same_bits(results(a), results(b))


def test_saving_takes_a_hundredth_of_the_time_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval is at least 30 s, and a hundred times what the last save took."""
    from types import SimpleNamespace

    from harness.training import record
    from harness.training.parallel import ALONE

    clock = [0.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])
    due = record.Recorder._is_checkpoint_due
    fake = SimpleNamespace(
        attempt=SimpleNamespace(machine=Machine(runs_dir=Path(), data_dir=Path())),
        setup=SimpleNamespace(world=ALONE),
        _saved=0.0,
        _save_time_s=0.2,
    )
    clock[0] = 29.0
    assert not due(fake)  # type: ignore[arg-type]
    clock[0] = 31.0
    assert due(fake)  # type: ignore[arg-type]
    fake._save_time_s = 0.5
    assert not due(fake)  # type: ignore[arg-type]
    clock[0] = 51.0
    assert due(fake)  # type: ignore[arg-type]
