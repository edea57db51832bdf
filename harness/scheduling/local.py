"""Runs on this machine: by warm workers, several at a time, or one after another in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.errors import DeviceLostError, decided
from harness.runs.claims import Claims
from harness.runs.folder import finished_in
from harness.scheduling import base, workers
from harness.scheduling.base import INTERRUPTED, Arrival, Interrupts, IsOver, Job, RunOne, Watch, never
from harness.scheduling.queue import ClaimedQueue, JobQueue, want
from harness.scheduling.workers import Died, Event, Ready, Replace, WorkerEnded, WorkerPool, WorkerSettings
from harness.spec import FAILED, AnyRun, Machine, RunSpec

# Hands claimed runs to the workers of a pool until nothing is left for this process, or a signal comes.


WATCH_EVERY_S = 1.0
KILLED_S = 5.0  # the time a killed worker may take to disappear
WITHDRAWN_S = 60.0  # the time a run that is no longer wanted may take to come to a step

Patience = Callable[[Sequence[Arrival]], float]
"""The `time.monotonic` until which runs may checkpoint, from the signals that have come: at least one."""


@dataclass(slots=True, kw_only=True)
class LocalSession:
    """One call of `execute`, or one life of an agent."""

    runs: ClaimedQueue
    pool: WorkerPool
    interrupts: Interrupts
    watch: Watch
    patience: Patience
    is_over: IsOver = never  # then runs are stopped as by a signal
    lingers: bool = True  # waits for runs that others hold; else leaves once these were seen to live
    _told_preload: bool = False
    _asked_s: dict[str, float] = field(default_factory=dict)  # withdrawn run -> when it was asked to stop

    def run(self) -> None:
        """Until all runs have ended, all that is left is others' (see `lingers`), or a signal has come.

        Then nothing is running here any more, unless not even SIGKILL ends it.
        """
        self.runs.record_refusals()
        self._tell()
        while self._has_more() and not self.interrupts.count and not self.pool.is_retired:
            self._dispatch()
            self._tell()
            self._take_events(WATCH_EVERY_S if self.runs.queue.running else self.runs.pause_s)
            if self.is_over():
                self.interrupts.end()
        if self.interrupts.count and not self.runs.queue.done:
            self._wind_down()
        elif self.pool.is_retired:
            self.runs.queue.interrupt()
        self._tell()

    def _has_more(self) -> bool:
        queue = self.runs.queue
        if queue.done or self.lingers or queue.running or queue.has_ready:
            return not queue.done
        return not all(self.runs.held[run_id].beats for run_id in queue.postponed)

    def _dispatch(self) -> None:
        while self.pool.has_idle and not self.interrupts.count and (run_id := self.runs.take()) is not None:
            died = self.pool.give(self.runs.queue.jobs[run_id].spec, run_id)
            if died is not None:
                self._on_death(died)
        self.runs.record_refusals()

    def _take_events(self, timeout_s: float) -> None:
        """Sleep until something has happened and account for it."""
        events = self.pool.wait(timeout_s, self.interrupts.wake_fd)
        self.interrupts.drain()
        for event in events:
            self._on_event(event)
        self._stop_withdrawn()
        self.runs.record_refusals()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, WorkerEnded):
            self._on_end(event.run_id, event.status)
        elif isinstance(event, Died):
            self._on_death(event)
        elif isinstance(event, Ready) and event.not_preloaded and not self._told_preload:
            self._told_preload = True
            modules = ", ".join(event.not_preloaded)
            self.runs.notes.append(f"not preloaded, each worker imports it: {modules}")

    def _on_end(self, run_id: str, status: str) -> None:
        self._asked_s.pop(run_id, None)
        self.runs.stopped(run_id, status)

    def _on_death(self, died: Died) -> None:
        """Retry the run, or give it up; a death that this process brought about is none of the run's."""
        run_id = died.run_id
        if self._asked_s.pop(run_id, None) is not None:
            self.runs.withdraw(run_id)
        elif self.interrupts.count:
            self.runs.end(run_id, INTERRUPTED)
        elif died.exit_code == workers.UNUSABLE:  # no fault of the run, which others may train
            self.runs.notes.append(
                f"run {run_id}: {self.runs.last_words(run_id)}; no run is given to it again"
            )
            self.runs.queue.put_back(run_id)
        elif self.runs.died(run_id, f"its worker {died.message}", exit_code=died.exit_code):
            self.runs.queue.put_back(run_id)
        else:
            self.runs.end(run_id, FAILED)

    def _stop_withdrawn(self) -> None:
        """Ask runs to stop that another has now, or that were cancelled; the worker goes on with others."""
        now_s = time.monotonic()
        for run_id, why in self.runs.claims.withdrawn().items():
            if run_id not in self._asked_s:
                self._asked_s[run_id] = now_s
                self.runs.notes.append(f"run {run_id} is {why}; it stops here")
                self.pool.stop_run(run_id)
            elif now_s - self._asked_s[run_id] > WITHDRAWN_S:
                self.pool.kill(run_id)

    def _wind_down(self) -> None:
        """After a signal: wait for checkpoints, then kill. Nothing new is started."""
        queue = self.runs.queue
        self.runs.notes.append("stopping: runs write a checkpoint; interrupt again to kill them")
        self.pool.ask_to_stop()
        while queue.running and (left_s := self._patience_s()) > 0:
            self._tell()
            self._take_events(min(WATCH_EVERY_S, left_s))
        self.pool.kill()
        deadline_s = time.monotonic() + KILLED_S
        while queue.running and time.monotonic() < deadline_s:
            self._take_events(0.1)
        queue.interrupt()

    def _patience_s(self) -> float:
        return self.patience(self.interrupts.arrivals) - time.monotonic()

    def _tell(self) -> None:
        self.watch(self.runs.progress())


