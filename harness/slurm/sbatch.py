"""Handing groups of runs to Slurm: the script of an array of agents, its submission, its job's id."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from submitit.slurm.slurm import SlurmExecutor

from harness.errors import counted
from harness.runs.folder import write_bytes, write_json
from harness.slurm import setup
from harness.slurm.cluster import Gpus, Resources, gpus_of
from harness.slurm.queue import Queue, Task, ask_queue, environment, has_logs, on_cluster
from harness.slurm.submission import Group, Submission

# One array of agents: its sbatch script, by submitit, and its submission, by this file.
#
# submitit writes the script and knows Slurm's parameters. Its pickles, its signal handlers and its guess of
# why a job ended are not used (docs/decisions/0012-agents-not-pickles.md), nor its reading of the id, which
# takes the first "job N" of whatever a site's banner says.


SBATCH_TIMEOUT_S = 120.0
ASK_TIMEOUT_S = 10.0
SIGNAL_S = 60  # between USR2 and the time limit
MAX_ARRAY_SIZE = 1001  # Slurm's default
LOG_NAME = re.compile(r"((?:%A_%a|%j)_(?:%t|0))_log\.(out|err)")
NOT_IN_A_PATH = re.compile(r"""[%'"\\\x00-\x1f\x7f]""")  # Slurm would read them as patterns or quotes
TOO_MANY = re.compile(  # a limit on the number of tasks, or MaxArraySize
    r"SubmitJob|AssocMaxJobs|QOSMaxJobs|invalid job array specification", re.IGNORECASE
)
NO_ANSWER = re.compile(
    r"unable to contact|timed out|connection refused|communication connection|temporarily unable"
    r"|zero bytes were transmitted|try again|not responding",
    re.IGNORECASE,
)
FAILED_WORDS = re.compile(r"job submission failed", re.IGNORECASE)  # whatever the exit code
COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
PARSABLE = re.compile(r"([0-9]{1,20})(?:;([A-Za-z0-9_.-]{1,200}))?")  # what --parsable prints
SENTENCE = re.compile(r"Submitted batch job ([0-9]{1,20})(?: on cluster ([A-Za-z0-9_.-]{1,200}))?")
ABOUT_CLUSTERS = "SLURM_CLUSTERS"  # the user's choice for every command of Slurm, no variable of a job
NOT_INHERITED = {  # of the options that the script has, what the environment would override
    f"SBATCH_{name}"
    for name in "ARRAY_INX JOB_NAME OUTPUT ERROR OPEN_MODE SIGNAL NO_REQUEUE REQUEUE TIMELIMIT WAIT".split()  # noqa: SIM905
}


class Refused(Exception):
    """sbatch said no: nothing was submitted. `too_many`: fewer tasks may be accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.too_many = bool(TOO_MANY.search(message))


class NoAnswer(Exception):
    """Slurm did not answer: the array may or may not have been submitted. `maybe`: sbatch succeeded, so it
    probably was, under an id that is not known; it must not be submitted again unasked."""

    def __init__(self, message: str, *, maybe: bool = False) -> None:
        super().__init__(message)
        self.maybe = maybe


class AgentExecutor(SlurmExecutor):
    """Writes scripts whose tasks are agents. Constructing it needs no Slurm and writes nothing."""

    @classmethod
    def affinity(cls) -> int:
        return 2  # a missing sbatch is said when something is submitted

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return LOG_NAME.sub(r"\1.\2", super()._make_submission_file_text(command, uid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Part of a group: one array of at most MaxArraySize tasks."""

    group: Group
    number: int
    tasks: int

    @property
    def name(self) -> str:
        return f"{self.group.name}.{self.number}"


def script(submission: Submission, chunk: Chunk, after: Sequence[str] = (), words: Sequence[str] = ()) -> str:
    """The whole sbatch script; `after` are ids of jobs that must have ended first.

    words: what `harness` is told, where it is not to be an agent.

    Raises:
        ValueError: a character in the path of the runs that Slurm gives a meaning.
    """
    if NOT_IN_A_PATH.search(str(submission.folder)):
        raise ValueError(
            f"the folder of runs is {submission.runs_dir}; on Slurm its path may not have % ' \" \\"
        )
    executor = AgentExecutor(submission.folder / "logs")
    executor.update_parameters(**_parameters(submission, chunk, after, executor))
    executor.parameters["map_count"] = chunk.tasks
    python = shlex.split(chunk.group.resources.python) or [submission.python]
    if not words:
        words = ("agent", str(submission.runs_dir), submission.token, chunk.group.name)
    command = shlex.join((*python, "-u", "-m", "harness.cli", *words))
    return executor._make_submission_file_text(command, submission.token)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What sbatch answered."""

    job_id: str
    cluster: str = ""  # as Slurm names it; "": it named none, the job is on the cluster of this machine


def answer_file(file: Path) -> Path:
    """Where sbatch's answer about a script stands while it is not in `jobs.json`. It is there from before
    sbatch is started: without it, nothing was submitted."""
    return file.with_suffix(".answer")


def is_under_way(answer: Path) -> bool:
    """Whether an sbatch that was begun may still be running; True where that cannot be told."""
    try:
        with answer.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def submit(file: Path, cluster: str = "") -> Accepted:
    """Hand a script to sbatch, whose answer goes to `answer_file` even where this process is killed.

    cluster: of this cluster only; "": as the script or the user's environment says.

    Raises:
        Refused: nothing was submitted, with sbatch's reason.
        NoAnswer: it cannot be known whether it was.
    """
    answer = answer_file(file)
    inherited = {
        name: value
        for name, value in os.environ.items()
        # Those of a job in which this command may run would become those of the new job.
        if (not name.startswith("SLURM_") or name in ("SLURM_CONF", ABOUT_CLUSTERS))
        and name not in NOT_INHERITED
    }
    try:
        with answer.open("wb") as output, tempfile.TemporaryFile() as errors:
            # sbatch inherits the lock: it holds as long as one of the two is alive.
            with contextlib.suppress(OSError):
                fcntl.flock(output, fcntl.LOCK_EX)
            code = _call(["sbatch", "--parsable", *on_cluster(cluster), str(file)], output, errors, inherited)
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        return _outcome(code, answer.read_bytes().decode(errors="replace"), said)
    except FileNotFoundError:
        answer.unlink(missing_ok=True)
        raise Refused("sbatch: no such command here; is this a machine of a Slurm cluster?") from None
    except (Refused, NoAnswer):
        answer.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise NoAnswer(f"sbatch: {error}") from None


def accepted(text: str) -> Accepted | None:
    """The job that an output of sbatch names: the last line that is `id` or `id;cluster`, or the last line
    that is Slurm's sentence. None: it names none, or the two are not the same.

    >>> accepted("this is job 3 of 50 allowed\\n4101;alpha\\n")
    Accepted(job_id='4101', cluster='alpha')
    >>> accepted("Submitted batch job 4101 on cluster alpha\\r\\n\\n")
    Accepted(job_id='4101', cluster='alpha')
    >>> accepted("this is job 3 of 50 allowed")
    """
    lines = [COLOUR.sub("", line).strip() for line in text.splitlines()]
    found = [
        Accepted(matches[-1][1], matches[-1][2] or "")
        for pattern in (PARSABLE, SENTENCE)
        if (matches := [match for line in lines if (match := pattern.fullmatch(line))])
    ]
    same = len({each.job_id for each in found}) == 1
    return max(found, key=lambda each: len(each.cluster)) if same else None


def _call(command: Sequence[str], output: IO[bytes], errors: IO[bytes], inherited: dict[str, str]) -> int:
    """The exit code; -1 where it was ended after SBATCH_TIMEOUT_S."""
    try:
        return subprocess.run(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            timeout=SBATCH_TIMEOUT_S,
            env=inherited,
            # Ctrl-C is for this process, which then still learns the id.
            start_new_session=True,
        ).returncode
    except subprocess.TimeoutExpired:
        errors.write(f"sbatch gave no answer within {SBATCH_TIMEOUT_S:g} s and timed out".encode())
        return -1


def _outcome(code: int, output: str, errors: str) -> Accepted:
    """
    Raises:
        Refused, NoAnswer: as `submit`.
    """
    said = " ".join(COLOUR.sub("", errors or output).split())
    job = accepted(output)
    if code == 0 and job is not None:
        return job
    if code == 0 and not FAILED_WORDS.search(errors):
        raise NoAnswer(f"sbatch names no job{'; it says: ' * bool(said)}{said}", maybe=True)
    said = said or f"sbatch ended with code {code}"
    if job is not None and not FAILED_WORDS.search(errors):
        raise NoAnswer(f"sbatch names job {job.job_id} and ends with code {code}: {said}", maybe=True)
    raise NoAnswer(said) if code < 0 or NO_ANSWER.search(said) else Refused(said)


def max_array_size(cluster: str = "") -> int:
    """How many tasks an array may have, as the cluster says; 1001 where it does not say."""
    try:
        done = subprocess.run(  # noqa: S603
            ["scontrol", *on_cluster(cluster), "show", "config"],  # noqa: S607
            capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=True, start_new_session=True,
            errors="replace", env=environment(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return MAX_ARRAY_SIZE
    found = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", done.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else MAX_ARRAY_SIZE


def signal_s(time_s: int | None) -> int:
    """Seconds between USR2 and the time limit: a tenth of the time, 10 to 60 s. Slurm may be 60 s early."""
    if time_s is None:
        return SIGNAL_S  # where jobs are preempted, the signal comes too
    return max(10, min(SIGNAL_S, time_s // 10))


def _parameters(
    submission: Submission, chunk: Chunk, after: Sequence[str], executor: AgentExecutor
) -> dict[str, Any]:
    resources = chunk.group.resources
    common = executor._convert_parameters(_common(resources))
    optional = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "gpus_per_node": _gpus(resources),
        "dependency": f"afterany:{':'.join(after)}" if after else None,
    }
    return {
        **common,
        **{name: value for name, value in optional.items() if value is not None},
        "job_name": submission.job_name(chunk.group.name),
        "wckey": None,
        "signal_delay_s": signal_s(resources.time_s),
        "array_parallelism": chunk.tasks,
        "setup": [*setup.theirs(resources.setup, submission.folder), *setup.ours(submission.snapshot)],
        "srun_args": [f"--cpus-per-task={resources.cpus}"],  # since 22.05 srun does not take over sbatch's
        "additional_parameters": {"requeue": True, **_further(resources)},
    }


def _gpus(resources: Resources) -> str | None:
    """None where none is asked for, or an option of the site's own does."""
    if not resources.gpus or gpus_of(resources.sbatch):
        return None
    return Gpus(resources.gpus, resources.gpu_type).request


def _common(resources: Resources) -> dict[str, Any]:
    memory = {} if resources.memory_gb is None else {"mem_gb": resources.memory_gb}
    return {
        "timeout_min": "UNLIMITED" if resources.time_s is None else math.ceil(resources.time_s / 60),
        "nodes": resources.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": resources.cpus,
        **memory,
    }


def _further(resources: Resources) -> Mapping[str, Any]:
    """`--name=value` as submitit takes it; it quotes the value."""
    pairs = (option.removeprefix("--").partition("=") for option in resources.sbatch)
    return {name: value if equals else True for name, equals, value in pairs}


# Handing groups of runs to Slurm. What is about to be submitted is written down first, so that whoever
# comes after a controller that was killed in between can find it in the queue.


UNKNOWN_LAG_S = 10.0  # the queue may get to know later of what sbatch had no answer to
SHOWN_AFTER_S = (0.0, 3.0)  # when the queue is asked for a job that sbatch did not name
SURE_MAX_ARRAY_SIZE = 1000  # Slurm's default allows so many; only above is it asked


@dataclass(slots=True)
class Submitter:
    """Submits groups of one submission, chunk by chunk."""

    submission: Submission
    _largest: int | None = None  # tasks of an array; asked for when first needed

    def submit(self, group: Group, after: Sequence[str]) -> list[str]:
        """Submit the agents of a group, to start when the jobs `after` (`id`, or `id;cluster`) have ended.
        Returns the arrays' ids.

        Raises:
            Refused: sbatch said no. Where it accepts fewer agents than wanted, there are fewer.
            NoAnswer: Slurm does not answer; `unanswered` then knows of a chunk that may be in the queue.
        """
        ids: list[str] = []
        left = group.width
        if left > SURE_MAX_ARRAY_SIZE and self._largest is None:
            self._largest = max_array_size(self.submission.cluster)
        tasks = min(left, self._largest or SURE_MAX_ARRAY_SIZE)
        while left > 0:
            chunk = Chunk(group=group, number=self._next_number(group), tasks=min(tasks, left))
            try:
                ids.append(self._submit_chunk(chunk, after))
            except Refused as refusal:
                if ids:
                    break  # those that were accepted do all the runs, in more time
                if not refusal.too_many or chunk.tasks == 1:
                    raise
                tasks = chunk.tasks // 2
            else:
                left -= chunk.tasks
        return ids

    def _submit_chunk(self, chunk: Chunk, after: Sequence[str]) -> str:
        """Write the script, submit it, write its id down. All jobs of a submission are on one cluster, and
        can only wait for jobs of the same."""
        file = self.submission.folder / f"{chunk.name}.sh"
        jobs = [Accepted(number, where) for number, _, where in (each.partition(";") for each in after)]
        cluster = self.submission.cluster or next((each.cluster for each in jobs if each.cluster), "")
        here = [each.job_id for each in jobs if each.cluster in ("", cluster)]
        write_bytes(file, script(self.submission, chunk, here).encode())
        try:
            job = submit(file, cluster)
        except Refused:
            file.unlink()
            raise
        except NoAnswer as silence:
            if not silence.maybe:
                latest_s = time.time() + UNKNOWN_LAG_S  # until when the queue may get to know of it
                os.utime(file, (latest_s, latest_s))
                raise
            note_job(self.submission, chunk.name, Accepted(""), chunk.tasks)
            job_id = self._find(chunk.name)
            if job_id is None:
                raise
            return job_id
        note_job(self.submission, chunk.name, job, chunk.tasks)
        answer_file(file).unlink(missing_ok=True)
        return job.job_id

    def _find(self, chunk: str) -> str | None:
        """The id under which the queue shows a chunk that sbatch did not name, asked at once."""
        submission = self.submission
        for wait_s in SHOWN_AFTER_S:
            time.sleep(wait_s)
            queue = ask_queue(submission.runs_dir, every_s=0, clusters=submission.clusters())
            if queue is not None:
                list(adopt(submission, queue, alone=True))
            if chunk in submission.job_ids():
                return submission.job_ids()[chunk]
        return None

    def _next_number(self, group: Group) -> int:
        return next_number(self.submission, group.name)


def next_number(submission: Submission, group: str) -> int:
    """Of the next chunk of a group."""
    chunks = {*submission.chunks(), *(path.stem for path in submission.folder.glob(f"{group}.*.sh"))}
    return max((number_of(each) for each in chunks if group_of(each) == group), default=-1) + 1


def note_job(submission: Submission, chunk: str, job: Accepted, tasks: int) -> None:
    """Write down the id of an array, and the cluster that has it; no id where it is not known."""
    said = {"job_id": job.job_id, "cluster": job.cluster, "tasks": tasks, "submitted_s": time.time()}
    write_json(submission.folder / "jobs.json", {**submission.chunks(), chunk: said})


def unanswered(submission: Submission) -> dict[str, Path]:
    """Chunk -> its script, of those that were about to be submitted and of which no outcome is known."""
    scripts = {path.stem: path for path in sorted(submission.folder.glob("*.sh"))}
    known = submission.chunks()
    return {chunk: path for chunk, path in scripts.items() if chunk not in known}


def nameless(submission: Submission) -> list[str]:
    """Chunks that may have been submitted, under an id that is not known."""
    return [chunk for chunk, said in submission.chunks().items() if not said["job_id"]]


def adopt(submission: Submission, queue: Queue, *, alone: bool) -> Iterator[str]:
    """Give chunks without an id the one that sbatch left in a file, or the one that the queue shows under
    their name; give them up where nothing was submitted. Yields what was done, in words.

    alone: nobody else is submitting now. Else chunks may be under way, and are given more time.
    """
    known = set(submission.job_ids().values())
    waiting = unanswered(submission)
    for chunk in sorted({*nameless(submission), *waiting}):
        name = submission.job_name(group_of(chunk))
        path = submission.folder / f"{chunk}.sh"
        new = {task.array_id: task for task in queue.of_name(name) if task.array_id not in known}
        job = _answered(path)
        if job is None and new:
            first = new[min(new, key=_as_number)]
            job = Accepted(first.array_id, first.cluster)
        if job is not None:
            known.add(job.job_id)
            note_job(submission, chunk, job, len(queue.of_array(job.job_id)))
            answer_file(path).unlink(missing_ok=True)
            yield f"job {job.job_id} ({name}) had been submitted without a record of it; taken over"
        elif chunk in waiting:
            _give_up(submission, path, queue, alone=alone)
    yield from _correct(submission, queue)


def strangers(submission: Submission, queue: Queue) -> list[Task]:
    """Its tasks in the queue, by their name, in arrays that it does not know."""
    known = set(submission.job_ids().values())
    names = {submission.job_name(name) for name in submission.groups}
    return [task for task in queue.tasks if task.name in names and task.array_id not in known]


def _correct(submission: Submission, queue: Queue) -> Iterator[str]:
    """Where every chunk has an id and the queue shows another one under its name, an id was misread: that of
    the newest chunk which neither the queue nor a log shows; or a chunk was given up too early."""
    lost = {group_of(chunk) for chunk in (*nameless(submission), *unanswered(submission))}
    for task in strangers(submission, queue):
        ids = submission.job_ids()
        group = task.name.rpartition("-")[2]
        mine = sorted((each for each in ids if group_of(each) == group), key=number_of)
        shown = {each.array_id for each in queue.of_name(task.name)}
        hidden = [each for each in mine if ids[each] not in shown and not has_logs(submission, [ids[each]])]
        if group not in lost and task.array_id not in ids.values():
            chunk = hidden[-1] if hidden else f"{group}.{next_number(submission, group)}"
            note_job(
                submission, chunk, Accepted(task.array_id, task.cluster), len(queue.of_array(task.array_id))
            )
            was = f"is what sbatch called {ids[chunk]}; corrected" if hidden else "had no record; taken over"
            yield f"job {task.array_id} ({task.name}) {was}"


def _answered(script: Path) -> Accepted | None:
    """What sbatch said to a controller that was killed before it could write it down."""
    try:
        return accepted(answer_file(script).read_bytes().decode(errors="replace"))
    except OSError:
        return None


def _give_up(submission: Submission, path: Path, queue: Queue, *, alone: bool) -> None:
    """Nothing shows that a script was submitted: forget it, as soon as it cannot be under way any more. Where
    sbatch was begun and its end is not known, it may have been submitted, and that is written down.

    Alone, with the controller that began it gone, sbatch was not started, or is still running, or was killed
    too (nobody holds its answer's lock) before it said anything.
    """
    answer = answer_file(path)
    begun = answer.exists()
    may_run = not alone or (begun and is_under_way(answer))
    wait_s = SBATCH_TIMEOUT_S + UNKNOWN_LAG_S if may_run else 0.0
    if queue.asked_s <= (answer if begun else path).stat().st_mtime + wait_s:
        return
    if begun and may_run:
        note_job(submission, path.stem, Accepted(""), 0)
    else:
        path.unlink()
    answer.unlink(missing_ok=True)


def scripts(submission: Submission, runs: Mapping[str, int]) -> str:
    """Every script of a submission that is not submitted, each under a line that says what it is."""
    parts = []
    for group in submission.groups.values():
        after = [*group.after_jobs, *(f"JOB_OF_{name}" for name in group.after)]
        text = script(submission, Chunk(group=group, number=0, tasks=group.width), after)
        agents = counted(group.width, "agent")
        count = counted(runs[group.name], "run")
        if not group.resources.runs_side_by_side:
            agents += "; each measures how many runs share its GPUs (runs_side_by_side: auto)"
        parts.append(f"# {group.name}: {count}, {agents}\n{text}")
    return "\n".join(parts)


def group_of(chunk: str) -> str:
    """The group of a chunk's name."""
    return chunk.rpartition(".")[0]


def number_of(chunk: str) -> int:
    """The number of a chunk's name; -1 where it has none."""
    digits = chunk.rpartition(".")[2]
    return int(digits) if re.fullmatch(r"[0-9]{1,9}", digits) else -1


def _as_number(job_id: str) -> int:
    return int(job_id) if job_id.isdecimal() else 0
