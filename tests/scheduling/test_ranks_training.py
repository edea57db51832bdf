"""A true training in two processes started by the launcher, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from harness.runs.folder import RunFolder
from harness.scheduling.base import Job
from harness.scheduling.local import Local, LocalSettings
from harness.spec import FINISHED, Machine, RunSpec, Stop
from harness.training import run_one
from tests.training.runs import assert_same_bits, folder_of, results, tiny_spec, train

pytestmark = pytest.mark.campaign
SPEC = tiny_spec("mixup", lr=0.01, epochs=3)  # 15 steps
KILLED_AFTER = 7  # steps of the first attempt; not at the end of an epoch
LEAST = 2e-5  # float32: sums in another order


def train_and_kill_rank_1_once(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Rank 0 kills rank 1 between two steps, once."""
    folder.path.mkdir(parents=True, exist_ok=True)
    pid_of_rank_1 = folder.path / "pid"
    if os.environ["RANK"] == "1":
        pid_of_rank_1.write_text(str(os.getpid()))
    asked = 0

    def kill_at_last() -> bool:
        nonlocal asked
        asked += 1
        if asked == KILLED_AFTER and not (folder.path / "killed").exists():
            (folder.path / "killed").touch()
            os.kill(int(pid_of_rank_1.read_text()), signal.SIGKILL)
        return stop()

    return run_one(spec, folder, machine, kill_at_last)


def execute(function: object, runs_dir: Path) -> RunFolder:
    machine = Machine(runs_dir=runs_dir, data_dir=runs_dir, processes=2, checkpoint_every_s=0)
    settings = LocalSettings(machine=machine, workers=1, preload=())
    statuses = Local(settings).execute([Job(spec=SPEC)], function, lambda _: None)  # type: ignore[arg-type]
    assert statuses == {SPEC.run_id: FINISHED}
    return folder_of(SPEC, runs_dir)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return execute(run_one, tmp_path_factory.mktemp("two"))


def test_two_processes_end_where_one_does(undisturbed: RunFolder, tmp_path: Path) -> None:
    train(SPEC, tmp_path)
    one, two = results(folder_of(SPEC, tmp_path)), results(undisturbed)
    assert (one["status"], one["steps"], one["images_seen"]) == (two["status"], 15, two["images_seen"])
    assert abs(one["train_loss"] - two["train_loss"]) < LEAST
    for name, weight in one["weights"].items():
        assert torch.allclose(weight, two["weights"][name], rtol=LEAST, atol=LEAST), name


def test_a_killed_rank_costs_one_attempt_and_not_a_bit(undisturbed: RunFolder, tmp_path: Path) -> None:
    folder = execute(train_and_kill_rank_1_once, tmp_path)
    events = folder.read_events()
    [death] = [event for event in events if event["kind"] == "rank_died"]
    assert death["message"].startswith("rank 1 of 2 was killed by SIGKILL")
    assert [event["kind"] for event in events].count("attempt") == 2
    assert [event["step"] for event in events if event["kind"] == "checkpoint"] == list(range(1, 16))
    assert_same_bits(results(folder), results(undisturbed))
