"""`harness plan`: what would be run, what is shared, what it costs; and its declaration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
from harness.commands.data import DataNow, again, counts_of
from harness.commands.workspace import (
    Workspace,
    asked_part,
    load_with_data,
    look_at_data,
    refuse_parts_of_several,
    workspace,
)
from harness.data.entry import Look
from harness.errors import Problem, StudyError
from harness.runs.folder import RunFolder
from harness.runs.provenance import code_version, keep_changes
from harness.runs.state import TIME, read_history, study_folder, write_declaration
from harness.study.conditions import foreseen
from harness.study.declaration import HASH_SHOWN, amendments, declaration_of, plan_hash
from harness.study.plan import PLAN_SCHEMA, Plan, plan_to_json, union, union_to_json

# What a study declares, recorded before anything is submitted, and read for plans, states and reports.


ROOT = Path(harness.__file__).resolve().parents[1]  # the checkout, or whatever holds the package
ATTEMPTS = 100  # processes that record at the same moment take one number each


def declare(plan: Plan, place: Workspace) -> str:
    """Record what the plan declares unless the newest record says the same. Returns a line for the user.
    Keeps what the checkout, and that of a script, have changed since their commits, where there is something
    to train with them.

    To be called with the plan of the first look, before anything is submitted.

    Raises:
        StudyError: a record is damaged; which, and what to do.
    """
    if not all(run.done for run in plan.runs):
        for root in {ROOT, *(Path(each.repository) for each in plan.places.values() if each.repository)}:
            keep_changes(place.runs_dir, root)
    folder = study_folder(place.runs_dir, plan)
    now = declaration_of(plan)
    for _ in range(ATTEMPTS):
        history = read_history(folder)
        if history and history["problem"]:
            text = (
                f"{history['problem']}. Restore it from a copy; or move the folder away, and the plan is "
                "declared anew, with the number of runs that have ended by now"
            )
            raise StudyError([Problem(str(folder), 0, text)])
        before = history["declarations"] if history else []
        if before and before[-1]["plan_hash"] == plan_hash(now):
            return _says(before[-1], len(before))
        entry = _entry(plan, now, _ended_of(before, plan, place) if before else 0)
        if write_declaration(folder, len(before) + 1, entry):
            if before:
                changes = "; ".join(amendments(before[-1]["declaration"], now))
                return f"{_says(entry, len(before) + 1)}; recorded as an amendment: {changes}"
            return _says(entry, 1)
    raise StudyError([Problem(str(folder), 0, "other processes keep declaring this study; try again")])


def history_of(plan: Plan, place: Workspace) -> dict[str, Any] | None:
    """What was recorded, for `ReportInput.declaration`; None: nothing. Never writes."""
    return read_history(study_folder(place.runs_dir, plan))


def declared_line(plan: Plan, place: Workspace) -> str:
    """One line for `harness plan` and `harness status`. Never writes."""
    history = history_of(plan, place)
    if history is None:
        return "not declared yet: `harness run` records the plan before it starts"
    if history["problem"]:
        return f"declaration: {history['problem']} (in {study_folder(place.runs_dir, plan)})"
    newest = history["declarations"][-1]
    line = _says(newest, len(history["declarations"]))
    changes = amendments(newest["declaration"], declaration_of(plan))
    if not changes:
        return line
    return f"{line}; this plan differs: {'; '.join(changes)}{_of_other_code(history, plan, place)}"


def read_anew(plan: Plan, place: Workspace) -> str:
    """The end of a line about a plan: how many runs of a script need not be executed, because only how
    their results are read has changed; ""."""
    if not plan.scripts:
        return ""
    from harness.scripts.run import is_read_anew

    found = sum(is_read_anew(plan.spec(run), place.folder(run.run_id)) for run in plan.runs if not run.done)
    return f"; {found} of them were executed before: what they wrote is read anew" if found else ""


def _of_other_code(history: Mapping[str, Any], plan: Plan, place: Workspace) -> str:
    """How many runs of the newest declaration ended with other code of a script than there is now."""
    newest = history["declarations"][-1]
    before, now = newest["declaration"]["plugins"], declaration_of(plan)["plugins"]
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    ended = _ended_of([newest], plan, place) if plan.scripts and names else 0
    return f"; {' and '.join(names)} changed since {ended} of these runs ended" if ended else ""


def _says(entry: Mapping[str, Any], number: int) -> str:
    when = f"{entry['time'][:16].replace('T', ' ')} UTC"
    line = f"declared {when}, plan hash {entry['plan_hash'][:HASH_SHOWN]}"
    line += f", when {entry['ended']} of {entry['runs']} runs had ended"
    return line + (f" (amendment {number - 1})" if number > 1 else "")


def _entry(plan: Plan, declaration: Mapping[str, Any], seen: int) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).strftime(TIME),
        "harness": harness.__version__,
        **code_version(ROOT),
        "runs": len(plan.runs),
        "ended": sum(run.done for run in plan.runs),
        "seen": seen,
        "plan_hash": plan_hash(declaration),
        "declaration": declaration,
    }


def _ended_of(before: list[Mapping[str, Any]], plan: Plan, place: Workspace) -> int:
    """How many runs of any recipe that was declared have ended, beside those of the plan."""
    planned = {run.run_id for run in plan.runs}
    arms = {row["arm"] for each in before for table in each["declaration"]["tables"] for row in table["rows"]}
    count = 0
    for path in place.runs_dir.glob("*/summary.json"):
        summary = None if path.parent.name in planned else RunFolder(path.parent).read_summary()
        count += summary is not None and summary["arm_id"] in arms
    return count


# `harness plan`: what would be run, what is shared, what it costs. Reads only.


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    if len(args.study) == 1 and not args.study[0].is_dir():
        _one(args, place)
    else:
        _several(args, place, _files(args.study))
    return 0


def _one(args: argparse.Namespace, place: Workspace) -> None:
    from harness.commands.step_times import estimate  # `status`, which imports this file, measures nothing

    whole, now = load_with_data(args, place, args.study[0])
    args.study = args.study[0]
    part = asked_part(args, whole)
    plan = part.plan if part else whole
    found = _look(plan, place, now)
    estimate(plan, place.data_dir, measure=not found.problems)
    if args.json:
        data = {**plan_to_json(plan), **_said(found), "cannot_be_tested": untestable(plan, place)}
        data |= {"part": part.to_json()} if part else {}
        print(json.dumps(data, indent=1))
    else:
        from harness.commands.display import show_plan

        show_plan(plan, found, read_anew(plan, place))
        for text in untestable(plan, place):
            print(text)
        if part:
            print(part.line)
        print(declared_line(whole, place))


def _several(args: argparse.Namespace, place: Workspace, files: Sequence[Path]) -> None:
    from harness.commands.step_times import estimate

    refuse_parts_of_several(args)
    plans: list[Plan] = []
    looks: list[Look] = []
    problems: list[Problem] = []
    for file in files:
        try:
            plan, now = load_with_data(args, place, file)
        except StudyError as error:
            problems += error.problems
            continue
        plans.append(plan)
        looks.append(_look(plan, place, now))  # before the next study's plugins take this one's place
        estimate(plan, place.data_dir, measure=not looks[-1].problems)
    if problems:
        raise StudyError(problems)
    together = union(plans)
    if args.json:
        studies = [{**plan_to_json(plan), **_said(found)} for plan, found in zip(plans, looks, strict=True)]
        data = {"schema": PLAN_SCHEMA, "studies": studies, "totals": union_to_json(together)}
        print(json.dumps(data, indent=1))
    else:
        from harness.commands.display import show_plans

        problems_of_data = tuple(dict.fromkeys(text for found in looks for text in found.problems))
        notes = tuple(dict.fromkeys(text for found in looks for text in found.notes))
        show_plans(plans, together, Look(problems=problems_of_data, notes=notes))


def _look(plan: Plan, place: Workspace, now: DataNow) -> Look:
    """What is missing, and everything else that is worth knowing of the data and of the images in a step."""
    found, counts = look_at_data(plan, place), counts_of(plan, place.data_dir)
    notes = (*found.notes, *counts.notes, *counts.problems, *(again(text) for text in now.says))
    return Look(problems=found.problems, notes=notes)


def untestable(plan: Plan, place: Workspace) -> list[str]:
    """What cannot be tested whatever the runs come to, as far as the plan's numbers say it, a line each."""
    if plan.header["smoke"]:
        return []
    from harness.commands.floors import read_floors
    from harness.data import DATASETS, ImageCounts

    counts = ImageCounts(place.data_dir)
    return foreseen(
        plan,
        lambda spec: spec.train_images or counts(spec.name, spec.args)[0],
        lambda spec: DATASETS[spec.name].facts(spec.args)[0] if spec.name in DATASETS else None,
        read_floors(plan, place)["floors"],
    )


def _said(found: Look) -> dict[str, list[str]]:
    return {"missing_data": list(found.problems), "data_notes": list(found.notes)}


def _files(named: Sequence[Path]) -> list[Path]:
    """Each file once; a folder stands for the studies in it.

    Raises:
        StudyError: a folder has none.
    """
    files: list[Path] = []
    for path in named:
        inside = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not inside:
            raise StudyError([Problem(str(path), 0, "no study (*.yaml) in this folder")])
        files += inside
    return list({file.resolve(): file for file in files}.values())
