"""What Slurm and the shared folder say of our jobs: squeue, sacct, and the agents' own lines."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.runs.folder import RunFolder, write_json
from harness.runs.records import is_time, read_map
from harness.slurm.submission import Submission

# What Slurm says of our jobs: one squeue per 30 s for all processes on all machines, and sacct for the
# dead.
#
# A question that fails or takes too long is answered with None: unknown, which is never evidence of
# anything.


FILE = ".queue.json"  # in the folder of runs: user -> {"asked_s", "clusters", "tasks"}; tasks null: no answer
EVERY_S = 30.0
TIMEOUT_S = 10.0
OURS = "harness-"  # job names begin with it
FIELDS = ("array_id", "index", "job_id", "state", "reason", "name", "cluster")
ASKED = FIELDS[:-1]  # of squeue
HERE = ("",)  # the cluster of this machine
FORMAT = "%F|%K|%A|%T|%r|%j"
ENDED_STATES = (  # a state that is none of these is no evidence of an end; sacct may cut them short
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "LAUNCH_FAILED", "RECONFIG_FAIL"),
)
CHANGES_ANSWERS = re.compile(r"SLURM_CLUSTERS$|SQUEUE_|SACCT_|SCANCEL_|SCONTROL_")  # of the environment
RUNNING = frozenset({"RUNNING", "COMPLETING", "STOPPED", "SUSPENDED", "SIGNALING", "STAGE_OUT"})


@dataclass(frozen=True, slots=True)
class Task:
    """One array task in the queue, waiting or running."""

    array_id: str  # as sbatch gave it
    index: str
    job_id: str  # its own; that of the array while it waits
    state: str
    reason: str  # why it waits
    name: str  # harness-<token>-<group>
    cluster: str = ""  # that was asked by name; "": the one of this machine

    @property
    def is_running(self) -> bool:
        return self.state in RUNNING


@dataclass(frozen=True, slots=True)
class Queue:
    """An answer of squeue: this user's jobs of the harness."""

    asked_s: float  # time of this question, by the clock of whoever asked
    tasks: tuple[Task, ...] = ()

    def of_array(self, array_id: str) -> list[Task]:
        """The tasks of an array that are still in the queue."""
        return [task for task in self.tasks if task.array_id == array_id]

    def of_name(self, name: str) -> list[Task]:
        """The tasks of all arrays of that name."""
        return [task for task in self.tasks if task.name == name]


def ask_queue(runs_dir: Path, every_s: float = EVERY_S, clusters: Iterable[str] = HERE) -> Queue | None:
    """The queue of these clusters now, or as another process was told at most `every_s` ago; None: unknown,
    also where one of them does not answer. Never raises."""
    file, wanted = runs_dir / FILE, sorted(clusters) or list(HERE)
    found, queue = _recent(file, every_s, wanted)
    if found:
        return queue
    with locked(runs_dir / f"{FILE}.lock", TIMEOUT_S + 2):
        found, queue = _recent(file, every_s, wanted)  # somebody may have asked meanwhile
        if found:
            return queue
        asked_s = time.time()
        tasks = _squeue(wanted)
        with contextlib.suppress(OSError):  # a full disk: everybody asks for himself
            _remember(file, asked_s, wanted, tasks)
        return None if tasks is None else Queue(asked_s, tuple(tasks))


def read_queue(runs_dir: Path, oldest_s: float = EVERY_S, clusters: Iterable[str] = HERE) -> Queue | None:
    """The newest answer that is in the folder, if at most `oldest_s` old. Asks nobody and writes nothing."""
    return _recent(runs_dir / FILE, oldest_s, list(clusters))[1]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended, as sacct says."""

    array_id: str
    job_id: str
    state: str  # COMPLETED, FAILED, TIMEOUT, NODE_FAIL, PREEMPTED, OUT_OF_MEMORY, CANCELLED, ...
    exit_code: str = ""  # "code:signal"
    by: str = ""  # of CANCELLED: the user's number
    name: str = ""  # of the job: an id that was misread, or is used again, is somebody else's


@dataclass(slots=True)
class Accounting:
    """sacct, asked at most every `every_s`."""

    every_s: float = EVERY_S
    _next_s: float = field(default=0.0, init=False)

    def may_ask(self) -> bool:
        return time.monotonic() >= self._next_s

    def ask(self, arrays: Mapping[str, Sequence[str]]) -> list[Ended] | None:
        """How the tasks of these arrays (cluster -> ids) ended; without those that have not. None: unknown.
        Never raises."""
        self._next_s = time.monotonic() + self.every_s
        found: list[Ended] = []
        for cluster, array_ids in arrays.items():
            if not array_ids:
                continue
            what = ["-X", "-n", "-P", "-o", "JobID,JobIDRaw,State,ExitCode,JobName"]
            text = _ask(["sacct", *on_cluster(cluster), *what, "-j", ",".join(array_ids)])
            if text is None:
                return None
            found += _read_sacct(text)
        return found


def environment() -> dict[str, str]:
    """For Slurm's commands but sbatch: what is asked, and of which cluster, the command alone says. A user's
    SQUEUE_PARTITION would hide jobs, which would then seem to have gone."""
    return {name: value for name, value in os.environ.items() if not CHANGES_ANSWERS.match(name)}


def on_cluster(cluster: str) -> list[str]:
    """The option of Slurm's commands for another cluster than that of this machine.

    >>> on_cluster("alpha"), on_cluster("")
    (['--clusters=alpha'], [])
    """
    return [f"--clusters={cluster}"] if cluster else []


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[bool]:
    """Hold a lock file for the block. It saves work; what must be exclusive is claimed. So after `wait_s`,
    and where a file system has no locks, the block runs without it.

    Yields:
        Whether the lock is held.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError:
        yield False
        return
    try:
        yield _flock(handle, time.monotonic() + wait_s)
    finally:
        os.close(handle)


