"""The inline scheduler: this process, the same order, the same statuses and records as the local one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.scheduling.base import INTERRUPTED, Job, Progress
from harness.scheduling.local import Inline
from harness.spec import DIVERGED, FAILED, FINISHED, Machine, RunSpec, Stop
from tests.scheduling.fakes import events, go, job, run_fake


def execute(
    tmp_path: Path,
    jobs: Sequence[Job],
    run_one: Callable[..., str] = run_fake,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> list[str]:
    ended = Inline(Machine(runs_dir=tmp_path, data_dir=tmp_path)).execute(jobs, run_one, watch)
    return [ended[each.run_id] for each in jobs]


def test_jobs_run_here_needs_first_then_longest_first(tmp_path):
    teacher = job(0, cost=1)
    jobs = [job(1, cost=2), job(2, cost=9, needs=(teacher,)), teacher, job(3, cost=4)]
    order: list[int] = []

    def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
        order.append(spec.seed)
        return run_fake(spec, folder, machine, stop)

    assert execute(tmp_path, jobs, run_one) == [FINISHED] * 4
    assert order == [0, 2, 3, 1]
    assert events(RunFolder(tmp_path / teacher.run_id), "started")[0]["pid"] == os.getpid()


def test_an_exception_is_a_failed_run_with_its_traceback_and_the_others_go_on(tmp_path):
    bad = job(0, "crash", cost=9)
    jobs = [bad, job(1, "diverge"), job(2, needs=(bad,)), job(3)]
    assert execute(tmp_path, jobs) == [FAILED, DIVERGED, FAILED, FINISHED]
    [event] = events(RunFolder(tmp_path / bad.run_id), "failed")
    assert event["message"] == "RuntimeError: loss has shape (0,)"
    assert "in crash" in event["traceback"]
    [event] = events(RunFolder(tmp_path / jobs[2].run_id), "failed")
    assert bad.run_id in event["message"]


def test_a_lost_gpu_ends_the_command_and_fails_no_run(tmp_path):
    jobs, notes = [job(0, "lose_device", cost=2), job(1)], []
    assert execute(tmp_path, jobs, watch=lambda progress: notes.append(progress.note)) == [INTERRUPTED] * 2
    assert not events(RunFolder(tmp_path / jobs[1].run_id), "started")
    assert any("a new command goes on from the last checkpoint" in note for note in notes)
    assert execute(tmp_path, jobs) == [FINISHED] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_running_job_checkpoint_and_starts_no_other(tmp_path, number):
    jobs = [job(0, "count", steps=20, cost=2), job(1)]

    def watch(progress: Progress) -> None:
        if progress.running:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    assert execute(tmp_path, jobs, watch=watch) == [INTERRUPTED, INTERRUPTED]
    assert signal.getsignal(number) is before
    assert len(events(RunFolder(tmp_path / jobs[0].run_id), "checkpoint")) == 1
    assert not (tmp_path / jobs[1].run_id).exists()
    go(tmp_path)
    assert execute(tmp_path, jobs) == [FINISHED, FINISHED]


def test_a_second_ctrl_c_breaks_a_run_off_that_does_not_listen(tmp_path):
    def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)
        return FINISHED

    assert execute(tmp_path, [job(0), job(1)], run_one) == [INTERRUPTED, INTERRUPTED]


def test_the_watcher_is_told_while_a_run_asks_whether_to_stop(tmp_path):
    go(tmp_path)
    seen: list[Progress] = []
    jobs = [job(0, "count", steps=110)]
    execute(tmp_path, jobs, watch=seen.append)
    assert [progress.running for progress in seen].count((jobs[0].run_id,)) >= 2
    assert seen[-1].ended == {jobs[0].run_id: FINISHED}
