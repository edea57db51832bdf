"""`harness plan`: what would be run, what is shared, what it costs. Reads only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from harness.commands.counts import counts_of
from harness.commands.data_now import DataNow, again
from harness.commands.declare import declared_line
from harness.commands.step_times import estimate
from harness.commands.workspace import Workspace, load_with_data, look_at_data, workspace
from harness.data.entry import Look
from harness.study.plan import Plan
from harness.study.plan_json import PLAN_SCHEMA, plan_to_json
from harness.study.problems import Problem, StudyError
from harness.study.union import union, union_to_json


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    if len(args.study) == 1 and not args.study[0].is_dir():
        _one(args, place)
    else:
        _several(args, place, _files(args.study))
    return 0


def _one(args: argparse.Namespace, place: Workspace) -> None:
    plan, now = load_with_data(args, place, args.study[0])
    found = _look(plan, place, now)
    estimate(plan, place.data_dir, measure=not found.problems)
    if args.json:
        print(json.dumps({**plan_to_json(plan), **_said(found)}, indent=1))
    else:
        from harness.display import show_plan

        show_plan(plan, found)
        print(declared_line(plan, place))


def _several(args: argparse.Namespace, place: Workspace, files: Sequence[Path]) -> None:
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
        from harness.display import show_plans

        problems_of_data = tuple(dict.fromkeys(text for found in looks for text in found.problems))
        notes = tuple(dict.fromkeys(text for found in looks for text in found.notes))
        show_plans(plans, together, Look(problems=problems_of_data, notes=notes))


def _look(plan: Plan, place: Workspace, now: DataNow) -> Look:
    """What is missing, and everything else that is worth knowing of the data and of the images in a step."""
    found, counts = look_at_data(plan, place), counts_of(plan, place.data_dir)
    notes = (*found.notes, *counts.notes, *counts.problems, *(again(text) for text in now.says))
    return Look(problems=found.problems, notes=notes)


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
