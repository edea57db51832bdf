"""Slurm's commands as scripts in PATH that read and write plain files: what a test puts there, they say."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.runs import provenance
from harness.runs.folder import RunFolder, append_line
from harness.scheduling.base import Job, Progress
from harness.slurm import controller, evidence, queue, sbatch
from harness.slurm.cluster import Cluster, Resources
from harness.slurm.controller import Slurm, SlurmSettings
from harness.slurm.submission import Submission, submissions
from harness.spec import FINISHED
from tests.ended import end
from tests.scheduling.fakes import run_fake
from tests.timing import PATIENCE_S

SBATCH = """\
#!/bin/sh
cd "${FAKE_SLURM:?}" || exit 9
echo "$@" >> sbatch.calls
for file in "$@"; do :; done
env | grep -E '^S(LURM|BATCH)_' | sort > sbatch.env
if [ -s sbatch.says ]; then cat sbatch.says >&2; exit 1; fi
name=$(sed -n 's/^#SBATCH --job-name=//p' "$file")
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$file")
if [ -s refused ] && grep -q "$(cat refused)" "$file"; then
    echo "sbatch: error: Invalid partition" >&2; exit 1; fi
if [ -s most_tasks ] && [ $((last + 1 + $(wc -l < queue))) -gt "$(cat most_tasks)" ]; then
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi
n=$(($(cat next) + 1)); echo $n > next
for i in $(seq 0 "$last"); do echo "$n|$i|$((n * 1000 + i))|PENDING|Priority|$name"; done >> queue
if [ -s sbatch.ends ]; then cat sbatch.ends >&2; exit 1; fi
if [ -s sbatch.prints ]; then sed "s/%ID%/$n/g" sbatch.prints; else echo "$n"; fi
"""
SQUEUE = """\
#!/bin/sh
cd "${FAKE_SLURM:?}" || exit 9
echo "$@" >> squeue.calls
if [ -e squeue.fails ]; then exit 1; fi
where=$(cat elsewhere)
case "$1" in
    "--clusters=$where") cat queue;;
    --clusters=*) echo "squeue: error: No cluster known by database" >&2; exit 1;;
    *) [ -n "$where" ] || cat queue;;
esac
"""
SACCT = """\
#!/bin/sh
cd "${FAKE_SLURM:?}" || exit 9
echo "$@" >> sacct.calls
if [ -e sacct.fails ]; then exit 1; fi
cat sacct
"""
SCONTROL = """\
#!/bin/sh
cd "${FAKE_SLURM:?}" || exit 9
echo "$@" >> scontrol.calls
echo "MaxArraySize            = $(cat max_array_size)"
"""


class FakeSlurm:
    """A cluster that starts nothing: a test says which agents began and how they ended."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.path = folder
        bin_dir = folder / "bin"
        bin_dir.mkdir(parents=True)
        for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "sacct": SACCT, "scontrol": SCONTROL}.items():
            (bin_dir / name).write_text(text)
            (bin_dir / name).chmod(stat.S_IRWXU)
        for name, text in {
            "next": "100",
            "queue": "",
            "sacct": "",
            "max_array_size": "1001",
            "elsewhere": "",  # the cluster that has all jobs, if not the one of this machine
        }.items():
            (folder / name).write_text(text)
        monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(folder))
        small = folder / "code" / "harness"
        small.mkdir(parents=True)
        (small / "__init__.py").write_text("")
        monkeypatch.setattr(provenance, "package", lambda: small)
        monkeypatch.setattr(controller, "WATCH_EVERY_S", 0.01)
        monkeypatch.setattr(controller, "ASK_EVERY_S", 0.01)
        monkeypatch.setattr(evidence, "ANSWER_LAG_S", 0.0)
        monkeypatch.setattr(sbatch, "UNKNOWN_LAG_S", 0.0)
        monkeypatch.setattr(sbatch, "SHOWN_AFTER_S", (0.0,))
        monkeypatch.setattr(queue, "LOOK_EVERY_S", (0.0, 0.0))

    def calls(self, command: str) -> list[str]:
        """What a command was called with, call by call."""
        file = self.path / f"{command}.calls"
        return file.read_text().splitlines() if file.exists() else []

    def says(self, file: str, text: str = "") -> None:
        (self.path / file).write_text(text)

    def takes_back(self, file: str) -> None:
        (self.path / file).unlink(missing_ok=True)

    def queue(self) -> list[list[str]]:
        """array, index, job id, state, reason, name of every task."""
        return [line.split("|") for line in (self.path / "queue").read_text().splitlines()]

    def arrays(self) -> list[str]:
        return list(dict.fromkeys(row[0] for row in self.queue()))

    def end(self, array_id: str, state: str | None = None, exit_code: str = "0:0") -> None:
        """An array leaves the queue; sacct knows of it if `state` is given."""
        rows = self.queue()
        ended = [row for row in rows if row[0] == array_id]
        if state:
            lines = [f"{row[0]}_{row[1]}|{row[2]}|{state}|{exit_code}|{row[5]}\n" for row in ended]
            self.says("sacct", (self.path / "sacct").read_text() + "".join(lines))
        self.says("queue", "".join("|".join(row) + "\n" for row in rows if row[0] != array_id))


