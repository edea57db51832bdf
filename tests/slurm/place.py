"""A folder of a user of the cluster: a study, a cluster file, and the harness as a real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs.folder import RunFolder
from tests.end_to_end.workplace import NOT_INHERITED, ROOT, TINY, Workplace, pending, state_of
from tests.slurm.cluster import Cluster

PATIENCE_S = 900  # a limit against hanging, not an expectation
OPTIONS = ("--on", "slurm", "--cluster", "cluster.yaml", "--no-report")
DEFAULTS = {"partition": "main", "cpus": 1, "memory_gb": 4, "time": "30min", "at_most": 2}


@dataclass(frozen=True)
class SlurmPlace(Workplace):
    """As a `Workplace`, with the cluster."""

    cluster: Cluster
    code: Path = ROOT  # the checkout that runs

    def resources(self, **settings: Any) -> None:
        """Write the cluster file: the defaults of these tests, changed."""
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in (DEFAULTS | settings).items())
        (self.path / "cluster.yaml").write_text(text)

    def submit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`harness run tiny.yaml --on slurm ...`, to its end."""
        return self.harness("run", *OPTIONS, *arguments)

    def start_submitting(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, as a process."""
        return self.start("run", "tiny.yaml", *OPTIONS, *arguments)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            raise AssertionError(f"{arguments} hangs\n{output}\n{errors}\n{self.story()}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
            env=environment | {"PYTHONPATH": str(self.code)},
            process_group=0,
        )

    def folders(self) -> list[RunFolder]:
        return [RunFolder(path) for path in sorted(self.runs_dir.glob("[!.]*"))]

    def events(self, kind: str) -> dict[str, list[dict[str, Any]]]:
        """run_id -> its events of that kind."""
        return {
            folder.run_id: [event for event in folder.read_events() if event["kind"] == kind]
            for folder in self.folders()
        }

    def attempts(self) -> Counter[str]:
        """run_id -> how often it was begun or gone on with."""
        return Counter({run_id: len(events) for run_id, events in self.events("attempt").items()})

    def resumed_from(self) -> list[int]:
        """The steps from which attempts after the first went on."""
        return [event["resumed_from_step"] for each in self.events("attempt").values() for event in each[1:]]

    def submissions(self) -> list[Path]:
        """Oldest first."""
        found = (self.runs_dir / ".submissions").glob("[0-9a-f]*")
        return sorted(found, key=lambda path: path.stat().st_ctime_ns)

    def is_submitted(self) -> bool:
        """Whether every group of every submission has a job."""
        chunks = [
            (read_json(each / "submission.json"), read_json(each / "jobs.json"))
            for each in self.submissions()
        ]
        groups = [
            (said.get("groups", {}), {chunk.partition(".")[0] for chunk in jobs}) for said, jobs in chunks
        ]
        return bool(groups) and all(wanted and wanted.keys() == there for wanted, there in groups)

    def job_ids(self) -> list[str]:
        """What was submitted, as far as it was written down."""
        return [
            str(job["job_id"])
            for folder in self.submissions()
            for job in read_json(folder / "jobs.json").values()
            if job.get("job_id")
        ]

    def tasks(self) -> dict[str, str]:
        """Job or array task -> its state, of what the queue still holds of this folder's jobs."""
        ids = ",".join(self.job_ids())
        lines = self.cluster.ask("squeue", "-h", "-r", "-j", ids, "-o", "%i %T").splitlines() if ids else []
        return {name: state for name, state in map(str.split, lines) if state not in ENDED}

    def nodes(self) -> set[str]:
        """Where its tasks run."""
        ids = ",".join(self.job_ids())
        return set(self.cluster.ask("squeue", "-h", "-r", "-j", ids, "-t", "R", "-o", "%N").split())

    def processes(self) -> list[int]:
        """The agents of this folder's jobs and their workers, on whichever node of this machine."""
        marks = {f"SLURM_ARRAY_JOB_ID={job_id}".encode() for job_id in self.job_ids()}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                is_ours = b"harness" in (process / "cmdline").read_bytes() or is_worker(process)
                if is_ours and marks & set((process / "environ").read_bytes().split(b"\0")):
                    found.append(int(process.name))
        return found

    @contextmanager
    def standing_still(self) -> Iterator[Callable[[], bool]]:
        """Nothing of its jobs goes on before Slurm has warned them, however quick the machine is and however
        long Slurm takes: yields whether it has. Slurm itself may wake them."""
        frozen = self.processes()
        assert frozen, self.story()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield lambda: any(map(is_warned, frozen))
        finally:
            for pid in frozen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def cancel_everything(self) -> None:
        if ids := self.job_ids():
            self.cluster.ask("scancel", *ids)

    def story(self) -> str:
        """What is there, for the message of a test that failed."""
        lines = [f"queue: {self.tasks()}"]
        for folder in self.folders():
            events = [(event["kind"], event.get("message", "")) for event in folder.read_events()]
            lines.append(f"{folder.run_id}: {[each for each in events if each[0] != 'epoch']}")
        logs = sorted((self.runs_dir / ".submissions").glob("*/logs/*"))
        lines += [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs]
        return "\n".join(lines)


ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}


def begin(folder: Path, *, epochs: int = 6, seeds: int = 2, only_baseline: bool = False) -> Path:
    """A new folder with the tiny study in it, longer and with fewer arms where that is wanted."""
    folder.mkdir()
    text = TINY.read_text().replace("epochs: 6\n", f"epochs: {epochs}\n")
    text = text.replace("seeds: 2", f"seeds: {seeds}")
    if only_baseline:
        lines = text.splitlines(keepends=True)
        text = "".join(
            line for line in lines if not any(word in line for word in ("eacher", "arms", "Smooth"))
        )
    (folder / "tiny.yaml").write_text(text)
    return folder


def copy_of_the_code(folder: Path) -> Path:
    """A checkout that a test may change."""
    shutil.copytree(ROOT / "harness", folder / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def wait_until(condition: Callable[[], Any], what: Callable[[], str], time_s: float = PATIENCE_S) -> None:
    """Fails with the words where the condition does not come true in time."""
    deadline_s = time.monotonic() + time_s
    while not condition():
        assert time.monotonic() < deadline_s, what()
        time.sleep(0.25)


def is_worker(process: Path) -> bool:
    return b"multiprocessing" in (process / "cmdline").read_bytes()


def is_warned(pid: int) -> bool:
    """Whether a process that stands still has been sent USR2, or goes on again."""
    try:
        return pending(pid, signal.SIGUSR2) or state_of(pid) not in "Tt"
    except OSError:  # it has ended
        return True


def read_json(path: Path) -> dict[str, Any]:
    """Nothing where there is nothing yet."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
