"""`harness status`: every row's runs, the queue, why something waits, time left and cost so far."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.commands.display import Heading, Page, duration, in_words, listing_page
from harness.commands.overview import Overview, SubmissionView, age_s, look_at_study, waits
from harness.commands.plan import declared_line
from harness.commands.workspace import workspace
from harness.errors import DONE, counted
from harness.runs.folder import RUNNING
from harness.runs.state import SHORT_ID, RunView
from harness.study.plan import Plan, PlannedRun

# `harness status`: every row's runs, the queue, why something waits, time left and cost so far.
#
# Needs no controller and writes nothing, but for the shared answer of Slurm's queue (`runs/.queue.json`).


def main(args: argparse.Namespace) -> int:
    overview = look_at_study(args, only_part=True)
    if args.json:
        print_json(to_json(overview))
    else:
        part = overview.part
        declared = declared_line(part.whole if part else overview.plan, workspace(args))
        show_status(
            overview,
            [*([part.line] if part else []), declared, *overview.data, *overview.below, *waits(overview)],
        )
    return DONE


def to_json(overview: Overview) -> dict[str, Any]:
    """Documented in docs/json.md."""
    plan, views, queue = overview.plan, overview.views, overview.queue
    return {
        "study": plan.study,
        "size": plan.size,
        **({"part": overview.part.to_json()} if overview.part else {}),
        "seeds": list(plan.seeds),
        "looks": list(plan.looks),
        "looks_taken": [look._asdict() for look in overview.looks],
        "counts": overview.counts,
        "workers": overview.workers,
        "work_s": overview.work_s,
        "eta_s": overview.eta_s,
        "used_worker_s": overview.used_s,
        "used_gpu_s": overview.gpu_s,
        "data": list(overview.data),
        "below_floor": list(overview.below),
        "waits": list(waits(overview)),
        "queue": {
            "asked_s": queue.asked_s,
            "age_s": None if queue.asked_s is None else age_s(queue.asked_s),
            "can_ask": queue.can_ask,
            "unreadable": queue.unreadable,
            "submissions": [_submission_json(each) for each in queue.submissions],
        },
        "rows": [
            {
                "table": table.key,
                "row": cell.row,
                "column": cell.column,
                "arm": plan.arm_labels[cell.arm_id],
                "seeds": len(plan.seeds_of(cell.arm_id)),
            }
            for table in plan.tables
            for cell in table.cells
            if cell.arm_id is not None
        ],
        "runs": [_run_json(run, plan.arm_labels[run.arm_id], views[run.run_id]) for run in plan.runs],
    }


def _run_json(run: PlannedRun, label: str, view: RunView) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "arm": label,
        "seed": run.seed,
        "state": view.state,
        "progress": view.progress,
        "used_s": view.used_s,
        "gpus": view.gpus,
        "time_s": run.time_s,
        "holder": view.holder.place if view.holder else None,
        "message": view.message or None,
    }


def _submission_json(each: SubmissionView) -> dict[str, Any]:
    return {
        "token": each.submission.token,
        "study": each.submission.study,
        "created_s": each.submission.created_s,
        "job_ids": each.submission.job_ids(),
        "groups": [
            {
                "group": view.name,
                "left": len(view.left),
                "agents_running": view.running if view.is_known else None,
                "agents_pending": view.pending if view.is_known else None,
                "reasons": dict(view.reasons),
                "after": list(view.group.after),
            }
            for view in each.groups.values()
        ],
    }


def print_json(data: Mapping[str, Any]) -> None:
    """One key a line, and of a list one entry a line; indenting all would take a second for 10,000 runs."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(each) for each in value) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    print("{\n" + ",\n".join(parts) + "\n}")


# What a person reads of runs that are under way: their states, the queue, and the story of one of them.


MOST_SEED_COLUMNS = 5  # with more seeds, states are counted instead of naming each
MOST_FAILURES = 20  # that are listed; `--json` has all
MOST_HOLDERS = 10
NOT_PLANNED = "-"  # a seed that an arm does not get, or not yet: its comparisons are settled


def show_status(overview: Overview, waits: Sequence[str]) -> None:
    """Tables with a line per row and a word per seed; then the queue, what waits and why, failures, sums."""
    page = listing_page()
    for title, headings, rows in matrices(overview.plan, overview.views):
        print(title)
        if fits(headings, rows, page.width):
            print(columns(headings, rows))
        else:
            page.table([Heading(text) for text in headings], rows, pads=(0, 2), has_edges=False)
        print()
    for line in (*_at_work(overview), *_queue(overview), *waits, *_failures(overview), *_sums(overview)):
        page.print_whole(line)
    for look in overview.looks:
        page.print_whole(look.says)


