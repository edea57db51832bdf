"""Which runs a person means by a row's label, a seed or the first characters of a run_id."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from harness.study.plan import Plan, PlannedRun
from harness.study.problems import Problem, StudyError, unknown

MOST_LISTED = 6


def row_labels(plan: Plan) -> dict[str, dict[str, None]]:
    """Label of a row -> the arms that answer it, in whichever tables and columns; quoted rows have none."""
    arms: dict[str, dict[str, None]] = {}
    for table in plan.tables:
        for cell in table.cells:
            if cell.arm_id is not None:
                arms.setdefault(cell.row, {})[cell.arm_id] = None
    return arms


def runs_of(plan: Plan, rows: Iterable[str], seeds: Iterable[int], path: Path) -> list[PlannedRun]:
    """The planned runs of these rows at these seeds; of all rows, or at all seeds, where none is named.

    Raises:
        StudyError: a row or a seed that the study does not have; names the nearest and the valid ones.
    """
    labels = row_labels(plan)
    rows, seeds = list(rows), list(seeds)
    problems = [Problem(str(path), 0, unknown("row", row, labels)) for row in rows if row not in labels]
    there = {run.seed for run in plan.runs}
    for seed in seeds:
        if seed not in there:
            valid = ", ".join(map(str, sorted(there)))
            problems.append(Problem(str(path), 0, f"no run has the seed {seed}. Valid: {valid}"))
    if problems:
        raise StudyError(problems)
    arms = {arm_id for row in rows for arm_id in labels[row]}
    return [run for run in plan.runs if (not rows or run.arm_id in arms) and (not seeds or run.seed in seeds)]


def by_prefix(prefix: str, runs_dir: Path) -> str:
    """The run_id of the only run folder whose name begins so.

    Raises:
        StudyError: there is none, or more than one.
    """
    try:
        names = sorted(name for name in os.listdir(runs_dir) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    if not names:
        raise problem(runs_dir, "no runs here yet; `harness run STUDY` makes some, --runs DIR names a folder")
    found = [name for name in names if name.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        near = difflib.get_close_matches(prefix, names, n=1, cutoff=0.3)
        hint = f"; the nearest is {near[0]}" if near else ""
        how = "a row is named with its study: harness logs ROW STUDY --seed N"
        raise problem(runs_dir, f"no run begins with '{prefix}'{hint}; {how}")
    shown = ", ".join(found[:MOST_LISTED]) + (", ..." if len(found) > MOST_LISTED else "")
    raise problem(runs_dir, f"{len(found)} runs begin with '{prefix}': {shown}")


def by_row(plan: Plan, row: str, seed: int | None, path: Path) -> str:
    """The run_id of the only run of a row (at a seed); a run_id of the study is taken as well.

    Raises:
        StudyError: there is none, or more than one.
    """
    own = [run.run_id for run in plan.runs if run.run_id.startswith(row)]
    if row not in row_labels(plan) and len(own) == 1:
        return own[0]
    found = runs_of(plan, [row], [] if seed is None else [seed], path)
    if len(found) == 1:
        return found[0].run_id
    if not found:
        seeds = sorted({run.seed for run in runs_of(plan, [row], [], path)})
        raise problem(
            path, f"row '{row}' has no run with the seed {seed}. Valid: {', '.join(map(str, seeds))}"
        )
    shown = [f"seed {run.seed} of {plan.arm_labels[run.arm_id]} is {run.run_id}" for run in found]
    more = f"; and {len(shown) - MOST_LISTED} more" if len(shown) > MOST_LISTED else ""
    text = f"row '{row}' has {len(found)} runs; name one with --seed, or by its run_id: "
    raise problem(path, text + "; ".join(shown[:MOST_LISTED]) + more)


def problem(path: Path, message: str) -> StudyError:
    """One mistake in what was asked for."""
    return StudyError([Problem(str(path), 0, message)])
