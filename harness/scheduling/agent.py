"""One array task of Slurm: claims runs of its group and trains them until nothing is left for it.

It needs the shared folder and nothing else, no network and no controller. Whatever ends it, what it trained
goes on from a checkpoint: in the next life of its job, in another agent, or in a later submission.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from harness.scheduling.agent_log import AgentLog
from harness.scheduling.attempt import finished_in
from harness.scheduling.base import INTERRUPTED, Job, RunOne
from harness.scheduling.cluster import Resources
from harness.scheduling.interrupts import SIGNALS, Arrival, Interrupts
from harness.scheduling.local import LocalSettings
from harness.scheduling.machines import detect_devices
from harness.scheduling.orders import FOLDER as ORDERS
from harness.scheduling.orders import leading
from harness.scheduling.queue import JobQueue
from harness.scheduling.session import Session
from harness.scheduling.slurm_job import SlurmJob
from harness.scheduling.submission import Group, Submission
from harness.study.holders import holder_of, identity, is_cancelled
from harness.study.machine import Machine
from harness.study.records import ENDED, FAILED, RunFolder, run_state
from harness.study.run_claims import Claims

AGENT_SIGNALS = (*SIGNALS, signal.SIGUSR2)
WARNED_S = 60.0  # for checkpoints after USR2, which comes before the end
TERMINATED_S = 20.0  # after SIGTERM: Slurm kills 30 s later, and scontrol takes its time
MOST_LIVES = 3  # in a row that bring no run further


def run_agent(submission: Submission, group: Group, run_one: RunOne, preload: Sequence[str]) -> int:
    """Train runs of the group until none is left for this agent, or Slurm ends it. Returns the exit code.

    Of a job with several nodes the first is the agent; the others start ranks as it orders.

    Raises:
        ValueError: the resources do not fit what is here.
        TypeError: `run_one` is not a function at the top of a module.
    """
    job = SlurmJob.of()
    with Interrupts(signals=AGENT_SIGNALS) as interrupts:
        settings = agent_settings(submission, group, preload)
        orders = submission.folder / "orders" / job.job_id
        if job.node_number > 0:
            from harness.scheduling.ranks import follow

            follow(orders, job.node_number, run_one, settings.machine, lambda: _is_over(interrupts))
            return 0
        with ExitStack() as stack:
            if group.resources.nodes > 1:
                os.environ[ORDERS] = str(orders)  # for the workers
                stack.enter_context(leading(orders))
            return _Agent(submission, group, settings, interrupts).live(run_one)


def agent_settings(submission: Submission, group: Group, preload: Sequence[str]) -> LocalSettings:
    """What an agent of the group does with what Slurm gave it.

    Raises:
        ValueError: the resources do not fit what is here.
    """
    resources = group.resources
    devices = detect_devices() if resources.gpus else ("cpu",)
    seen = len(devices) if devices != ("cpu",) else 0
    if seen < resources.gpus:
        raise ValueError(too_few_gpus(resources, seen, os.environ))
    if not resources.gpus and (given := os.environ.get("SLURM_STEP_GPUS")):
        what = (
            f"Slurm gave this agent GPUs (SLURM_STEP_GPUS={given!r}) that the cluster file does not ask for"
        )
        count = len(given.split(","))
        raise ValueError(f"{what}; write gpus: {count} there")
    ranks: tuple[str, ...] = ()
    if resources.processes > 1:
        local = max(1, resources.processes // resources.nodes)
        ranks = tuple(devices[index % len(devices)] for index in range(local))
    machine = Machine(
        runs_dir=submission.runs_dir,
        data_dir=submission.data_dir,
        device=devices[0],
        devices=ranks,
        processes=resources.processes,
        exact=submission.exact,
    )
    workers = resources.runs_side_by_side
    return LocalSettings(
        machine=machine,
        workers=workers,
        devices=devices,
        per_device=math.ceil(workers * max(1, len(ranks)) / len(devices)),
        preload=tuple(preload),
        grace_s=TERMINATED_S,
    )


def too_few_gpus(resources: Resources, seen: int, environment: Mapping[str, str]) -> str:
    """Why an agent that was to train on GPUs does not train at all: on the CPU it would take days, unseen."""
    wanted = resources.gpus
    given = environment.get("CUDA_VISIBLE_DEVICES", "")
    node = environment.get("SLURMD_NODENAME", "this node")
    kind = f" {resources.gpu_type}" if resources.gpu_type else ""
    what = f"{wanted}{kind} GPU{'s' if wanted > 1 else ''} asked for, CUDA_VISIBLE_DEVICES={given!r}"
    shows = f"{seen or 'no'} NVIDIA device{'s' if seen > 1 else ''}"
    mend = "choose a partition that has them, or ask for fewer in the cluster file"
    return f"{what}, but {node} shows {shows}; {mend}"


def patience(arrivals: Sequence[Arrival]) -> float:
    """Until when runs may checkpoint, by `time.monotonic`. A second signal is the rule, not impatience."""
    return min(
        arrival.time_s + (WARNED_S if arrival.number == signal.SIGUSR2 else TERMINATED_S)
        for arrival in arrivals
    )


class _Agent:
    """One life of an agent."""

    def __init__(
        self, submission: Submission, group: Group, settings: LocalSettings, interrupts: Interrupts
    ) -> None:
        self._submission, self._group, self._job = submission, group.name, SlurmJob.of()
        self._settings, self._interrupts = settings, interrupts
        self._runs_dir = submission.runs_dir
        self._log = AgentLog(submission.folder / "agents" / f"{self._job.job_id}.jsonl", self._runs_dir)

    def live(self, run_one: RunOne) -> int:
        """From the first claim to the last word."""
        job, jobs = self._job, self._submission.jobs(self._group)
        self._log.write(
            "started",
            host=identity()["host"],
            pid=os.getpid(),
            restart_count=job.restarts,
            array_job_id=job.array_job_id,
            array_task_id=job.array_task_id,
            node=job.node,
        )
        queue = JobQueue(self._without_open_needs(jobs), finished_in(self._runs_dir))
        with Claims(self._runs_dir, job=job.job_id) as claims:
            self._train(queue, claims, run_one)
        return self._leave(queue)  # after the last claim was released: the next life may begin at once

    def _train(self, queue: JobQueue, claims: Claims, run_one: RunOne) -> None:
        pool = self._settings.pool(run_one)
        arrivals = self._interrupts.arrivals
        try:
            Session(
                runs=self._settings.claimed(queue, claims, since_s=self._submission.created_s),
                pool=pool,
                interrupts=self._interrupts,
                watch=lambda progress: self._log.follow(progress, arrivals),
                patience=patience,
                lingers=False,
            ).run()
        finally:
            pool.close(self._settings.grace_s)

    def _leave(self, queue: JobQueue) -> int:
        """Requeue the job if Slurm ends it before its work is done. The last word says what happened."""
        arrivals = self._interrupts.arrivals
        if not arrivals:
            others = len(queue.jobs) - len(queue.ended)
            self._say_left(f"{others} runs are others'" if others else "no run of its group is left")
        elif not self._has_work(queue):
            self._say_left("no run of its group is left")
        else:
            self._end_early([signal.Signals(arrival.number) for arrival in arrivals])
        return 0

    def _end_early(self, numbers: Sequence[signal.Signals]) -> None:
        why = " and ".join(dict.fromkeys(number.name for number in numbers))
        if signal.SIGUSR2 not in numbers and not self._job.is_preempted():
            self._say_left(f"it was ended by {why}")
            return
        lives = self._log.lives_without_progress
        if lives >= MOST_LIVES:
            self._say_left(f"{lives} lives in a row brought no run further; it is not requeued ({why})")
            return
        self._log.write("requeued", why=why, progress=lives == 0)  # before: there may be no time after
        trouble = self._job.requeue(self._submission.job_name(self._group))
        if trouble:
            self._say_left(f"after {why} it could not be requeued: {trouble}")

    def _say_left(self, why: str) -> None:
        print(f"this agent leaves: {why}", flush=True)
        self._log.write("left", why=why, exit=0)

    def _has_work(self, queue: JobQueue) -> bool:
        """Whether a run is left that nobody else has."""
        left = (RunFolder(self._runs_dir / each) for each, how in queue.ended.items() if how == INTERRUPTED)
        return any(not is_cancelled(folder) and holder_of(folder) is None for folder in left)

    def _without_open_needs(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs whose needs in other groups have ended. The rest is for a later submission: that a teacher
        was interrupted is no failure of its students."""
        own = {job.run_id for job in jobs}
        outside = {need for job in jobs for need in job.needs} - own
        states = {need: run_state(RunFolder(self._runs_dir / need)) for need in outside}
        open_needs = {need for need, state in states.items() if state not in ENDED and state != FAILED}
        kept, left = list(jobs), len(jobs) + 1
        while len(kept) < left:  # those that need one that is left out are left out too
            left = len(kept)
            here = {job.run_id for job in kept}
            gone = open_needs | (own - here)
            kept = [job for job in kept if not gone & set(job.needs)]
        if len(kept) < len(jobs):
            here = {job.run_id for job in kept}
            self._log.write("left_out", run_ids=sorted(own - here), needs=sorted(open_needs))
        return kept


def _is_over(interrupts: Interrupts) -> bool:
    """Whether the first node has had the time to end in order, after a signal that all nodes got."""
    return bool(interrupts.arrivals) and time.monotonic() > patience(interrupts.arrivals)