Matrix = tuple[str, list[str], list[list[str]]]  # title, headings, rows


def matrices(plan: Plan, views: Mapping[str, RunView]) -> Iterator[Matrix]:
    """One per table of the study, in its order, then what is trained for others but shown in no row."""
    by_arm: dict[str, dict[int, RunView]] = {arm_id: {} for arm_id in plan.all_arms}
    for run in plan.runs:
        by_arm[run.arm_id][run.seed] = views[run.run_id]
    shown: dict[str, str] = {}  # arm -> the first row that shows it
    for table in plan.tables:
        headings = ["row", *(["column"] if any(cell.column for cell in table.cells) else [])]
        arms, labels = [], []
        for cell in table.cells:
            name = [cell.row, cell.column or ""][: len(headings)]
            if cell.arm_id is None:
                arms.append([*name, "quoted"])
            elif cell.arm_id in shown:
                arms.append([*name, f"as {shown[cell.arm_id]}"])
            else:
                shown[cell.arm_id] = " / ".join(filter(None, (table.key, cell.row, cell.column)))
                labels.append(cell.arm_id)
                arms.append([*name, *_planned(plan, cell.arm_id), *_states(plan, by_arm[cell.arm_id])])
        seeds = _seed_headings(plan, [by_arm[arm_id] for arm_id in labels])
        yield f"{table.key}: {table.title}", [*headings, *seeds], arms
    others = [arm_id for arm_id in plan.all_arms if arm_id not in shown]
    if others:
        rows = [
            [plan.arm_labels[arm_id], *_planned(plan, arm_id), *_states(plan, by_arm[arm_id])]
            for arm_id in others
        ]
        headings = ["for other rows", *_seed_headings(plan, [by_arm[arm_id] for arm_id in others])]
        yield "in no table", headings, rows


def _seed_headings(plan: Plan, arms: Sequence[Mapping[int, RunView]]) -> list[str]:
    planned = ["seeds"] if plan.is_adaptive else []
    if len(plan.seeds) > MOST_SEED_COLUMNS:
        return [*planned, "runs"]
    further = any(seed not in plan.seeds for seeds in arms for seed in seeds)
    return [*planned, *(f"seed {seed}" for seed in plan.seeds), *(["further members"] if further else [])]


def _planned(plan: Plan, arm_id: str) -> list[str]:
    """With how many seeds an arm is planned by now, where that differs between arms."""
    return [str(len(plan.seeds_of(arm_id)))] if plan.is_adaptive else []


def _states(plan: Plan, seeds: Mapping[int, RunView]) -> list[str]:
    """A word per seed, or where there are many how many are in each state."""
    if len(plan.seeds) > MOST_SEED_COLUMNS:
        return [in_words(Counter(view.state for view in seeds.values()))]
    words = [_word(seeds[seed]) if seed in seeds else NOT_PLANNED for seed in plan.seeds]
    further = in_words(Counter(seeds[seed].state for seed in seeds if seed not in plan.seeds))
    return [*words, *([further] if further else [])]


def _word(view: RunView) -> str:
    if view.state == RUNNING and view.progress is not None:
        return f"{view.state} {view.progress:.0%}"
    return view.state


