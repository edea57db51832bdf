"""Warm workers on this machine: several runs at a time, each in a process that outlives it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.scheduling import forkserver
from harness.scheduling.attempt import finished_in
from harness.scheduling.base import Job, RunOne, Watch
from harness.scheduling.claimed import ClaimedQueue, want
from harness.scheduling.interrupts import Arrival, Interrupts
from harness.scheduling.pool import Pool, Replace, pickle_by_name
from harness.scheduling.queue import JobQueue
from harness.scheduling.session import Session
from harness.scheduling.worker import WorkerSettings
from harness.study.machine import Machine
from harness.study.run_claims import Claims


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

    def pool(self, run_one: RunOne) -> Pool:
        """The workers, which start when they get their first run.

        Raises:
            TypeError: `run_one` is not a function at the top of a module.
        """
        rss_bytes = None if self.max_rss_gb is None else int(self.max_rss_gb * 1e9)
        replace = Replace(rss_bytes=rss_bytes, runs=self.runs_per_worker)
        return Pool(self.worker_settings(pickle_by_name(run_one), _cores()), replace)

    def claimed(self, queue: JobQueue, claims: Claims, *, since_s: float) -> ClaimedQueue:
        """The queue of this process among those that work on the same runs."""
        runs_dir, most = self.machine.runs_dir, self.retries + 1
        return ClaimedQueue(queue, claims, runs_dir, since_s=since_s, most_deaths=most)


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
        way they are INTERRUPTED and resumable. A run whose worker dies is retried `retries` times. A run that
        another process trains is waited for; an earlier request to cancel one of the jobs is taken back.

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
                Session(
                    runs=settings.claimed(queue, claims, since_s=time.time()),
                    pool=pool,
                    interrupts=interrupts,
                    watch=watch,
                    patience=self._patience,
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
