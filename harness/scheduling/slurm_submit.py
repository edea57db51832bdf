"""Handing groups of runs to Slurm. What is about to be submitted is written down first, so that whoever comes
after a controller that was killed in between can find it in the queue."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.scheduling.sbatch import (
    SBATCH_TIMEOUT_S,
    Chunk,
    NoAnswer,
    Refused,
    max_array_size,
    script,
    submit,
)
from harness.scheduling.slurm_queue import Queue
from harness.scheduling.submission import Group, Submission
from harness.study.records import write_bytes, write_json

SURE_MAX_ARRAY_SIZE = 1000  # Slurm's default allows so many; only above is it asked


@dataclass(slots=True)
class Submitter:
    """Submits groups of one submission, chunk by chunk."""

    submission: Submission
    _largest: int | None = None  # tasks of an array; asked for when first needed

    def submit(self, group: Group, after: Sequence[str]) -> list[str]:
        """Submit the agents of a group, to start when the jobs `after` have ended. Returns the arrays' ids.

        Raises:
            Refused: sbatch said no. Where it accepts fewer agents than wanted, there are fewer.
            NoAnswer: Slurm does not answer; `unanswered` then knows of a chunk that may be in the queue.
        """
        ids: list[str] = []
        left = group.width
        if left > SURE_MAX_ARRAY_SIZE and self._largest is None:
            self._largest = max_array_size()
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
        """Write the script, submit it, write its id down."""
        file = self.submission.folder / f"{chunk.name}.sh"
        write_bytes(file, script(self.submission, chunk, after).encode())
        try:
            job_id = submit(file)
        except Refused:
            file.unlink()
            raise
        note_job(self.submission, chunk.name, job_id, chunk.tasks)
        return job_id

    def _next_number(self, group: Group) -> int:
        used = [number_of(path.stem) for path in self.submission.folder.glob(f"{group.name}.*.sh")]
        return max(used, default=-1) + 1


def note_job(submission: Submission, chunk: str, job_id: str, tasks: int) -> None:
    """Write down the id of an array."""
    said = {"job_id": job_id, "tasks": tasks, "submitted_s": time.time()}
    write_json(submission.folder / "jobs.json", {**submission.chunks(), chunk: said})


def unanswered(submission: Submission) -> dict[str, Path]:
    """Chunk -> its script, of those that were about to be submitted and have no id."""
    scripts = {path.stem: path for path in sorted(submission.folder.glob("*.sh"))}
    known = submission.chunks()
    return {chunk: path for chunk, path in scripts.items() if chunk not in known}


def adopt(submission: Submission, queue: Queue, *, alone: bool) -> Iterator[str]:
    """Give chunks without an id the one that the queue shows under their name, or give them up where it was
    asked after they were written and shows none. Yields what was done, in words.

    alone: nobody else is submitting now. Else chunks may be under way, and are given more time.
    """
    known = set(submission.job_ids().values())
    for chunk, path in unanswered(submission).items():
        name = submission.job_name(group_of(chunk))
        new = {task.array_id: 0 for task in queue.of_name(name) if task.array_id not in known}
        if new:
            job_id = min(new, key=_as_number)
            known.add(job_id)
            note_job(submission, chunk, job_id, len(queue.of_array(job_id)))
            yield f"job {job_id} ({name}) had been submitted without a record of it; taken over"
        elif queue.asked_s > path.stat().st_mtime + (0.0 if alone else SBATCH_TIMEOUT_S):
            path.unlink()


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


__all__ = ["NoAnswer", "Refused", "Submitter", "adopt", "group_of", "note_job", "scripts", "unanswered"]