def _flock(handle: int, deadline_s: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.05)
        except OSError:
            return False
        else:
            return True


def _recent(file: Path, oldest_s: float, clusters: Iterable[str]) -> tuple[bool, Queue | None]:
    """Whether this user asked those clusters lately, and the answer."""
    said = _read(file).get(_user(), {})
    asked_s, tasks, asked = said.get("asked_s"), said.get("tasks"), said.get("clusters", list(HERE))
    if not is_time(asked_s) or abs(time.time() - asked_s) >= oldest_s:
        return False, None
    if not isinstance(asked, list) or not all(each in asked for each in clusters):
        return False, None
    if not isinstance(tasks, list):
        return True, None
    try:
        return True, Queue(asked_s, tuple(Task(*map(str, each)) for each in tasks))
    except TypeError:
        return False, None


def _remember(file: Path, asked_s: float, clusters: Sequence[str], tasks: list[Task] | None) -> None:
    rows = None
    if tasks is not None:
        rows = [[getattr(task, name) for name in FIELDS] for task in tasks]
    said = {"asked_s": asked_s, "clusters": list(clusters), "tasks": rows}
    write_json(file, {**_read(file), _user(): said})


def _read(file: Path) -> dict[str, Any]:
    return {name: each for name, each in read_map(file).items() if isinstance(each, dict)}


def _user() -> str:
    return f"{os.getuid()}"


def _squeue(clusters: Sequence[str]) -> list[Task] | None:
    found: list[Task] = []
    for cluster in clusters:
        command = ["squeue", *on_cluster(cluster), "--noheader", "--array", f"--format={FORMAT}"]
        start_s = time.monotonic()
        text = _ask([*command, "--me"])
        if text is None and time.monotonic() - start_s < TIMEOUT_S / 2:  # --me is of Slurm 20.02
            try:
                text = _ask([*command, f"--user={getpass.getuser()}"])
            except (KeyError, OSError):
                return None
        if text is None:
            return None
        found += _read_squeue(text, cluster)
    return found


def _read_squeue(text: str, cluster: str = "") -> Iterator[Task]:
    """Without `--array`'s expansion (old versions, other settings) a line may stand for several tasks."""
    for line in text.splitlines():
        parts = line.strip().split("|", len(ASKED) - 1)
        if len(parts) == len(ASKED) and parts[-1].startswith(OURS):
            array_id, index, job_id, state, reason, name = parts
            for each in _indices(index):
                yield Task(array_id, each, job_id, state, reason, name, cluster)


def _indices(text: str) -> Iterator[str]:
    """`7`, or of a compressed line `0-3,8%4` or `0-8:2`."""
    for part in text.strip("[]").partition("%")[0].split(","):
        match = re.fullmatch(r"([0-9]+)-([0-9]+)(?::([0-9]+))?", part)
        if match:
            yield from map(str, range(int(match[1]), int(match[2]) + 1, int(match[3] or 1)))
        else:
            yield part


def _read_sacct(text: str) -> Iterator[Ended]:
    """Ids are `7_3`, `7_[0-2%4]` of tasks that never began, `7+0` of a part of a heterogeneous job."""
    for line in text.splitlines():
        parts = line.strip().split("|", 4)
        number = re.match(r"[0-9]+", line.strip())
        if len(parts) != 5 or number is None:
            continue
        _, raw, state, exit_code, name = parts
        word, _, by = state.partition(" by ")
        ended = word.split()[0].rstrip("+") if word.split() else ""
        if ended and any(each.startswith(ended) for each in ENDED_STATES):
            yield Ended(number[0], raw, ended, exit_code, by, name)


