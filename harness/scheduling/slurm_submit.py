"""Handing groups of runs to Slurm. What is about to be submitted is written down first, so that whoever comes
after a controller that was killed in between can find it in the queue."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.scheduling.sbatch import (
    SBATCH_TIMEOUT_S,
    Accepted,
    Chunk,
    NoAnswer,
    Refused,
    accepted,
    answer_file,
    is_under_way,
    max_array_size,
    script,
    submit,
)
from harness.scheduling.slurm_queue import Queue, Task, ask_queue
from harness.scheduling.slurm_watch import has_logs
from harness.scheduling.submission import Group, Submission
from harness.study.records import write_bytes, write_json

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
        agents = f"{group.width} agent{'s' if group.width > 1 else ''}"
        count = f"{runs[group.name]} run{'s' if runs[group.name] > 1 else ''}"
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


__all__ = [
    "NoAnswer",
    "Refused",
    "Submitter",
    "adopt",
    "group_of",
    "nameless",
    "note_job",
    "scripts",
    "strangers",
    "unanswered",
]