def fits(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether every row fits into one line."""
    whole = sum(_widths(headings, rows)) + 2 * (len(headings) - 1)
    return max([whole, *(len(line) for line in columns(headings, rows).split("\n"))]) <= width


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines with aligned columns. A row may have fewer cells: its last one then takes the space it needs."""
    widths = _widths(headings, rows)
    lines = []
    for row in (headings, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [len(heading) for heading in headings]
    for row in rows:
        aligned = row if len(row) == len(headings) else row[:-1]
        for place, cell in enumerate(aligned):
            if len(cell) > widths[place]:
                widths[place] = len(cell)
    return widths


def _at_work(overview: Overview) -> Iterator[str]:
    halted = {holder.place: holder.pid for holder in overview.halted}
    places = Counter(view.holder.place for view in overview.views.values() if view.holder is not None)
    for place, count in places.most_common(MOST_HOLDERS):
        runs = counted(count, "run")
        if place in halted:
            yield f"halted: {place} holds {runs}; kill -CONT {halted[place]} lets it go on"
        else:
            yield f"at work: {place}: {runs}"
    if len(places) > MOST_HOLDERS:
        yield f"at work: {len(places) - MOST_HOLDERS} more processes"


def _queue(overview: Overview) -> Iterator[str]:
    queue = overview.queue
    for each in queue.submissions:
        yield from _submission(each)
    if any(view.left for each in queue.submissions for view in each.groups.values()):
        yield f"Slurm's queue: {_knowledge(queue.asked_s, can_ask=queue.can_ask)}"
    for text in queue.unreadable:
        yield f"a submission that cannot be read here: {text}"


def _knowledge(asked_s: float | None, *, can_ask: bool) -> str:
    """How old what is known of the queue is."""
    if asked_s is None:
        return (
            "it does not answer"
            if can_ask
            else "unknown; no Slurm commands here, and no answer in the folder"
        )
    age = f"as it was {duration(age_s(asked_s))} ago"
    return age if can_ask else f"{age}; there are no Slurm commands here to ask again"


def _submission(each: SubmissionView) -> Iterator[str]:
    submission = each.submission
    when = clock_time(submission.created_s)
    for view in each.groups.values():
        if view.left:
            jobs = [job for chunk, job in submission.job_ids().items() if chunk.startswith(f"{view.name}.")]
            ids = f"job {', '.join(jobs)}" if jobs else "not handed to Slurm yet"
            agents = f"{view.running} at work, {view.pending} waiting" if view.is_known else "unknown"
            name = f"{submission.token}/{view.name} of {when} ({ids})"
            yield f"queue: {name}: {len(view.left)} of its runs have not ended; agents: {agents}"


def _failures(overview: Overview) -> Iterator[str]:
    failed = overview.failures()
    for run in failed[:MOST_FAILURES]:
        message = overview.views[run.run_id].message or "no reason was recorded"
        yield f"failed: {overview.label(run)}: {message} (harness logs {run.run_id[:SHORT_ID]})"
    if len(failed) > MOST_FAILURES:
        yield f"failed: {len(failed) - MOST_FAILURES} more; --json lists all"


def _sums(overview: Overview) -> Iterator[str]:
    yield in_words(overview.counts) + _block(overview.plan)
    used = f"{_hours(overview.used_s)} of workers"
    if overview.gpu_s:
        used += f", {_hours(overview.gpu_s)} of GPUs"
    yield f"cost so far: {used}"
    if overview.work_s:
        left = f"about {duration(overview.work_s)} of one worker left"
        if overview.eta_s is None:
            yield f"{left}; none is at work"
        else:
            workers = counted(overview.workers, "worker") + " at work"
            yield f"{left}: about {duration(overview.eta_s)} with {workers}"


def _block(plan: Plan) -> str:
    """Which block of an adaptive study this is."""
    if not plan.is_adaptive:
        return ""
    return f"; these are the runs for look {plan.look} of {len(plan.looks)} ({len(plan.seeds)} seeds)"


def _hours(time_s: float) -> str:
    return f"{time_s / 3600:.1f} hours" if time_s >= 3600 else duration(time_s)


def show_story(data: Mapping[str, Any]) -> None:
    """The run, what happened to it line by line, and the last lines of its Slurm jobs."""
    page = Page()
    recipe = data["recipe"]
    page.print(f"run {data['run_id']}: {data['state']}", bold=True)
    if recipe:
        page.print_whole(_about(recipe))
    for submission in data["submissions"]:
        jobs = ", ".join(submission["job_ids"]) or "not yet handed to Slurm"
        page.print(f"submission {submission['token']}, group {submission['group']}, Slurm jobs: {jobs}")
    for line in data["story"]:
        page.print_whole(f"{clock_time(line['time_s'])}  {line['text']}")
        for detail in line["detail"].splitlines():
            page.print_whole(f"    {detail}")
    if not data["story"]:
        page.print("no process has begun it yet")
    for agent in data["agents"]:
        for event in agent["events"]:
            page.print_whole(f"{clock_time(event['time_s'])}  agent {agent['job_id']} {event['text']}")
    for log in data["logs"]:
        page.print(f"\n{log['file']}:" + ("" if log["lines"] else " empty"), bold=True)
        for text in log["lines"]:
            page.print_whole(text)
    page.print_whole(f"\nfiles: {data['folder']}")


def _about(recipe: Mapping[str, Any]) -> str:
    """What the run trains; of a script, its command."""
    if "command" in recipe:
        return f"{recipe['command']} (seed {recipe['seed']})"
    tricks = ", ".join(recipe["tricks"]) or "no tricks that act while training"
    about = f"{recipe['model']} on {recipe['data']}, {recipe['epochs']:g} epochs"
    return f"{about}, batch {recipe['batch_size']}, seed {recipe['seed']}; {tricks}"


def clock_time(time_s: float | None) -> str:
    """Date and time as they are here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s)) if time_s else "at an unknown time"