# Warm workers on this machine: several runs at a time, each in a process that outlives it.


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """How many workers run where.

    Raises:
        ValueError: a number out of range, no device, or more workers than the GPUs may share.
    """

    machine: Machine  # its `device` is replaced by each worker's own
    workers: int
    devices: tuple[str, ...] = ("cpu",)  # worker i gets devices[i % len(devices)]
    per_device: int = 1  # at most so many workers share a GPU; of no account on a CPU
    retries: int = 2  # of a run whose worker died; an exception is not retried
    preload: tuple[str, ...] = ("harness.training.run",)  # imported once, before workers are forked
    pin_cores: bool = False  # worker i on its own cores, where workers x threads is just all of them
    max_rss_gb: float | None = None  # a worker above this (10^9 bytes) is replaced after its run
    runs_per_worker: int | None = None  # a worker is replaced after so many runs
    grace_s: float = 30.0  # the time runs have to checkpoint after Ctrl-C

    def __post_init__(self) -> None:
        least = {
            "workers": 1,
            "per_device": 1,
            "retries": 0,
            "max_rss_gb": 0,
            "runs_per_worker": 1,
            "grace_s": 0,
        }
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} is {value}; it must be at least {lowest}")
        if not self.devices:
            raise ValueError("no devices; valid: cpu, cuda:0, cuda:1, ...")
        most = len(self.devices) * self.per_device // self._processes_here
        if self.workers > most and "cpu" not in self.devices:
            each = f" of {self.machine.processes} processes" if self.machine.processes > 1 else ""
            raise ValueError(
                f"{self.workers} workers{each} on {len(self.devices)} GPUs with per_device {self.per_device}:"
                f" at most {most}; use fewer workers or raise per_device"
            )

    def worker_settings(self, run_one: bytes, cores: Sequence[int]) -> list[WorkerSettings]:
        """One entry per worker; `run_one` is pickled, `cores` are those this process may use."""
        threads = self.machine.threads
        pin = self.pin_cores and self.workers * threads == len(cores)
        return [
            WorkerSettings(
                machine=self._machine_of(index),
                run_one=run_one,
                preload=self.preload,
                cores=tuple(cores[index * threads : (index + 1) * threads]) if pin else (),
                grace_s=self.grace_s,
                python_path=os.environ.get("PYTHONPATH"),
            )
            for index in range(self.workers)
        ]

    @property
    def _processes_here(self) -> int:
        """Of one run, on this machine; the others are on other nodes."""
        return len(self.machine.devices) or self.machine.processes

    def _machine_of(self, worker: int) -> Machine:
        """Worker i has the next devices after those of the workers before it, one for each process."""
        processes = self._processes_here
        first = worker * processes
        own = tuple(self.devices[(first + rank) % len(self.devices)] for rank in range(processes))
        return dataclasses.replace(
            self.machine,
            device=own[0],
            devices=own if self.machine.processes > 1 else (),
            shared=self.workers * processes > len(self.devices),
        )

    def pool(self, run_one: RunOne) -> WorkerPool:
        """The workers, which start when they get their first run.

        Raises:
            TypeError: `run_one` is not a function at the top of a module.
        """
        rss_bytes = None if self.max_rss_gb is None else int(self.max_rss_gb * 1e9)
        replace = Replace(rss_bytes=rss_bytes, runs=self.runs_per_worker)
        return WorkerPool(self.worker_settings(workers.pickle_by_name(run_one), _cores()), replace)

    def claimed(self, queue: JobQueue, claims: Claims, *, since_s: float) -> ClaimedQueue:
        """The queue of this process among those that work on the same runs."""
        runs_dir, most = self.machine.runs_dir, self.retries + 1
        return ClaimedQueue(queue, claims, runs_dir, since_s=since_s, most_deaths=most)


