"""The Slurm job this process runs in: its names, whether it was preempted, and its way back to the queue."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from harness.scheduling.slurm_queue import environment

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
