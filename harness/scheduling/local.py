"""Warm workers on this machine: several runs at a time, each in a process that outlives it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.scheduling import forkserver
from harness.scheduling.attempt import finished_in, record
from harness.scheduling.base import INTERRUPTED, Job, Progress, RunOne, Watch
from harness.scheduling.interrupts import Interrupts
from harness.scheduling.pool import Died, Event, Pool, Replace, pickle_by_name
from harness.scheduling.queue import JobQueue
from harness.scheduling.worker import Ended, Ready, WorkerSettings
from harness.study.machine import Machine
from harness.study.records import FAILED

WATCH_EVERY_S = 1.0
KILLED_S = 5.0  # the time a killed worker may take to disappear


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
        most = len(self.devices) * self.per_device
        if self.workers > most and "cpu" not in self.devices:
            raise ValueError(
                f"{self.workers} workers on {len(self.devices)} GPUs with per_device {self.per_device}:"
                f" at most {most}; use fewer workers or raise per_device"
            )

    def worker_settings(self, run_one: bytes, cores: Sequence[int]) -> list[WorkerSettings]:
        """One entry per worker; `run_one` is pickled, `cores` are those this process may use."""
        threads = self.machine.threads
        pin = self.pin_cores and self.workers * threads == len(cores)
        return [
            WorkerSettings(
                machine=dataclasses.replace(self.machine, device=self.devices[index % len(self.devices)]),
                run_one=run_one,
                preload=self.preload,
                cores=tuple(cores[index * threads : (index + 1) * threads]) if pin else (),
                grace_s=self.grace_s,
                python_path=os.environ.get("PYTHONPATH"),
            )
            for index in range(self.workers)
        ]


class Local:
    """Executes jobs in `settings.workers` warm processes of this machine, in the order of `JobQueue`."""

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings

    def warm_up(self) -> None:
        """Begin to import the training code in the background; `execute` then finds it done, or under way."""
        forkserver.start_server(self.settings.preload, self.settings.machine.threads)

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. `watch` is called between hand-outs and must be quick.

        The first Ctrl-C or SIGTERM lets the running jobs checkpoint, the second kills them at once; either
        way they are INTERRUPTED and resumable. A run whose worker dies is retried `retries` times.

        Raises:
            ValueError: a run is given twice, or jobs need each other in a circle.
            TypeError: `run_one` is not a function at the top of a module.
        """
        settings = self.settings
        queue = JobQueue(jobs, finished_in(settings.machine.runs_dir))
        rss_bytes = None if settings.max_rss_gb is None else int(settings.max_rss_gb * 1e9)
        replace = Replace(rss_bytes=rss_bytes, runs=settings.runs_per_worker)
        pool = Pool(settings.worker_settings(pickle_by_name(run_one), _cores()), replace)
        with Interrupts() as interrupts:
            try:
                _Session(settings, queue, pool, watch, interrupts).run()
            finally:
                pool.close(settings.grace_s)
        return {run_id: queue.ended[run_id] for run_id in queue.jobs}


class _Session:
    """One call of `execute`."""

    def __init__(
        self, settings: LocalSettings, queue: JobQueue, pool: Pool, watch: Watch, interrupts: Interrupts
    ) -> None:
        self.settings, self.queue, self.pool = settings, queue, pool
        self.watch, self.interrupts = watch, interrupts
        self.deaths: dict[str, int] = {}  # run_id -> how many workers it has cost
        self.notes: list[str] = []
        self.told_preload = False
        self.runs_dir = settings.machine.runs_dir

    def run(self) -> None:
        self.record_refusals()
        self.tell()
        while not self.queue.done and not self.interrupts.count:
            self.dispatch()
            self.tell()
            self.take_events(WATCH_EVERY_S)
        if not self.queue.done:
            self.wind_down()
        self.tell()

    def dispatch(self) -> None:
        while self.pool.has_idle and not self.interrupts.count and (run_id := self.queue.take()) is not None:
            died = self.pool.give(self.queue.jobs[run_id].spec, run_id)
            if died is not None:
                self.on_death(died)

    def take_events(self, timeout_s: float) -> None:
        """Sleep until something has happened and account for it."""
        events = self.pool.wait(timeout_s, self.interrupts.wake_fd)
        self.interrupts.drain()
        for event in events:
            self.on_event(event)
        self.record_refusals()

    def on_event(self, event: Event) -> None:
        if isinstance(event, Ended):
            self.queue.end(event.run_id, event.status)
        elif isinstance(event, Died):
            self.on_death(event)
        elif isinstance(event, Ready) and event.not_preloaded and not self.told_preload:
            self.told_preload = True
            self.notes.append(f"not preloaded, each worker imports it: {', '.join(event.not_preloaded)}")

    def on_death(self, died: Died) -> None:
        """Record it; retry the run, or give it up."""
        run_id, allowed = died.run_id, self.settings.retries + 1
        attempt = self.deaths[run_id] = self.deaths.get(run_id, 0) + 1
        exit_code = died.exit_code
        values = {"message": died.message, "exit_code": exit_code, "attempt": attempt, "attempts": allowed}
        record(self.runs_dir, run_id, "worker_died", **values)
        what = f"the worker of run {run_id} {died.message}"
        if self.interrupts.count:
            self.queue.end(run_id, INTERRUPTED)
        elif attempt < allowed:
            self.queue.put_back(run_id)
            self.notes.append(f"{what}; the run is retried (attempt {attempt + 1} of {allowed})")
        else:
            message = f"{what}; given up after {allowed} attempts"
            record(self.runs_dir, run_id, "failed", message=message)
            self.queue.end(run_id, FAILED)
            self.notes.append(message)

    def wind_down(self) -> None:
        """After a signal: wait for checkpoints, then kill. Nothing new is started."""
        self.notes.append("stopping: runs write a checkpoint; interrupt again to kill them")
        self.pool.ask_to_stop()
        deadline_s = time.monotonic() + self.settings.grace_s
        while self.queue.running and time.monotonic() < deadline_s and self.interrupts.count < 2:
            self.tell()
            self.take_events(min(WATCH_EVERY_S, max(0.0, deadline_s - time.monotonic())))
        self.pool.kill()
        deadline_s = time.monotonic() + KILLED_S
        while self.queue.running and time.monotonic() < deadline_s:
            self.take_events(0.1)
        self.queue.interrupt()

    def tell(self) -> None:
        queue = self.queue
        self.watch(
            Progress(
                waiting=queue.waiting,
                running=tuple(queue.running),
                ended=dict(queue.ended),
                note="\n".join(self.notes),
            )
        )
        self.notes.clear()

    def record_refusals(self) -> None:
        for run_id, message in self.queue.pop_refusals():
            record(self.runs_dir, run_id, "failed", message=message)


def _cores() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return []
