"""Several processes with the same runs: each is trained once, whoever is killed, cancelled or overtaken."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.runs.claims import Claims, request_cancel
from harness.runs.folder import RunFolder, finished_in, run_state
from harness.scheduling.base import INTERRUPTED, Interrupts, Job, Progress
from harness.scheduling.local import Inline, Local, LocalSession, LocalSettings
from harness.scheduling.queue import ClaimedQueue, JobQueue, last_step
from harness.spec import FAILED, FINISHED, Machine
from tests.ended import end
from tests.scheduling.fakes import events, go, has_begun, job, run_fake
from tests.timing import FOREVER_S, PATIENCE_S, not_waited_out, paces, until, wait_until

ROOT = Path(__file__).parents[2]
CONTROLLER = """
import os, sys, time
from pathlib import Path
from harness.scheduling.local import Inline
from harness.scheduling.local import Local, LocalSettings
from harness.spec import Machine
from tests.scheduling.fakes import job, run_fake

runs_dir, kind = Path(sys.argv[1]), sys.argv[2]
machine = Machine(runs_dir=runs_dir, data_dir=runs_dir)
teacher = job(99, "sleep", time_s=0.3)
first = [job(seed, "count", steps=20, cost=99) for seed in range(200, 204)]  # each waits for `go`
jobs = [teacher] + first + [job(seed, "sleep", time_s=0.05) for seed in range(16)]
jobs += [job(seed, needs=(teacher,)) for seed in range(100, 104)] + [job(50, "crash")]
local = Local(LocalSettings(machine=machine, workers=2, preload=("tests.scheduling.fakes",)))
(runs_dir / f"ready.{os.getpid()}").touch()
while not (runs_dir / "begin").exists():
    time.sleep(0.01)