class Local:
    """Executes jobs in `settings.workers` warm processes of this machine, in the order of `JobQueue`."""

    def __init__(self, settings: LocalSettings, is_over: IsOver = never) -> None:
        self.settings, self._is_over = settings, is_over

    def warm_up(self) -> None:
        """Begin to import the training code in the background; `execute` then finds it done, or under way."""
        base.start_server(self.settings.preload, self.settings.machine.threads)

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. `watch` is called between hand-outs and must be quick.

        The first Ctrl-C or SIGTERM, or the end of the time, lets the running jobs checkpoint, the next signal
        kills them at once; either way they are INTERRUPTED and resumable. A run whose worker dies is retried
        `retries` times. A run that another process trains is waited for; an earlier request to cancel one of
        the jobs is taken back.

        Raises:
            ValueError: a run is given twice, or jobs need each other in a circle.
            TypeError: `run_one` is not a function at the top of a module.
        """
        settings = self.settings
        queue = JobQueue(jobs, finished_in(settings.machine.runs_dir))
        pool = settings.pool(run_one)
        want(queue, settings.machine.runs_dir)
        with Interrupts() as interrupts, Claims(settings.machine.runs_dir) as claims:
            try:
                LocalSession(
                    runs=settings.claimed(queue, claims, since_s=time.time()),
                    pool=pool,
                    interrupts=interrupts,
                    watch=watch,
                    patience=self._patience,
                    is_over=self._is_over,
                ).run()
            finally:
                pool.close(settings.grace_s)
        return {run_id: queue.ended[run_id] for run_id in queue.jobs}

    def _patience(self, arrivals: Sequence[Arrival]) -> float:
        """A second signal is one too many."""
        return arrivals[0].time_s + (0.0 if len(arrivals) > 1 else self.settings.grace_s)


def _cores() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return []


# How many runs one GPU trains side by side, measured with the longest run of a study.


WORTH = 1.1  # twice as many are worth it where they train so many times the images a second
MEASURED_S = 3.0
READY_S = 180.0  # until all that are measured have begun


def runs_beside(machine: Machine, devices: Sequence[str], jobs: Sequence[Job]) -> tuple[int, str]:
    """How many runs are to share each GPU, and why."""
    ours = [job for job in jobs if isinstance(job.spec, RunSpec) and job.spec.arm.recipe.trainer == "harness"]
    alone = [job for job in ours if not job.needs]  # what another one is needed for cannot be begun yet
    if devices[0] == "cpu" or machine.processes > 1 or not alone:
        return 1, "there is nothing to measure"
    most = min(len(jobs), base.available_cores()) // len(devices)
    if most < 2:
        return 1, "there are no more runs, or no more cores, than GPUs"
    longest = max(alone, key=lambda job: job.cost)
    return worth_beside(partial(images_per_s, longest.spec, machine), most)


def worth_beside(rate: Callable[[int], float], most: int) -> tuple[int, str]:
    """How many of 1, 2, 4, ... and at most `most`: while twice as many train more than `WORTH` times the
    images a second. `rate` gives that of so many together, 0 where these cannot run.

    >>> worth_beside({1: 100.0, 2: 180.0, 4: 190.0}.__getitem__, most=6)
    (2, '1: 100, 2: 180, 4: 190 images/s')
    """
    found = {1: rate(1)}
    count = 1
    while 2 * count <= most and found[count] > 0:
        found[2 * count] = rate(2 * count)
        if found[2 * count] <= WORTH * found[count]:
            break
        count *= 2
    if not found[1]:
        return 1, "it could not be measured"
    return count, ", ".join(f"{each}: {value:.0f}" for each, value in found.items()) + " images/s"


def images_per_s(spec: AnyRun, machine: Machine, count: int) -> float:
    """Of so many processes that train alike at the same time, together; 0 where one of them cannot."""
    asked = {name: getattr(machine, name) for name in ("device", "exact", "compile")}
    rate = {**asked, "spec": spec.to_json(), "time_s": MEASURED_S}
    order = json.dumps({"rate": rate, "data_dir": str(machine.data_dir)}) + "\n"
    environment = os.environ | dict.fromkeys(base.THREAD_VARIABLES, str(machine.threads))
    command = [sys.executable, "-m", "harness.training.step_times"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    start = partial(subprocess.Popen, command, env=environment, text=True, **pipes)
    measured = [start() for _ in range(count)]
    late = threading.Timer(READY_S, lambda: _kill(measured))
    late.start()
    try:
        _say_to_all(measured, order)
        if any(each.stdout.readline() != "ready\n" for each in measured if each.stdout):
            return 0.0
        _say_to_all(measured, "go\n")
        return sum(float(each.stdout.readline() or 0) for each in measured if each.stdout)
    except (OSError, ValueError):  # one of them has ended, or says something else
        return 0.0
    finally:
        late.cancel()
        _kill(measured)
        for each in measured:
            with contextlib.suppress(OSError):
                each.communicate()


def _kill(processes: Sequence[subprocess.Popen[str]]) -> None:
    for each in processes:
        each.kill()


def _say_to_all(processes: Sequence[subprocess.Popen[str]], line: str) -> None:
    for each in processes:
        assert each.stdin is not None
        each.stdin.write(line)
        each.stdin.flush()


# Runs one after another in this process: breakpoints work, nothing is hidden in another process.


MOST_DEATHS = 3  # in a row, of the process that trained a run; here the process is the user's own


class Inline:
    """Executes jobs in the calling process, in the order of `JobQueue`."""

    def __init__(self, machine: Machine, is_over: IsOver = never) -> None:
        self.machine, self._is_over = machine, is_over

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. The first Ctrl-C asks the running job to checkpoint, the second breaks it off.

        A run that another process trains is waited for; an earlier request to cancel one of the jobs is taken
        back.

        Raises:
            ValueError: a run is given twice, or jobs need each other in a circle.
        """
        runs_dir = self.machine.runs_dir
        queue = JobQueue(jobs, finished_in(runs_dir))
        want(queue, runs_dir)
        with Interrupts(raise_on_second=True) as interrupts, Claims(runs_dir) as claims:
            runs = ClaimedQueue(queue, claims, runs_dir, since_s=time.time(), most_deaths=MOST_DEATHS)
            session = _Session(runs, self.machine, watch, interrupts, self._is_over)
            try:
                session.run(run_one)
            except KeyboardInterrupt:  # a second Ctrl-C, or one that run_one itself received
                queue.interrupt()
                session.tell()
        return {run_id: queue.ended[run_id] for run_id in queue.jobs}


