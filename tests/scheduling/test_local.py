"""The local scheduler on real processes: what dies, raises or takes too long never hangs and is recorded."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.scheduling import local
from harness.scheduling.base import INTERRUPTED, Job, Progress
from harness.scheduling.local import Local, LocalSettings, runs_beside, worth_beside
from harness.spec import DIVERGED, FAILED, FINISHED, Machine, RunSpec
from tests.ended import end
from tests.scheduling.fakes import events, go, has_begun, job, run_fake
from tests.timing import FOREVER_S, not_waited_out, wait_until
from tests.training.runs import tiny_spec

PRELOAD = ("tests.scheduling.fakes",)


def settings(tmp_path: Path, **changes: object) -> LocalSettings:
    machine = Machine(runs_dir=tmp_path / "runs", data_dir=tmp_path / "data")
    return LocalSettings(**{"machine": machine, "workers": 2, "preload": PRELOAD, **changes})


def folder(tmp_path: Path, each: Job) -> RunFolder:
    return RunFolder(tmp_path / "runs" / each.run_id)


def execute(
    tmp_path: Path,
    jobs: Sequence[Job],
    watch: Callable[[Progress], None] = lambda progress: None,
    **changes: object,
) -> list[str]:
    """The statuses in the order of the jobs."""
    ended = Local(settings(tmp_path, **changes)).execute(jobs, run_fake, watch)
    assert list(ended) == [each.run_id for each in jobs]
    return list(ended.values())


def signal_when(condition: Callable[[], bool], number: signal.Signals) -> threading.Thread:
    """Signal this process once `condition` holds, as a user would from a terminal."""

    def run() -> None:
        wait_until(condition)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_statuses_come_back_and_an_exception_is_recorded_once_and_not_retried(tmp_path):
    tasks = ("quick", "diverge", "crash", "leave_python", "answer_nonsense", "quick")
    jobs = [job(seed, task) for seed, task in enumerate(tasks)]
    assert execute(tmp_path, jobs) == [FINISHED, DIVERGED, FAILED, FAILED, FAILED, FINISHED]

    crashed = folder(tmp_path, jobs[2])
    [event] = events(crashed, "failed")
    assert event["message"] == "RuntimeError: loss has shape (2,)"
    assert "fakes.py" in event["traceback"]
    assert len(events(crashed, "started")) == 1
    assert "valid: finished, diverged" in events(folder(tmp_path, jobs[4]), "failed")[0]["message"]
    pids = {events(folder(tmp_path, each), "started")[0]["pid"] for each in jobs}
    assert len(pids) <= 2, "the worker lives on after an exception"
    assert os.getpid() not in pids


def test_a_worker_killed_with_9_is_replaced_and_its_run_retried_a_bounded_number_of_times(tmp_path):
    survivor, lost, other = job(0, "die", times=2), job(1, "die", times=99), job(2, "sleep", time_s=0.3)
    notes: list[str] = []
    statuses = execute(
        tmp_path, [survivor, lost, other], lambda progress: notes.append(progress.note), retries=2
    )
    assert statuses == [FINISHED, FAILED, FINISHED]

    deaths = events(folder(tmp_path, survivor), "worker_died")
    assert [(each["attempt"], each["exit_code"]) for each in deaths] == [(1, -9), (2, -9)]
    assert "SIGKILL" in deaths[0]["message"]
    assert len(events(folder(tmp_path, lost), "worker_died")) == 3
    assert "given up after 3 attempts" in events(folder(tmp_path, lost), "failed")[0]["message"]
    assert any(survivor.run_id in note and "attempt 2 of 3" in note for note in notes)
    assert len(events(folder(tmp_path, other), "started")) == 1, "the other worker is not disturbed"


def test_students_wait_for_their_teacher_and_fail_with_it(tmp_path):
    teacher, bad = job(0, "sleep", time_s=0.3), job(1, "crash")
    student, orphan = job(2, needs=(teacher,), cost=9), job(3, needs=(bad,))
    grandchild = job(4, needs=(orphan,))
    statuses = execute(tmp_path, [student, teacher, orphan, bad, grandchild])
    assert statuses == [FINISHED, FINISHED, FAILED, FAILED, FAILED]
    assert (
        folder(tmp_path, student).read_events()[0]["time_s"]
        >= folder(tmp_path, teacher).summary.stat().st_mtime - 0.01
    )
    [event] = folder(tmp_path, orphan).read_events()
    assert event["kind"] == "failed"
    assert bad.run_id in event["message"]
    assert orphan.run_id in folder(tmp_path, grandchild).read_events()[0]["message"]


def test_a_teacher_that_finished_in_an_earlier_session_is_enough(tmp_path):
    teacher = job(0)
    end(folder(tmp_path, teacher), teacher.spec)
    assert execute(tmp_path, [job(1, needs=(teacher,))]) == [FINISHED]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_runs_checkpoint_and_the_next_execute_goes_on(tmp_path, number):
    jobs = [job(seed, "count", steps=20) for seed in range(3)]
    running = jobs[:2]
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    thread = signal_when(lambda: all(has_begun(folder(tmp_path, each)) for each in running), number)
    assert execute(tmp_path, jobs) == [INTERRUPTED] * 3
    thread.join()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers

    for each in running:
        assert [event["kind"] for event in folder(tmp_path, each).read_events()] == ["started", "checkpoint"]
    assert not folder(tmp_path, jobs[2]).path.exists()

    undisturbed = tmp_path / "undisturbed"
    go(tmp_path / "runs")
    go(undisturbed / "runs")
    assert execute(tmp_path, jobs) == [FINISHED] * 3
    assert execute(undisturbed, jobs) == [FINISHED] * 3
    for each in jobs:
        assert folder(tmp_path, each).read_summary() == folder(undisturbed, each).read_summary()


def test_a_second_ctrl_c_kills_at_once(tmp_path):
    each = job(0, "deaf")
    notes: list[str] = []
    threads = [
        signal_when(lambda: has_begun(folder(tmp_path, each)), signal.SIGINT),
        signal_when(lambda: any("interrupt again to kill" in note for note in notes), signal.SIGINT),
    ]
    with not_waited_out():
        watch = lambda progress: notes.append(progress.note)  # noqa: E731
        assert execute(tmp_path, [each], watch, grace_s=FOREVER_S) == [INTERRUPTED]
    for thread in threads:
        thread.join()


def test_a_run_that_does_not_listen_is_killed_after_the_grace_period(tmp_path):
    each = job(0, "deaf")
    thread = signal_when(lambda: has_begun(folder(tmp_path, each)), signal.SIGINT)
    with not_waited_out():
        assert execute(tmp_path, [each], grace_s=0.5) == [INTERRUPTED]
    thread.join()


def test_no_process_is_left_when_execute_returns_or_its_watcher_raises(tmp_path):
    jobs = [job(seed, "count", steps=20) for seed in range(2)]

    def watch(progress: Progress) -> None:
        if all(has_begun(folder(tmp_path, each)) for each in jobs):
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        execute(tmp_path, jobs, watch)
    for each in jobs:
        [event] = events(folder(tmp_path, each), "started")
        with pytest.raises(ProcessLookupError):
            os.kill(event["pid"], 0)
        assert folder(tmp_path, each).checkpoint.exists()


@pytest.mark.campaign
def test_the_watcher_sees_every_end_and_hears_at_least_once_a_second(tmp_path):
    jobs = [job(seed, "sleep", time_s=0.1) for seed in range(3)] + [job(9, "count", steps=20, cost=9)]
    seen: list[tuple[float, Progress]] = []

    def watch(progress: Progress) -> None:
        seen.append((time.monotonic(), progress))
        if [len(each.ended) for _, each in seen].count(3) >= 4:
            go(tmp_path / "runs")  # the last one goes on once three looks brought no news

    execute(tmp_path, jobs, watch)
    first, last = seen[0][1], seen[-1][1]
    assert (first.waiting, first.running, first.ended) == (4, (), {})
    assert (last.waiting, last.running, len(last.ended)) == (0, (), 4)
    for _, progress in seen:
        assert progress.waiting + len(progress.running) + len(progress.ended) == 4
        assert len(progress.running) <= 2
    assert {len(progress.ended) for _, progress in seen} == {0, 1, 2, 3, 4}
    quiet_s = [time_s for time_s, progress in seen if len(progress.ended) == 3]
    shortest_s = min(after - before for before, after in itertools.pairwise(quiet_s))
    assert shortest_s < 2.0, "the shortest of several: the machine may be busy"


def test_workers_are_spread_over_devices(tmp_path):
    jobs = [job(seed, "count", steps=20) for seed in range(4)]
    devices = ("cuda:0", "cuda:1")

    def watch(progress: Progress) -> None:
        if all(has_begun(folder(tmp_path, each)) for each in jobs):
            go(tmp_path / "runs")  # every worker has one

    assert execute(tmp_path, jobs, watch, workers=4, devices=devices, per_device=2) == [FINISHED] * 4
    started = [events(folder(tmp_path, each), "started")[0] for each in jobs]
    used = sorted((each["device"], each["visible"]) for each in started)
    assert used == [("cuda:0", "0"), ("cuda:0", "0"), ("cuda:1", "1"), ("cuda:1", "1")]


def test_a_worker_that_lost_its_gpu_is_replaced_and_its_run_tried_again(tmp_path):
    lost, next_one = job(0, "lose_device", cost=2), job(1)
    assert execute(tmp_path, [lost, next_one], workers=1) == [FINISHED] * 2
    (death,) = events(folder(tmp_path, lost), "worker_died")
    assert death["message"].startswith(
        "cuda:0 cannot be used by this process any more: CUDA error; its worker"
    )
    pids = [event["pid"] for each in (lost, next_one) for event in events(folder(tmp_path, each), "started")]
    assert len(set(pids)) == 2


def test_a_gpu_on_which_nothing_can_be_begun_fails_no_run_and_gets_no_other(tmp_path):
    jobs, devices, notes = [job(seed, "unusable") for seed in range(6)], ("cuda:0", "cuda:1"), []
    watch = lambda progress: notes.append(progress.note)  # noqa: E731
    assert execute(tmp_path, jobs, watch, devices=devices) == [FINISHED] * 6
    kinds = [event["kind"] for each in jobs for event in folder(tmp_path, each).read_events()]
    assert kinds.count("device_lost") == 1
    assert "worker_died" not in kinds
    assert "cuda:1 cannot be used: it is broken; no run is given to it again" in "\n".join(notes)


def test_a_command_without_a_usable_gpu_ends_and_fails_no_run(tmp_path):
    jobs = [job(seed, "unusable") for seed in range(3)]
    with not_waited_out():
        ended = execute(tmp_path, jobs, workers=1, devices=("cuda:1",), retries=0)
    assert ended == [INTERRUPTED] * 3
    assert not any(events(folder(tmp_path, each), "failed") for each in jobs)


def test_a_worker_is_replaced_after_so_many_runs_or_when_it_has_grown(tmp_path):
    def pids(path: Path, jobs: Sequence[Job], **changes: object) -> list[object]:
        assert execute(path, jobs, workers=1, **changes) == [FINISHED] * len(jobs)
        return [events(folder(path, each), "started")[0]["pid"] for each in jobs]

    jobs = [job(seed) for seed in range(4)]
    by_count = pids(tmp_path / "a", jobs, runs_per_worker=2)
    assert by_count[0] == by_count[1] != by_count[2] == by_count[3]

    jobs = [job(seed, "fill", megabytes=400 if seed == 1 else 0) for seed in range(4)]
    by_memory = pids(tmp_path / "b", jobs, max_rss_gb=0.4)
    assert by_memory[0] == by_memory[1] != by_memory[2] == by_memory[3]


def test_workers_have_their_threads_and_where_it_fits_their_cores(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    jobs = [job(seed, "see") for seed in range(2)]
    execute(tmp_path / "pinned", jobs, workers=len(cores), pin_cores=True)
    used = [events(folder(tmp_path / "pinned", each), "seen")[0]["cores"] for each in jobs]
    assert all(len(each) == 1 for each in used)
    assert len(cores) == 1 or used[0] != used[1]
    assert sorted(os.sched_getaffinity(0)) == cores, "the controller's own are as before"

    execute(tmp_path / "free", jobs, workers=len(cores) + 1, pin_cores=True)
    assert events(folder(tmp_path / "free", jobs[0]), "seen")[0]["cores"] == cores
    assert events(folder(tmp_path / "free", jobs[0]), "started")[0]["threads"] == "1"


def test_a_process_that_a_run_starts_can_be_ended_by_sigterm(tmp_path):
    each = job(0, "has_a_child")
    assert execute(tmp_path, [each]) == [FINISHED]
    assert folder(tmp_path, each).read_summary()["metrics"]["ended_by"] == signal.SIGTERM


def test_a_module_that_cannot_be_preloaded_is_named(tmp_path):
    notes: list[str] = []
    watch = lambda progress: notes.append(progress.note)  # noqa: E731
    assert execute(tmp_path, [job(0, "sleep", time_s=0.1)], watch, preload=(*PRELOAD, "no_such_module")) == [
        FINISHED
    ]
    assert any("no_such_module" in note and "not preloaded" in note for note in notes)


def test_settings_out_of_range_and_a_function_without_a_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers is 0; it must be at least 1"):
        settings(tmp_path, workers=0)
    with pytest.raises(ValueError, match="5 workers on 2 GPUs with per_device 2: at most 4"):
        settings(tmp_path, workers=5, devices=("cuda:0", "cuda:1"), per_device=2)
    with pytest.raises(TypeError, match="top of a module"):
        Local(settings(tmp_path)).execute([job(0)], lambda *_: FINISHED, print)


# How many runs share a GPU.


@pytest.mark.parametrize(
    ("rates", "most", "count"),
    [
        ({1: 100, 2: 190, 4: 300, 8: 320}, 8, 4),
        ({1: 100, 2: 109}, 8, 1),
        ({1: 100, 2: 200, 4: 0}, 8, 2),  # no memory for four
        ({1: 100, 2: 200, 4: 400}, 7, 4),
        ({1: 0}, 8, 1),
    ],
)
def test_twice_as_many_runs_share_a_gpu_while_that_is_worth_a_tenth(rates, most, count):
    assert worth_beside(rates.__getitem__, most)[0] == count


def test_what_is_measured_is_the_longest_run_that_can_be_begun(tmp_path, monkeypatch):
    asked = []

    def rate(spec: RunSpec, machine: Machine, count: int) -> float:
        asked.append((spec.seed, machine.device, count))
        return 100.0 * count

    monkeypatch.setattr(local, "images_per_s", rate)
    monkeypatch.setattr(local.base, "available_cores", lambda: 9)
    machine = replace(settings(tmp_path).machine, device="cuda:0")
    first = job(0, cost=1)
    jobs = [first, job(1, cost=9, needs=(first,)), *(job(seed, cost=2) for seed in range(2, 20))]
    assert runs_beside(machine, ("cuda:0", "cuda:1"), jobs) == (4, "1: 100, 2: 200, 4: 400 images/s")
    assert asked == [(2, "cuda:0", 1), (2, "cuda:0", 2), (2, "cuda:0", 4)]
    assert runs_beside(machine, ("cuda:0", "cuda:1"), jobs[:3])[0] == 1
    assert runs_beside(machine, ("cpu",), jobs)[0] == 1


@pytest.mark.campaign
def test_the_rate_of_processes_that_train_together_is_measured(tmp_path):
    machine = settings(tmp_path).machine
    assert local.images_per_s(tiny_spec(), machine, 2) > 0
    assert local.images_per_s(tiny_spec(optimizer="none"), machine, 1) == 0.0
