"""A study whose runs are in whichever state a test wants, without training; Slurm commands that answer."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import main
from harness.commands.workspace import expand_plan, workspace
from harness.runs.folder import RunFolder, write_json
from harness.scheduling.base import Job
from harness.slurm.cluster import Cluster
from harness.slurm.submission import FOLDER, Submission, make_groups, submissions
from harness.spec import FINISHED
from harness.study.plan import Plan, PlannedRun
from tests.end_to_end.workplace import TINY
from tests.ended import end

NO_JOBS: Mapping[str, str] = {}
QUEUE_FORMAT = "{array}|{index}|{job}|{state}|{reason}|{name}"


@dataclass(frozen=True)
class UnderWay:
    """A folder with the tiny study: rows Baseline, Smoothed and Distilled (which needs Smoothed's runs, its
    teacher), two seeds each."""

    path: Path

    @staticmethod
    def begin(path: Path) -> UnderWay:
        path.mkdir()
        shutil.copy(TINY, path)
        return UnderWay(path)

    @property
    def study(self) -> Path:
        return self.path / "tiny.yaml"

    @property
    def runs_dir(self) -> Path:
        return self.path / "runs"

    @property
    def plan(self) -> Plan:
        return self.plan_with(seeds=None)

    def plan_with(self, *, seeds: tuple[int, ...] | None) -> Plan:
        """The plan with other looks than the study's."""
        args = argparse.Namespace(
            study=self.study,
            runs=self.runs_dir,
            data=None,
            tracking_uri=None,
            size="mini",
            seeds=seeds,
            smoke=False,
        )
        return expand_plan(args, workspace(args))

    def harness(self, command: str, *arguments: str) -> int:
        """`harness COMMAND ...` in this process, with the runs of this folder; returns its exit code."""
        return main([command, *arguments, "--runs", str(self.runs_dir)])

    def run(self, row: str, seed: int) -> PlannedRun:
        plan = self.plan
        label = f"only / {row}" if row != "teacher" else "teacher"
        [run] = [run for run in plan.runs if plan.arm_labels[run.arm_id] == label and run.seed == seed]
        return run

    def folder(self, row: str, seed: int) -> RunFolder:
        return RunFolder(self.runs_dir / self.run(row, seed).run_id)

    def end(self, row: str, seed: int, status: str = FINISHED, **about: Any) -> None:
        """A run with a summary: 20 s of a worker, unless `about` says otherwise."""
        summary = {"wall_time_s": 20.0, "train_time_s": 10.0, "device": "Some CPU"}
        model = {
            "model": "resnet50",
            "precision": "fp32",
            "batch_size": 32,
            "macs": 1000,
            "images_seen": 1000,
        }
        end(
            self.folder(row, seed),
            self.plan.spec(self.run(row, seed)),
            status,
            **{**summary, **model, **about},
        )

    def attempt(
        self, row: str, seed: int, *, epoch: float = 3.0, took_s: float = 30.0, **about: Any
    ) -> RunFolder:
        """The events of an attempt that began `took_s` seconds ago and came to this epoch, of 6."""
        folder = self.folder(row, seed)
        folder.path.mkdir(parents=True, exist_ok=True)
        begun_s = time.time() - took_s
        said = {"attempt": 1, "device": "cpu", "device_name": "Some CPU", "resumed_from_step": 0} | about
        lines = [
            {"kind": "attempt", "time_s": begun_s, **said},
            {
                "kind": "epoch",
                "time_s": begun_s + took_s,
                "step": 8,
                "epoch": epoch,
                "train_loss": 2.0,
                "val_top1": 30.0,
            },
        ]
        with folder.events.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        return folder

    def submit(
        self, token: str, *rows: str, jobs: Mapping[str, str] = NO_JOBS, study: str = "tiny"
    ) -> Submission:
        """A submission of the runs of these rows (all, where none is named); `jobs`: chunk -> job id."""
        plan = self.plan
        wanted = [
            run for run in plan.runs if not rows or plan.arm_labels[run.arm_id].split(" / ")[-1] in rows
        ]
        jobs_by_id = {run.run_id: Job(spec=plan.spec(run), needs=run.needs, cost=1.0) for run in wanted}
        groups, group_of = make_groups(jobs_by_id, Cluster(), at_most=2)
        folder = self.runs_dir / FOLDER / token
        folder.mkdir(parents=True, mode=0o700)
        for name in ("agents", "logs"):
            (folder / name).mkdir()
        lines = [{"arm_id": arm_id, "arm": spec["arm"]} for arm_id, spec in specs(jobs_by_id).items()]
        lines += [
            {"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed, "group": group_of[run.run_id]}
            | {"needs": list(run.needs), "cost": 1.0}
            for run in wanted
        ]
        (folder / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        at_s = time.time()
        submitted = {
            chunk: {"job_id": job_id, "tasks": 2, "submitted_s": at_s} for chunk, job_id in jobs.items()
        }
        write_json(folder / "jobs.json", submitted)
        about = {"schema": 1, "token": token, "created_s": at_s, "user": "me", "cluster_file": ""}
        about |= {"study": study, "size": plan.size, "python": "python", "snapshot": ".", "commit": None}
        about |= {"dirty": None, "machine": {"data_dir": ".", "exact": True}}
        about["groups"] = {group.name: group.to_json() for group in groups}
        write_json(folder / "submission.json", about)
        return next(each for each in submissions(self.runs_dir) if each.token == token)


def specs(jobs: Mapping[str, Job]) -> dict[str, Any]:
    """arm_id -> the spec of one of its runs."""
    return {job.spec.arm.arm_id: job.spec.to_json() for job in jobs.values()}


def program(folder: Path, name: str, text: str) -> None:
    """A command of that name, as a shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def task(
    submission: Submission, group: str, job: str, state: str = "PENDING", reason: str = "Priority"
) -> str:
    """A line of squeue."""
    name = submission.job_name(group)
    return QUEUE_FORMAT.format(array=job, index="0", job=job, state=state, reason=reason, name=name)


def squeue_says(folder: Path, *lines: str) -> None:
    """Let `squeue` answer with these lines, and count how often it is asked."""
    said = "\n".join(lines)
    program(folder, "squeue", f"echo asked >> {folder}/asked\ncat <<'END'\n{said}\nEND")
