"""Writing a submission: one private folder with a fixed number of files, however many runs it has."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.scheduling.base import Job
from harness.scheduling.submission import SCHEMA, Group, Submission
from harness.study.records import write_bytes, write_json
from harness.study.spec import Arm, run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a submission is to say beside its runs: whose they are, how agents start, from which code."""

    study: str
    size: str
    data_dir: str
    exact: bool
    python: str  # the interpreter of the agents
    snapshot: str  # the folder that holds the frozen `harness`
    cluster_file: str = ""
    commit: str | None = None
    dirty: bool | None = None


def draft(folder: Path, order: Order, groups: Sequence[Group]) -> dict[str, Any]:
    """The content of submission.json."""
    return {
        "schema": SCHEMA,
        "token": folder.name,
        "created_s": time.time(),
        "user": os.environ.get("USER") or str(os.getuid()),
        "study": order.study,
        "size": order.size,
        "machine": {"data_dir": order.data_dir, "exact": order.exact},
        "python": order.python,
        "snapshot": order.snapshot,
        "cluster_file": order.cluster_file,
        "clusters": os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or "",
        "commit": order.commit,
        "dirty": order.dirty,
        "groups": {group.name: group.to_json() for group in groups},
    }


def write_submission(
    said: Mapping[str, Any], folder: Path, jobs: Mapping[str, Job], group_of: Mapping[str, str], diff: str
) -> Submission:
    """Write all files but scripts into a new private folder, submission.json last. `jobs` is by run_id."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    for name in ("agents", "logs"):
        (folder / name).mkdir()
    write_bytes(folder / "runs.jsonl", "".join(_run_lines(jobs, group_of)).encode())
    if diff:
        write_bytes(folder / "diff.patch", diff.encode(errors="surrogateescape"))
    write_json(folder / "submission.json", said)
    return Submission(folder, said)


def arm_ids(jobs: Sequence[Job]) -> list[str]:
    """The arm_id of each job; each arm is hashed once, however many seeds it has."""
    known: dict[int, str] = {}
    return [known.setdefault(id(job.spec.arm), "") or _remember(known, job.spec.arm) for job in jobs]


def by_run_id(jobs: Sequence[Job]) -> dict[str, Job]:
    """run_id -> job."""
    return {run_id(arm, job.spec.seed): job for arm, job in zip(arm_ids(jobs), jobs, strict=True)}


def _remember(known: dict[int, str], arm: Arm) -> str:
    known[id(arm)] = arm.arm_id
    return known[id(arm)]


def _run_lines(jobs: Mapping[str, Job], group_of: Mapping[str, str]) -> Iterator[str]:
    identities = arm_ids(list(jobs.values()))
    arms = dict(zip(identities, (job.spec for job in jobs.values()), strict=True))
    for arm_id, spec in arms.items():
        yield json.dumps({"arm_id": arm_id, "arm": spec.to_json()["arm"]}) + "\n"
    for arm_id, (name, job) in zip(identities, jobs.items(), strict=True):
        line = {
            "run_id": name,
            "arm_id": arm_id,
            "seed": job.spec.seed,
            "group": group_of[name],
            "needs": list(job.needs),
            "cost": job.cost,
        }
        yield json.dumps(line) + "\n"
