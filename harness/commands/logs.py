"""`harness logs`: the story of one run, and the last lines of the Slurm jobs that had it. Reads only."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.commands.story import claims_of, last_failure, story, tail
from harness.commands.which_runs import by_prefix, by_row, problem
from harness.commands.workspace import Workspace, load_plan, workspace
from harness.scheduling.submission import Submission, submissions
from harness.study.checked import is_count, is_time
from harness.study.problems import DONE, printable
from harness.study.records import RunFolder, read_json, run_state
from harness.study.spec import RunSpec

Agents = list[tuple[str, list[dict[str, Any]]]]
MOST_BESIDE = 3
AGENT_EVENTS = {  # of an agent's own life -> in words
    "started": "started",
    "stopping": "told to stop",
    "requeued": "put itself back into the queue",
    "left": "left",
}


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    run_id = _run_id(args, place)
    folder = place.folder(run_id)
    data: dict[str, Any] = {
        "run_id": run_id,
        "folder": str(folder.path),
        "state": run_state(folder),
        "recipe": _recipe(folder),
        "story": [asdict(line) for line in story(folder)],
        "failure": last_failure(folder),
        "submissions": [],
        "agents": [],
        "logs": [],
    }
    for submission in submissions(place.runs_dir):
        group = submission.group_of(run_id)
        if group is not None:
            jobs = [job for chunk, job in submission.job_ids().items() if chunk.startswith(f"{group}.")]
            data["submissions"].append({"token": submission.token, "group": group, "job_ids": jobs})
            for job_id, events in agents_of(submission, folder) or _beside(submission, jobs):
                data["agents"].append(_agent(submission.token, job_id, events))
                files = log_files(submission, job_id, events)
                data["logs"] += [{"file": str(file), "lines": tail(file, args.lines)} for file in files]
    if args.json:
        print(json.dumps(data, indent=1))
    else:
        from harness.status_display import show_story

        show_story(data)
    return DONE


def _run_id(args: argparse.Namespace, place: Workspace) -> str:
    """The one run that is meant.

    Raises:
        StudyError: none or several, or a seed without a study.
    """
    if args.study is not None:
        return by_row(load_plan(args, place), args.run, args.seed, args.study)
    if args.seed is not None:
        raise problem(Path("--seed"), "a row and a seed need their study: harness logs ROW STUDY --seed N")
    return by_prefix(args.run, place.runs_dir)


def _recipe(folder: RunFolder) -> dict[str, Any] | None:
    """What the run trains, as far as its spec can be read."""
    if not folder.has_spec():
        return None
    try:
        spec = RunSpec.from_json(read_json(folder.spec))
    except (OSError, ValueError, KeyError, TypeError):  # of another version
        return None
    recipe = spec.arm.recipe
    return {
        "model": printable(recipe.model.name),
        "data": printable(recipe.data.name),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "tricks": [printable(trick.name) for trick in spec.arm.tricks],
        "seed": spec.seed,
    }


def agents_of(submission: Submission, folder: RunFolder) -> Agents:
    """Job id and events of every agent of a submission that had the run, as claims and the agents say."""
    claimed = {claim.job for claim in claims_of(folder)}
    return [
        (job_id, events)
        for job_id, events in submission.agents().items()
        if job_id in claimed or any(event.get("run_id") == folder.run_id for event in events)
    ]


def _beside(submission: Submission, job_ids: list[str]) -> Agents:
    """The last agents of a group, where none had the run: they may say why."""
    agents = submission.agents().items()
    own = [each for each in agents if any(event.get("array_job_id") in job_ids for event in each[1])]
    return own[-MOST_BESIDE:]


def _agent(token: str, job_id: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    """An agent's own life, without the runs it had."""
    told = [event for event in events if event.get("kind") in AGENT_EVENTS]
    lives = [{"time_s": _when(event), "text": _agent_words(event)} for event in told]
    return {"submission": token, "job_id": job_id, "events": lives}


def _when(event: Mapping[str, Any]) -> float | None:
    time_s = event.get("time_s")
    return time_s if is_time(time_s) else None


def _agent_words(event: Mapping[str, Any]) -> str:
    kind = str(event["kind"])
    if kind == "started":
        return printable(f"started on {event.get('node') or event.get('host')}, life {_life(event)}")
    return printable(f"{AGENT_EVENTS[kind]}: {event.get('why', 'no reason was recorded')}")


def _life(event: Mapping[str, Any]) -> int:
    restarts = event.get("restart_count")
    return 1 + (restarts if is_count(restarts) else 0)


def log_files(submission: Submission, job_id: str, events: list[dict[str, Any]]) -> list[Path]:
    """An agent's log files, which Slurm names after the array and the task. The last task of an array has the
    array's own number as its job id, so that number names the files of a job without array only."""
    names = set()
    for event in events:
        array, task = event.get("array_job_id"), event.get("array_task_id")
        if re.fullmatch(r"[0-9]+", str(array)) and re.fullmatch(r"[0-9]+", str(task)):
            names.add(f"{array}_{task}_*")
    logs = submission.folder / "logs"
    return sorted({file for name in names or {f"{job_id}_*"} for file in logs.glob(name) if file.is_file()})