class _Session:
    def __init__(
        self,
        runs: ClaimedQueue,
        machine: Machine,
        watch: Watch,
        interrupts: Interrupts,
        is_over: IsOver,
    ) -> None:
        self.runs, self.machine, self.watch, self.interrupts = runs, machine, watch, interrupts
        self.is_over = is_over
        self.told_s = 0.0
        self.device_lost = False

    def run(self, run_one: RunOne) -> None:
        self.runs.record_refusals()
        while not (self.runs.queue.done or self.interrupts.count or self.device_lost or self.is_over()):
            run_id = self.runs.take()
            self.runs.record_refusals()
            self.tell()
            if run_id is not None:
                decided(f"this process takes run {run_id}")
                self.execute(run_id, run_one)
            elif not self.runs.queue.done:  # what is left is others'
                select.select([self.interrupts.wake_fd], [], [], min(self.runs.pause_s, WATCH_EVERY_S))
        self.runs.queue.interrupt()
        self.tell()

    def execute(self, run_id: str, run_one: RunOne) -> None:
        spec = self.runs.queue.jobs[run_id].spec
        try:
            status = workers.attempt(run_one, spec, self.machine, partial(self.stop, run_id))
        except DeviceLostError as lost:
            status, self.device_lost = INTERRUPTED, True
            self.runs.notes.append(f"run {run_id}: {lost}; a new command goes on from the last checkpoint")
        self.runs.stopped(run_id, status)
        self.runs.record_refusals()

    def stop(self, run_id: str) -> bool:
        """What the running job asks at each step; the only moment at which the watcher can be told."""
        if time.monotonic() - self.told_s >= WATCH_EVERY_S:
            self.tell()
        return self.interrupts.count > 0 or self.is_over() or self.runs.claims.is_withdrawn(run_id)

    def tell(self) -> None:
        self.told_s = time.monotonic()
        self.watch(self.runs.progress())
