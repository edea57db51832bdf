"""`harness logs`: the story of one run, and the last lines of the Slurm jobs that had it. Reads only."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.commands.workspace import Workspace, by_prefix, by_row, load_plan, problem, workspace
from harness.errors import DONE, printable
from harness.runs.folder import (
    Holder,
    RunFolder,
    claim_numbers,
    is_cancelled,
    read_claim,
    read_json,
    run_state,
)
from harness.runs.records import is_count, is_number, is_time, read_map
from harness.slurm.submission import Submission, submissions
from harness.spec import ScriptRun, spec_from_json

# What happened to one run, in order: who took it, attempts, progress, why it stopped. Reads only.


SCRIPT_LOG = "log.txt"  # what the command of a script printed (harness/scripts/run.py)
TAIL_BYTES = 200_000  # of a log file, at most, are looked at for its last lines
PROGRESS = ("epoch", "checkpoint", "evaluated", "progress")  # told together, however many there are


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One thing that happened. `detail`: further lines, e.g. a traceback."""

    time_s: float | None  # by the clock of the machine where it happened
    text: str
    detail: str = ""


def story(folder: RunFolder) -> list[StoryLine]:
    """Every claim and event of a run in the order in which they were written; progress in short."""
    lines: list[StoryLine] = []
    claims = list(claims_of(folder))
    progress: list[Mapping[str, Any]] = []
    for event in folder.read_events():
        while claims and (claims[0].time_s or 0.0) <= _time(event):
            _tell_progress(progress, lines)
            lines.append(_taken(claims.pop(0)))
        if event.get("kind") in PROGRESS:
            progress.append(event)
            continue
        _tell_progress(progress, lines)
        lines.append(_told(event))
    _tell_progress(progress, lines)
    lines += [_taken(claim) for claim in claims]
    request = _request(folder)
    if request is not None:
        later = (
            place for place, line in enumerate(lines) if (line.time_s or 0.0) > (request.time_s or math.inf)
        )
        lines.insert(next(later, len(lines)), request)
    return lines


def claims_of(folder: RunFolder) -> Iterator[Holder]:
    """Everybody who took the run, the first first; a claim that cannot be read is left out."""
    for number in claim_numbers(folder.path):
        try:
            claim = read_claim(folder.path, number)
        except OSError:
            continue
        if claim is not None:
            yield claim


def last_failure(folder: RunFolder) -> dict[str, Any] | None:
    """Message and traceback of the failure the run ended with, or None where it did not end with one."""
    events = folder.read_events()
    if not events or events[-1].get("kind") != "failed":
        return None
    return {name: printable_lines(events[-1].get(name)) for name in ("message", "traceback")}


def tail(path: Path, count: int) -> list[str]:
    """The last lines of a file, without what moves a cursor; [] where it cannot be read."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [printable(line) for line in text.splitlines()[-count:]]


def printable_lines(text: Any) -> str:
    """Text of several lines from a file that anybody may have written: it moves nobody's cursor."""
    return "\n".join(printable(line) for line in str(text or "").splitlines())


def _taken(claim: Holder) -> StoryLine:
    """A claim has the time at which it was released, or else that at which it was taken."""
    verb = "let go by" if claim.released else "taken by"
    return StoryLine(claim.time_s, f"{verb} {printable(claim.place)}")


def _told(event: Mapping[str, Any]) -> StoryLine:
    kind = str(event.get("kind"))
    words = WORDS.get(kind, _unknown_kind)(event)
    return StoryLine(_time(event), printable(words), printable_lines(event.get("traceback")))


def _time(event: Mapping[str, Any]) -> float:
    return float(event["time_s"])


def _unknown_kind(event: Mapping[str, Any]) -> str:
    values = [f"{name} {event[name]}" for name in event if name not in ("kind", "time_s", "traceback")]
    return f"{event.get('kind')}: {', '.join(values)}" if values else str(event.get("kind"))


def _attempt(event: Mapping[str, Any]) -> str:
    if "command" in event:
        how = "going on: " if event.get("resumed") else ""
        if "read_from" in event:
            return f"not run again: its results are read in what run {event['read_from']} wrote"
        return f"attempt {event.get('attempt', '?')} on {event.get('device', '?')}: {how}{event['command']}"
    device = event.get("device", "an unknown device")
    name = event.get("device_name")
    step = event.get("resumed_from_step", 0)
    where = f"on {device}" + (f" ({name})" if name and name != device else "")
    return f"attempt {event.get('attempt', '?')} {where}, from step {step}" + ("" if step else ", the start")