@dataclass
class Place:
    """A folder of runs, and a Slurm that executes nothing."""

    runs_dir: Path
    slurm: FakeSlurm
    cluster: Cluster = field(default_factory=lambda: Cluster(path="my_cluster.yaml"))
    seen: list[Progress] = field(default_factory=list)

    def scheduler(self, **changes: Any) -> Slurm:
        settings: dict[str, Any] = {
            "runs_dir": self.runs_dir,
            "data_dir": self.runs_dir / "data",
            "cluster": self.cluster,
            "study": "a_study",
            "size": "mini",
            "queue_every_s": 0.02,
            "settle_s": 0.0,
            "unseen_s": 0.3,
        }
        return Slurm(SlurmSettings(**{**settings, **changes}))

    def execute(self, jobs: Sequence[Job], *steps: Callable[[], Any], **changes: Any) -> dict[str, str]:
        """`Slurm.execute`; each step is tried at every look until it no longer answers False."""
        left, deadline_s = list(steps), time.monotonic() + PATIENCE_S
        self.seen.clear()

        def watch(progress: Progress) -> None:
            self.seen.append(progress)
            assert time.monotonic() < deadline_s, f"stuck before step {len(steps) - len(left)}: {self.said}"
            # The first call comes before anything is submitted.
            if len(self.seen) > 1 and left and left[0]() is not False:
                left.pop(0)

        statuses = self.scheduler(**changes).execute(jobs, run_fake, watch)
        assert not left or changes.get("detach"), f"{len(left)} steps were not reached: {self.said}"
        return statuses

    @property
    def said(self) -> str:
        """Every note so far."""
        return "\n".join(progress.note for progress in self.seen if progress.note)

    def submission(self) -> Submission:
        """The only one."""
        (found,) = submissions(self.runs_dir)
        return found

    def begin(self, array_id: str, *jobs: Job, task: str = "0", submission: Submission | None = None) -> None:
        """An agent of the array begins, and with it some runs."""
        job_id = f"{array_id}00{task}"
        at = (submission or self.submission()).folder / "agents" / f"{job_id}.jsonl"
        now = {"time_s": time.time()}
        append_line(at, {"kind": "started", **now, "array_job_id": array_id, "array_task_id": task})
        for job in jobs:
            append_line(at, {"kind": "run_started", **now, "run_id": job.run_id})
            folder = RunFolder(self.runs_dir / job.run_id)
            folder.path.mkdir(exist_ok=True)
            folder.append_event("attempt", attempt=1, resumed_from_step=0)

    def leave(self, array_id: str, why: str, task: str = "0") -> None:
        """The agent says that it leaves."""
        at = self.submission().folder / "agents" / f"{array_id}00{task}.jsonl"
        append_line(at, {"kind": "left", "time_s": time.time(), "why": why})

    def come_further(self, job: Job, step: int) -> None:
        RunFolder(self.runs_dir / job.run_id).append_event("epoch", step=step, epoch=step)

    def finish(self, *jobs: Job, status: str = FINISHED) -> None:
        """The runs end as an agent lets them."""
        for job in jobs:
            end(RunFolder(self.runs_dir / job.run_id), job.spec, status)

    def log(self, array_id: str, text: str, task: str = "0") -> None:
        (self.submission().folder / "logs" / f"{array_id}_{task}_0.err").write_text(text)

    def events(self, job: Job, kind: str) -> list[dict[str, Any]]:
        events = RunFolder(self.runs_dir / job.run_id).read_events()
        return [event for event in events if event["kind"] == kind]


def with_resources(**changes: Any) -> Cluster:
    """A cluster file with these common resources."""
    return Cluster(path="my_cluster.yaml", resources=Resources(**changes))


def said_by(file: Path) -> Any:
    return json.loads(file.read_text())
