"""One array task of Slurm: claims runs of its group and trains them until nothing is left for it."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import counted
from harness.runs.claims import Claims
from harness.runs.folder import (
    RunFolder,
    append_line,
    finished_in,
    holder_of,
    identity,
    is_cancelled,
    read_lines,
    run_state,
)
from harness.runs.provenance import detect_devices
from harness.scheduling.base import (
    INTERRUPTED,
    SIGNALS,
    Arrival,
    Interrupts,
    Job,
    Progress,
    RunOne,
)
from harness.scheduling.local import LocalSession, LocalSettings, runs_beside
from harness.scheduling.queue import JobQueue, last_step
from harness.scheduling.ranks import FOLDER as ORDERS
from harness.scheduling.ranks import leading
from harness.slurm.cluster import Resources
from harness.slurm.queue import environment
from harness.slurm.submission import Group, Submission
from harness.spec import ENDED, FAILED, Machine

# What an agent says about itself: lines in its own file of the submission, which nobody else writes.
#
# Kinds: started, run_started, run_ended, left_out, stopping, requeued, left.


POSTPONED = "withdrawn"  # the status of a run that another process has taken over


class AgentLog:
    """Appends the events of one agent; all lives of a requeued job share the file."""

    def __init__(self, file: Path, runs_dir: Path) -> None:
        self._file, self._runs_dir = file, runs_dir
        self._lives = read_lines(file)  # the earlier ones
        self._running: dict[str, int] = {}  # run_id -> its step when it was started here
        self._progressed = False
        self._stopping = False

    def write(self, kind: str, **values: Any) -> None:
        """Append an event; a full disk does not end an agent."""
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._file, {"kind": kind, "time_s": time.time(), **values})

    def follow(self, progress: Progress, arrivals: Sequence[Arrival]) -> None:
        """Write down what has changed since the last call."""
        if progress.note:
            print(progress.note, flush=True)
        for run_id in progress.running:
            if run_id not in self._running:
                self._running[run_id] = step = self._step(run_id)
                self.write("run_started", run_id=run_id, step=step)
        for run_id in [each for each in self._running if each not in progress.running]:
            self._end(run_id, progress.ended.get(run_id, POSTPONED))
        if arrivals and not self._stopping:
            self._stopping = True
            self.write("stopping", why=signal.Signals(arrivals[0].number).name)

    @property
    def lives_without_progress(self) -> int:
        """How many lives in a row, this one included, brought no run further; 0 where this one did."""
        if self._progressed:
            return 0
        count = 1
        for event in reversed(self._lives):
            if event.get("kind") == "requeued":
                if event.get("progress"):
                    break
                count += 1
        return count

    def _end(self, run_id: str, status: str) -> None:
        start, step = self._running.pop(run_id), self._step(run_id)
        if step > start or status in ENDED or status == FAILED:
            self._progressed = True
        self.write("run_ended", run_id=run_id, status=status, step=step)

    def _step(self, run_id: str) -> int:
        return last_step(RunFolder(self._runs_dir / run_id).read_events())


# The Slurm job this process runs in: its names, whether it was preempted, and its way back to the queue.


SCONTROL_TIMEOUT_S = 10.0
TRIES = 2  # a controller of Slurm that is restarting refuses for a moment
NOT_DURING_REQUEUE = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """As the environment of a task says. Outside Slurm `job_id` names the process."""

    job_id: str
    job_name: str = ""  # "": not known
    array_job_id: str | None = None
    array_task_id: str | None = None
    restarts: int = 0  # how often it was requeued
    node: str = ""
    node_number: int = 0  # among those of the job

    @staticmethod
    def of(environment: Mapping[str, str] = os.environ) -> SlurmJob:
        """The job of this process."""
        return SlurmJob(
            job_id=environment.get("SLURM_JOB_ID", f"pid{os.getpid()}"),
            job_name=environment.get("SLURM_JOB_NAME", ""),
            array_job_id=environment.get("SLURM_ARRAY_JOB_ID"),
            array_task_id=environment.get("SLURM_ARRAY_TASK_ID"),
            restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
            node=environment.get("SLURMD_NODENAME", socket.gethostname()),
            node_number=int(environment.get("SLURM_NODEID", "0")),
        )

    @property
    def name(self) -> str:
        """As scontrol takes it. The last task of an array has the array's own number as its job id: by that
        number scontrol would requeue every task of the array.

        >>> SlurmJob(job_id="7", array_job_id="7", array_task_id="3").name, SlurmJob(job_id="8").name
        ('7_3', '8')
        """
        if self.array_job_id is None or self.array_task_id is None:
            return self.job_id
        return f"{self.array_job_id}_{self.array_task_id}"

    def is_preempted(self) -> bool:
        """Whether it is still running and was told to make room. False where Slurm does not say."""
        try:
            done = _scontrol("show", "job", "-o", self.name)
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0 and says_preempted(done.stdout)

    def _name_in_slurm(self) -> str:
        try:
            found = re.search(r"\bJobName=(\S+)", _scontrol("show", "job", "-o", self.name).stdout)
        except (OSError, subprocess.SubprocessError):
            return ""
        return found[1] if found else ""

    def requeue(self, name: str) -> str:
        """Put this job, if it has that name, back in the queue. Returns "" or why that was not possible: an
        agent that somebody started by hand may be in a job of theirs.

        From now on the signals with which Slurm ends the job are ignored, here and in scontrol: it would
        die of them before it had its answer.
        """
        for number in NOT_DURING_REQUEUE:
            signal.signal(number, signal.SIG_IGN)
        called = self.job_name or self._name_in_slurm()
        if called != name:
            return f"job {self.name} is called {called or 'nobody knows what'}, not {name}"
        trouble = ""
        for _ in range(TRIES):
            try:
                done = _scontrol("requeue", self.name)
            except (OSError, subprocess.SubprocessError) as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if done.returncode == 0:
                return ""
            trouble = " ".join(done.stderr.split()) or f"scontrol ended with code {done.returncode}"
        return trouble


def says_preempted(text: str) -> bool:
    """From what `scontrol show job` prints.

    >>> says_preempted("JobState=RUNNING Requeue=1 PreemptTime=2024-05-01T10:00:00 SuspendTime=None")
    True
    >>> says_preempted("JobState=RUNNING PreemptTime=None")
    False
    >>> says_preempted("JobState=CANCELLED PreemptTime=2024-05-01T10:00:00")
    False
    """
    said = dict(re.findall(r"\b(JobState|PreemptTime)=(\S+)", text))
    return said.get("JobState") == "RUNNING" and said.get("PreemptTime", "None") not in ("None", "N/A")


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        ["scontrol", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SCONTROL_TIMEOUT_S,
        env=environment(),
    )


# One array task of Slurm: claims runs of its group and trains them until nothing is left for it.
#
# It needs the shared folder and nothing else, no network and no controller. Whatever ends it, what it
# trained goes on from a checkpoint: in the next life of its job, in another agent, or in a later
# submission.


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
        compile=submission.compile and devices[0] != "cpu",
    )
    workers = resources.runs_side_by_side or _worth_beside(submission, group, machine, devices)
    return LocalSettings(
        machine=machine,
        workers=workers,
        devices=devices,
        per_device=math.ceil(workers * max(1, len(ranks)) / len(devices)),
        preload=tuple(preload),
        grace_s=TERMINATED_S,
    )


def _worth_beside(submission: Submission, group: Group, machine: Machine, devices: Sequence[str]) -> int:
    """As many workers as a measurement with the longest run that is left finds worth it on these GPUs."""
    states = (
        (job, run_state(RunFolder(submission.runs_dir / job.run_id))) for job in submission.jobs(group.name)
    )
    count, why = runs_beside(machine, devices, [job for job, state in states if state not in ENDED])
    print(f"runs that share a GPU: {count} ({why})", flush=True)
    return count * len(devices)


def too_few_gpus(resources: Resources, seen: int, environment: Mapping[str, str]) -> str:
    """Why an agent that was to train on GPUs does not train at all: on the CPU it would take days, unseen."""
    wanted = resources.gpus
    given = environment.get("CUDA_VISIBLE_DEVICES", "")
    node = environment.get("SLURMD_NODENAME", "this node")
    kind = f"{resources.gpu_type} " if resources.gpu_type else ""
    what = f"{counted(wanted, f'{kind}GPU')} asked for, CUDA_VISIBLE_DEVICES={given!r}"
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
            LocalSession(
                runs=self._settings.claimed(queue, claims, since_s=self._submission.created_s),
                pool=pool,
                interrupts=self._interrupts,
                watch=lambda progress: self._log.follow(progress, arrivals),
                patience=patience,
                lingers=False,
            ).run()
        finally:
            self._unusable = pool.is_retired
            pool.close(self._settings.grace_s)

    def _leave(self, queue: JobQueue) -> int:
        """Requeue the job if Slurm ends it before its work is done. The last word says what happened."""
        arrivals = self._interrupts.arrivals
        if self._unusable:
            self._say_left("nothing can be begun on its GPUs; events of its runs say why (device_lost)")
        elif not arrivals:
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