ended = (local if kind == "local" else Inline(machine)).execute(jobs, run_fake, lambda progress: None)
print(*ended.values())
"""


def controller(runs_dir: Path, kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(runs_dir), kind],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(runs_dir: Path) -> set[object]:
    """The processes in which a run has begun."""
    found = [RunFolder(path) for path in runs_dir.iterdir() if path.is_dir()]
    return {event["pid"] for each in found for event in events(each, "started")}


@pytest.mark.parametrize("kinds", [("local", "local"), ("local", "inline")])
def test_two_controllers_on_the_same_runs_train_each_once_and_both_know_all_ends(tmp_path, kinds):
    processes = [controller(tmp_path, kind) for kind in kinds]
    assert wait_until(lambda: len(list(tmp_path.glob("ready.*"))) == 2)
    (tmp_path / "begin").touch()
    slots = 4 if kinds[1] == "local" else 3
    assert wait_until(lambda: len(started(tmp_path)) == slots), "both have some of them, all at a time"
    go(tmp_path)
    answers = [process.communicate(timeout=PATIENCE_S) for process in processes]
    for output, errors in answers:
        assert output.split() == [FINISHED] * 25 + [FAILED], errors
    folders = [RunFolder(path) for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 26
    finished = [folder for folder in folders if run_state(folder) == FINISHED]
    assert [len(events(folder, "started")) for folder in finished] == [1] * 25
    [failed] = [folder for folder in folders if run_state(folder) == FAILED]
    assert len(events(failed, "failed")) == 1, "a run that fails is not tried again by the other"


def machine(tmp_path: Path) -> Machine:
    return Machine(runs_dir=tmp_path, data_dir=tmp_path)


def folder(tmp_path: Path, each: Job) -> RunFolder:
    return RunFolder(tmp_path / each.run_id)


def execute(
    tmp_path: Path,
    jobs: Sequence[Job],
    watch: Callable[[Progress], None] = lambda progress: None,
    *,
    lingers: bool = True,
    **claiming: float,
) -> list[str | None]:
    """A session with one worker and quick claims. The statuses in the order of the jobs."""
    settings = LocalSettings(machine=machine(tmp_path), workers=1, preload=("tests.scheduling.fakes",))
    queue, pool = JobQueue(jobs, finished_in(tmp_path)), settings.pool(run_fake)
    claiming = {"beat_s": 0.1, "stale_s": FOREVER_S} | claiming
    with Interrupts() as interrupts, Claims(tmp_path, **claiming) as claims:
        try:
            LocalSession(
                runs=settings.claimed(queue, claims, since_s=time.time() - 60),
                pool=pool,
                interrupts=interrupts,
                watch=watch,
                patience=lambda arrivals: arrivals[0].time_s + PATIENCE_S,
                lingers=lingers,
            ).run()
        finally:
            pool.close(PATIENCE_S)
    return [queue.ended.get(each.run_id) for each in jobs]


def when(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        wait_until(condition)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_cancelled_run_stops_and_its_worker_goes_on_with_the_next(tmp_path):
    jobs = [job(0, "count", steps=20, cost=9), job(1)]
    first = folder(tmp_path, jobs[0])
    thread = when(lambda: has_begun(first), lambda: request_cancel(first, "me@here"))
    notes: list[str] = []
    statuses = execute(tmp_path, jobs, lambda progress: notes.append(progress.note))
    thread.join()
    assert statuses == [INTERRUPTED, FINISHED]
    assert len(events(first, "checkpoint")) == 1
    pids = {events(folder(tmp_path, each), "started")[0]["pid"] for each in jobs}
    assert len(pids) == 1, "the same worker"
    assert run_state(first) == "cancelled"
    assert any("cancelled; it stops here" in note for note in notes)

    assert execute(tmp_path, jobs) == [INTERRUPTED, FINISHED], "an agent does not start a cancelled run"
    assert len(events(first, "started")) == 1


@pytest.mark.parametrize("scheduler", ["local", "inline"])
def test_a_cancelled_run_stops_wherever_it_is_trained(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr("harness.runs.claims.Claims.__init__.__kwdefaults__", quick_claims())
    jobs = [job(0, "count", steps=20, cost=9), job(1)]
    first = folder(tmp_path, jobs[0])
    thread = when(lambda: has_begun(first), lambda: request_cancel(first, "me@here"))
    here = machine(tmp_path)
    local = Local(LocalSettings(machine=here, workers=1, preload=("tests.scheduling.fakes",)))
    place = local if scheduler == "local" else Inline(here)
    ended = place.execute(jobs, run_fake, lambda progress: None)
    thread.join()
    assert list(ended.values()) == [INTERRUPTED, FINISHED]
    go(tmp_path)
    ended = place.execute(jobs, run_fake, lambda progress: None)
    assert list(ended.values()) == [FINISHED, FINISHED], "whoever asks for it takes that back"


def quick_claims() -> dict[str, object]:
    return {"job": None, "beat_s": 0.1, "stale_s": FOREVER_S}


def test_a_run_lost_to_another_stops_here_and_is_waited_for(tmp_path):
    each = job(0, "count", steps=20)
    path = folder(tmp_path, each).path
    notes: list[str] = []

    def take_over() -> None:
        (path / "claim.2").touch()
        (path / "claim.1").unlink()

    def finish_there() -> None:
        assert not (tmp_path / "go").exists()
        end(RunFolder(path), each.spec, metrics={"there": 1})

    threads = [
        when(lambda: has_begun(RunFolder(path)), take_over),
        when(lambda: any("waiting for it" in note for note in notes), finish_there),
    ]
    assert execute(tmp_path, [each], lambda progress: notes.append(progress.note)) == [FINISHED]
    for thread in threads:
        thread.join()
    assert len(events(RunFolder(path), "started")) == 1
    assert not events(RunFolder(path), "worker_died")
    assert len(events(RunFolder(path), "checkpoint")) == 1
    assert any("lost; it stops here" in note for note in notes)


@pytest.mark.campaign
def test_a_session_that_does_not_linger_leaves_once_the_holders_were_seen_to_live(tmp_path):
    held, own = job(0, "count", steps=20, cost=9), job(1)
    with Claims(tmp_path, beat_s=0.1) as others:
        others.take(held.run_id)
        assert execute(tmp_path, [held, own], lingers=False) == [None, FINISHED]
    with Claims(tmp_path, beat_s=60) as others:
        others.take(held.run_id)
        go(tmp_path)
        start_s = time.monotonic()
        assert execute(tmp_path, [held], lingers=False, stale_s=1.0) == [FINISHED], (
            "a holder that does not beat is followed"
        )
        assert time.monotonic() - start_s > 0.5


def test_a_second_process_that_is_stopped_while_it_waits_ends_at_once(tmp_path):
    held = job(0, "count", steps=20)
    with Claims(tmp_path, beat_s=0.1) as others:
        others.take(held.run_id)
        watch = lambda progress: os.kill(os.getpid(), signal.SIGTERM) if "waiting" in progress.note else None  # noqa: E731
        with not_waited_out():
            assert execute(tmp_path, [held], watch) == [INTERRUPTED]
        assert not folder(tmp_path, held).events.exists()


def claimed(tmp_path: Path, jobs: Sequence[Job], claims: Claims, **options: float) -> ClaimedQueue:
    queue = JobQueue(jobs, finished_in(tmp_path))
    return ClaimedQueue(queue, claims, tmp_path, **{"since_s": 0.0, "most_deaths": 3} | options)


def test_only_a_failure_since_the_session_began_is_not_tried_again(tmp_path):
    each = job(0)
    folder(tmp_path, each).path.mkdir(parents=True)
    folder(tmp_path, each).append_event("failed", message="x")
    for since_s, taken in ((time.time() - 60, None), (time.time() + 60, each.run_id)):
        with Claims(tmp_path) as claims:
            runs = claimed(tmp_path, [each], claims, since_s=since_s)
            assert runs.take() == taken
            assert runs.queue.ended == ({each.run_id: FAILED} if taken is None else {})
            assert claims.holds(each.run_id) is (taken is not None)


def test_deaths_are_counted_over_sessions_and_progress_begins_the_count_anew(tmp_path):
    each = job(0)
    record = folder(tmp_path, each)

    def die() -> str | bool:
        """Take the run and lose its worker in a new process."""
        with Claims(tmp_path) as claims:
            runs = claimed(tmp_path, [each], claims)
            assert runs.take() == each.run_id
            return runs.died(each.run_id, "its worker was killed")

    assert [die(), die()] == [True, True]
    record.append_event("checkpoint", step=5)
    assert [die(), die()] == [True, True]
    record.append_event("checkpoint", step=5)  # as far as before
    record.append_event("epoch", step=4)
    assert die() is False
    [failed] = events(record, "failed")
    assert "given up after 3 attempts without progress" in failed["message"]
    assert [death["attempt"] for death in events(record, "worker_died")] == [1, 2, 1, 2, 3]
    assert last_step(record.read_events()) == 5


def test_deaths_are_counted_where_no_record_can_be_written(tmp_path, monkeypatch):
    each = job(0)
    with Claims(tmp_path) as claims:
        runs = claimed(tmp_path, [each], claims)
        runs.take()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(RunFolder, "append_event", full)
        assert [runs.died(each.run_id, "x") for _ in range(3)] == [True, True, False]


def test_a_run_that_cannot_be_claimed_for_ever_fails_and_for_the_moment_waits(tmp_path, monkeypatch):
    each = job(0)
    taking = Claims.take

    def refuse(number: int) -> Callable[..., object]:
        def take(self: Claims, run_id: str) -> object:
            monkeypatch.setattr(os, "open", fail)
            try:
                return taking(self, run_id)
            finally:
                monkeypatch.setattr(os, "open", opening)

        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        return take

    opening = os.open
    with Claims(tmp_path) as claims:
        monkeypatch.setattr(Claims, "take", refuse(13))
        runs = claimed(tmp_path, [each], claims)
        assert runs.take() is None
        assert runs.queue.ended == {each.run_id: FAILED}
        assert "Permission denied" in events(folder(tmp_path, each), "failed")[0]["message"]

        later = job(1)
        monkeypatch.setattr(Claims, "take", refuse(28))
        runs = claimed(tmp_path, [later], claims)
        assert runs.take() is None
        assert (runs.queue.waiting, runs.queue.ended) == (1, {})
        assert "No space left" in runs.notes[0]
        monkeypatch.undo()
        assert [until(runs.take), runs.queue.waiting] == [later.run_id, 0]


def test_looking_at_what_others_hold_gets_rarer_while_nothing_changes(tmp_path, monkeypatch):
    jobs = [job(seed) for seed in range(3)]
    looks: list[float] = []
    now_s = time.monotonic()
    with Claims(tmp_path) as others, Claims(tmp_path) as claims:
        for each in jobs:
            others.take(each.run_id)
        runs = claimed(tmp_path, jobs, claims)
        taking = claims.take
        monkeypatch.setattr(claims, "take", lambda run_id: looks.append(now_s) or taking(run_id))
        monkeypatch.setattr("harness.scheduling.queue.time.monotonic", lambda: now_s)
        while len(looks) < 30:
            runs.take()
            now_s += 0.05
    pauses = [round(after - before, 1) for before, after in itertools.pairwise(sorted(set(looks)))]
    assert max(pauses) == 10
    assert pauses == sorted(pauses)


def test_claiming_costs_a_run_about_a_millisecond(tmp_path):
    jobs = [job(seed) for seed in range(200)]
    with Claims(tmp_path) as claims:
        runs = claimed(tmp_path, jobs, claims)
        took = paces(tmp_path, lambda: runs.end(str(runs.take()), FINISHED), len(jobs))
    assert runs.queue.done
    assert took < 15