def _message(words: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda event: f"{words}: {event.get('message') or 'no reason was recorded'}"


WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "attempt": _attempt,
    "checkpoint_refused": _message("a checkpoint was not used"),
    "eager": _message("work was given to the GPU operator by operator"),
    "stop": lambda event: f"stopped at step {event.get('step', '?')}, with a checkpoint to go on from",
    "script_stopped": lambda event: (
        "stopped, as asked" + " (killed: it did not end in time)" * bool(event.get("killed"))
    ),
    "left_behind": lambda event: f"left {event.get('processes', '?')} processes behind, which were ended",
    "diverged": lambda event: f"diverged by step {event.get('step', '?')}: the loss was not finite",
    "end": lambda event: (
        f"ended: {event.get('status', '?')}" + (f" after {event['step']} steps" if "step" in event else "")
    ),
    "failed": _message("failed"),
    "out_of_memory": _message("its GPU had not enough memory beside other runs, tried again"),
    "waits_for_memory": _message("it waited for memory of its GPU"),
    "device_lost": _message("its process lost the GPU"),
    "worker_died": _message("the process that trained it died"),
    "rank_died": _message("one of its processes died"),
}


def _tell_progress(events: list[Mapping[str, Any]], lines: list[StoryLine]) -> None:
    """Add one line for what was collected, and begin to collect anew."""
    if events:
        parts = [*_epochs([each for each in events if each.get("kind") == "epoch"])]
        parts += _checkpoints([each for each in events if each.get("kind") == "checkpoint"])
        evaluated = [each for each in events if each.get("kind") == "evaluated"]
        if evaluated:
            seen = f"evaluated {evaluated[-1].get('images')} of {evaluated[-1].get('of')} images"
            parts.append(printable(seen))
        if is_number(share := events[-1].get("share")):
            parts.append(f"{share:.0%} done")
        lines.append(StoryLine(_time(events[-1]), "; ".join(parts)))
    events.clear()


def _epochs(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not events:
        return
    first, last = events[0], events[-1]
    span = f"epoch {_short(last.get('epoch'))}"
    if len(events) > 1:
        span = f"epochs {_short(first.get('epoch'))} to {_short(last.get('epoch'))}"
    measures = [
        _change("training loss", [each.get("train_loss") for each in events], ""),
        _change("top-1", [each.get("val_top1") for each in events], " %"),
    ]
    speeds = _numbers(each.get("images_per_s") for each in events)
    speed = [f"{sorted(speeds)[len(speeds) // 2]:,.0f} images/s"] if speeds else []
    yield printable(f"{span}: ") + ", ".join([*filter(None, measures), *speed])


def _short(value: Any) -> str:
    return f"{value:g}" if is_number(value) else str(value)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [value for value in values if is_number(value)]


def _change(name: str, values: Sequence[Any], unit: str) -> str:
    known = _numbers(values)
    if not known:
        return ""
    span = f"{known[0]:.4g} to {known[-1]:.4g}" if len(known) > 1 else f"{known[0]:.4g}"
    return f"{name} {span}{unit}"


def _checkpoints(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if events:
        count = "1 checkpoint" if len(events) == 1 else f"{len(events)} checkpoints, the last"
        yield printable(f"{count} at step {events[-1].get('step', '?')}")


def _request(folder: RunFolder) -> StoryLine | None:
    if not is_cancelled(folder):
        return None
    said = read_map(folder.path / "cancel")
    time_s = said.get("time_s")
    by = printable(str(said.get("by", "somebody")))
    return StoryLine(
        time_s if is_time(time_s) else None,
        f"{by} asked for it to be stopped; `harness run` of a study that wants it goes on",
    )


# `harness logs`: the story of one run, and the last lines of the Slurm jobs that had it. Reads only.


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
    printed = folder.path / SCRIPT_LOG
    if printed.is_file():
        data["logs"].append({"file": str(printed), "lines": tail(printed, args.lines)})
    if args.json:
        print(json.dumps(data, indent=1))
    else:
        from harness.commands.status import show_story

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
        spec = spec_from_json(read_json(folder.spec))
    except (OSError, ValueError, KeyError, TypeError):  # of another version
        return None
    if isinstance(spec, ScriptRun):
        return {"command": printable(spec.arm.line), "seed": spec.seed}
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