def _ask(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
            errors="replace", start_new_session=True, env=environment(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


# What the shared folder says of runs under way: ends from run folders, starts from the agents' own files.
#
# Thousands of runs are looked at by at most one file each, and less often the longer that takes; a few
# dozen agents by what they appended since the last look.


LOOK_EVERY_S = (1.0, 20.0)  # the least and the most between two looks at all runs that have not ended
PATIENCE = 20  # times as long as a look took, at least
LOG_LINES, LOG_BYTES = 8, 20_000
GONE = frozenset({"left", "requeued"})  # last words of an agent's life


@dataclass(slots=True)
class Outcomes:
    """Runs that have not ended, looked at by their summaries."""

    runs_dir: Path
    _next_s: float = 0.0

    def look(self, run_ids: Iterable[str]) -> dict[str, str]:
        """run_id -> status of those that have ended; nothing where it is too early to look again."""
        start_s = time.monotonic()
        if start_s < self._next_s:
            return {}
        found = {run_id: status for run_id in run_ids for status in self.status(run_id)}
        least_s, most_s = LOOK_EVERY_S
        took_s = time.monotonic() - start_s
        self._next_s = start_s + min(most_s, max(least_s, PATIENCE * took_s))
        return found

    def status(self, run_id: str) -> Iterator[str]:
        """The status of a run, if it has ended and that can be read now."""
        try:
            summary = RunFolder(self.runs_dir / run_id).read_summary()
        except OSError:
            return  # unknown; the next look may tell
        if summary is not None:
            yield str(summary["status"])


@dataclass(slots=True)
class Agent:
    """One agent, from its own events."""

    job_id: str
    began_s: float | None = None
    array_id: str = ""
    task: str = ""  # its index in the array
    training: set[str] = field(default_factory=set)
    last: str = ""  # kind of its last event
    reason: str = ""  # why it left
    read_bytes: int = 0

    def take(self, event: dict[str, Any]) -> None:
        """Take note of one event."""
        kind, run_id = str(event.get("kind", "")), str(event.get("run_id", ""))
        self.last = kind
        if kind == "started":  # every life has one
            self.began_s = float(event.get("time_s") or 0)
            self.array_id = str(event.get("array_job_id", ""))
            self.task = str(event.get("array_task_id", ""))
            self.training.clear()
        elif kind == "run_started":
            self.training.add(run_id)
        elif kind == "run_ended":
            self.training.discard(run_id)
        elif kind in GONE:
            self.reason = str(event.get("why", ""))


class Agents:
    """The agents of one submission."""

    def __init__(self, submission: Submission) -> None:
        self._folder = submission.folder / "agents"
        self.by_job: dict[str, Agent] = {}

    def look(self) -> Iterator[str]:
        """Read what is new. Yields the runs that an agent says it has brought to an end."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            if name.endswith(".jsonl"):
                job_id = name.removesuffix(".jsonl")
                agent = self.by_job.setdefault(job_id, Agent(job_id))
                for event in _new_lines(self._folder / name, agent):
                    agent.take(event)
                    if event.get("kind") == "run_ended":
                        yield str(event.get("run_id", ""))

    def running(self) -> Iterator[str]:
        """The runs that agents say they are training now."""
        for agent in self.by_job.values():
            if agent.last not in GONE:
                yield from agent.training


def log_of(submission: Submission, array_ids: Iterable[str]) -> str:
    """The end of the newest log of these arrays: what was printed as an error, else what was printed."""
    folder = submission.folder / "logs"
    for suffix in ("err", "out"):
        found = [path for array_id in array_ids for path in folder.glob(f"{array_id}_*.{suffix}")]
        written = [path for path in found if path.stat().st_size]
        if written:
            return tail(max(written, key=lambda path: path.stat().st_mtime))
    return ""


def has_logs(submission: Submission, array_ids: Iterable[str]) -> bool:
    """Whether a task of these arrays began as far as Slurm opening its log."""
    return any(any((submission.folder / "logs").glob(f"{each}_*")) for each in array_ids)


def logs_of(submission: Submission, array_id: str, task: str) -> Iterator[str]:
    """The end of each error log of one agent."""
    for path in submission.folder.glob(f"logs/{array_id}_{task}_*.err"):
        yield tail(path)


def tail(path: Path) -> str:
    """The last lines of a log, without what a terminal would take for orders."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
    return "\n".join("".join(each for each in line if each.isprintable() or each == "\t") for line in lines)


def _new_lines(path: Path, agent: Agent) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(agent.read_bytes)
            text = file.read()
    except OSError:
        return
    whole = text[: text.rfind(b"\n") + 1]
    agent.read_bytes += len(whole)
    for line in whole.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event
