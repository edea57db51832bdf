"""The runs a study needs: unique, ordered by need, priced, and which table cells share them; as JSON, too."""

from __future__ import annotations

import dataclasses
import gc
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from itertools import pairwise
from typing import Any, NamedTuple

from harness.errors import frozen, mutable
from harness.spec import (
    ACCURACIES,
    MEMBER_STRIDE,
    AnyArm,
    AnyRun,
    Arm,
    ScriptArm,
    ScriptPlace,
    as_plain,
    run_of,
)

# How often every arm is trained: a fixed number of seeds, or more at each look at the results.
#
# Looks are numbers of seeds per arm, rising: (3,) is a fixed design, (3, 5, 8, 10) an adaptive one that
# trains every arm with 3 seeds and those that are not settled then with 5, and so on.


MOST_SEEDS = MEMBER_STRIDE  # of an arm
START = 3  # where a study does not say
GROWTH = 1.5  # seeds at a look over those at the one before, at least
LAST_STEP = 1.25  # the last look has at least so many times the seeds of the one before it
_WANTED = r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?"


def default_looks(start: int, at_most: int) -> tuple[int, ...]:
    """Looks from `start` to `at_most` seeds, each about 1.6 times the one before.

    >>> default_looks(3, 20), default_looks(3, 10), default_looks(5, 5)
    ((3, 5, 8, 12, 20), (3, 5, 8, 10), (5,))
    """
    looks = [start]
    while (step := -int(-GROWTH * looks[-1] // 1)) * LAST_STEP <= at_most:
        looks.append(step)
    return tuple(looks) if looks[-1] == at_most else (*looks, at_most)


def check_looks(looks: Sequence[int]) -> None:
    """
    Raises:
        ValueError: they do not rise, or are out of range.
    """
    if not all(earlier < later for earlier, later in pairwise(looks)):
        raise ValueError(f"looks must rise, such as [3, 5, 8, 10], got {list(looks)}")
    for count in (looks[0], looks[-1]):
        check_count(count)


def check_count(count: int) -> None:
    """
    Raises:
        ValueError: no arm can have so many seeds.
    """
    if count < 1:
        raise ValueError(f"the number of seeds must be at least 1, got {count}")
    if count > MOST_SEEDS:
        raise ValueError(f"the number of seeds must be at most {MOST_SEEDS}, got {count}")


def parse_seeds(text: str) -> tuple[int, ...]:
    """The looks that `--seeds` asks for.

    >>> parse_seeds("5"), parse_seeds("3..10")
    ((5,), (3, 5, 8, 10))

    Raises:
        ValueError: it is neither a number nor START..AT_MOST, or out of range.
    """
    found = re.fullmatch(_WANTED, text.strip())
    if found is None:
        raise ValueError(f"must be a number of seeds (5), or START..AT_MOST (3..10), got {text!r}")
    start = int(found[1])
    at_most = int(found[2] or start)
    for count in (start, at_most):
        check_count(count)
    if at_most < start:
        raise ValueError(f"must not end ({at_most}) below its start ({start}), got {text!r}")
    return default_looks(start, at_most)


# The runs a study needs: unique, ordered by need, priced, and which table cells share them.


MEASURES = (*ACCURACIES, "loss", "train_loss", "steps_to_target")


@frozen
class PaperValue:
    """One printed number. `status` is `verified` or `memory` (see docs/references.md)."""

    value: float
    status: str


@frozen
class Cell:
    """One row of one table, in one column: the arm that answers it and what the paper printed."""

    row: str
    column: str | None
    arm_id: str | None  # None: a number quoted from elsewhere, nothing is trained
    tricks: tuple[str, ...]  # the tricks that are on, in order, recipe-only ones too
    versus: str | None  # label of the row (same table, same column) this one is compared with
    paper: Mapping[str, PaperValue] = field(default_factory=dict)  # metric, or another name of study.paper
    paper_versus: str | None = None  # the row the paper's own effect is measured from, where it differs
    note: str | None = None
    switched_on: tuple[str, ...] | None = None  # which of the table's `switches`; None: it has none
    may_fail: bool = False  # it failed in the paper too, as its printed value says


OF_A_FILE = "results"  # the design of a table whose rows were found in a file of results


@frozen
class PlanTable:
    """One table of a study, its cells in reading order."""

    key: str
    title: str
    design: str
    columns: tuple[str | None, ...]
    cells: tuple[Cell, ...]
    note: str | None = None
    target: Mapping[str, Any] | None = None  # accuracy for steps_to_target: {"row": label} or {"top1": 72.2}
    switches: tuple[str, ...] = ()  # the tricks that the design switches on and off, as the file orders them
    control: tuple[str, str] | None = (
        None  # (row, row it is compared with) whose difference is known to matter
    )
    ground: str = ""  # the same text in tables that switch the same tricks on the same starting points


@frozen
class Claim:
    """One sentence of the paper that two trained rows of a table can answer."""

    says: str
    source: str
    table: str
    row: str
    versus: str
    column: str | None = None  # None: the table has no columns
    versus_column: str | None = None  # None: the same column
    measure: str = "top1"  # one of MEASURES
    expect: str = "higher"  # higher | lower


@mutable
class PlannedRun:
    """One run, what must be finished before it, and what it will cost."""

    run_id: str
    arm_id: str
    seed: int
    needs: tuple[str, ...]  # run_ids: teacher, source and observed runs
    macs: float  # multiply-adds of a training, 3 x forward x images x epochs, or of an evaluation
    time_s: float | None = None  # of one worker: measured where done, else estimated; None: not known
    rough: bool = False  # estimated from runs of other networks, by multiply-adds alone
    done: bool = False


@mutable
class Plan:
    """A study at one size, expanded. Runs are in submission order: seed-major, needs first.

    Beside every arm at each of its seeds there are the further members of ensembles, with seeds of their own.
    An adaptive plan holds the runs that are planned by now; `harness.study.expand` adds the next block.
    """

    study: str
    size: str
    seeds: tuple[int, ...]  # of the arm that has most by now
    header: Mapping[str, Any]  # paper, question, metric, smallest_effect, ... as the study says them
    tables: tuple[PlanTable, ...]
    arms: Mapping[str, Arm]  # arm_id -> arm
    arm_labels: Mapping[str, str]  # arm_id -> the first "table / row / column" that shows it
    runs: list[PlannedRun]
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()  # substitutions and everything else a reader of this size must know
    looks: tuple[int, ...] = ()  # seeds per arm at each look at the results; () or one entry: a fixed design
    arm_seeds: Mapping[str, int] = field(default_factory=dict)  # arm_id -> how many of `seeds`; absent: all
    priority: tuple[str, ...] = ()  # keys of the tables that a budget is spent on first
    # arm_id -> its seeds, of results from elsewhere, whose rows need not share any
    own_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Of a study with a script, which has no recipes: arm_id -> its command, and where that is executed here
    scripts: Mapping[str, ScriptArm] = field(default_factory=dict)
    places: Mapping[str, ScriptPlace] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)  # sha256 -> the file of it on this machine

    @property
    def all_arms(self) -> Mapping[str, AnyArm]:
        """Those of recipes, or those of a script; none where results are from elsewhere."""
        return self.scripts or self.arms

    @property
    def is_adaptive(self) -> bool:
        """Whether the results decide which arms get more seeds."""
        return len(self.looks) > 1

    @property
    def look(self) -> int:
        """The look for which the runs are planned by now, counted from 1; 0 for a fixed design."""
        return sum(seeds <= len(self.seeds) for seeds in self.looks)

    def seeds_of(self, arm_id: str) -> tuple[int, ...]:
        """The seeds with which an arm is planned by now."""
        if arm_id in self.own_seeds:
            return self.own_seeds[arm_id]
        return self.seeds[: self.arm_seeds.get(arm_id, len(self.seeds))]

    def spec(self, run: PlannedRun) -> AnyRun:
        """The full spec of a planned run."""
        return run_of(self.all_arms[run.arm_id], run.seed)


def runs_at_most(plan: Plan) -> int:
    """How many runs the plan would have with all its arms at the last look."""
    of_one_seed = sum(run.seed % MEMBER_STRIDE == 0 for run in plan.runs)
    return of_one_seed * (plan.looks[-1] if plan.looks else len(plan.seeds))


# `harness plan --json`: the plan as plain data, with a stable schema.
#
# schema          2; grows when a key changes its meaning or goes
# study, size     names
# header          paper, question, expect, unknown, metric, metrics (of plugins), smallest_effect
# (percentage
#                 points), seeds, smoke, size_line
# seeds           [0, 1, ...]: the rows are read at these; of an adaptive study, of the arm that has most by
# now
# looks           [3, 5, ...]: seeds per arm at each look at the results; []: every arm has `seeds`
# arm_seeds       {arm_id: how many of `seeds` it is planned with by now}; those that are not named have all
# notes           [text]: what the size scales and replaces
# claims          [{says, source, table, row, versus, column, versus_column, measure, expect}]
# tables          [{key, title, design, columns, note, target, control, cells}]
#                 target: {row: label} or {top1: percent}, for steps_to_target; null: none
#                 control: {row, versus}, a comparison that is known to matter; null: none
#   cells         [{row, column, arm_id, tricks, versus, paper, paper_versus, note, may_fail}]
#                 arm_id null: quoted, not trained
#     paper       {name: {value, status}}; top1 and top5 in percent, others as study.paper says; status is
#                 verified or memory
# arms            {arm_id: {label, recipe, tricks, teacher, source, observes, plugins}}
#                 recipe: every field of study.spec.Recipe
#                 of a study with a script, in place of these: {label, command, results, files, repository}
#                 observes: not empty: nothing is trained, the networks of [{arm, runs}] are evaluated
# together
# runs            [{run_id, arm_id, seed, needs, macs, time_s, rough, done}] in submission order; those with
#                 other seeds than `seeds` are further members of ensembles, and what these need
#                 macs: multiply-adds of the whole training, or of evaluating
#                 time_s: of one worker: training where it is done, else all of the run; null: not known
#                 rough: time_s is from runs of other networks, by multiply-adds alone
# totals          {cells, arms, runs, done, macs, time_s, shared_runs_saved}
#                 macs and time_s: of the runs that are not done
#                 shared_runs_saved: runs that the tables would train again if they did not share them


PLAN_SCHEMA = 2


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The data described at the top of this file; `json.dumps` takes it as it is."""
    return {
        "schema": PLAN_SCHEMA,
        "study": plan.study,
        "size": plan.size,
        "header": dict(plan.header),
        "seeds": list(plan.seeds),
        "looks": list(plan.looks),
        "arm_seeds": dict(plan.arm_seeds),
        "notes": list(plan.notes),
        "claims": [dataclasses.asdict(claim) for claim in plan.claims],
        "tables": [_table(table) for table in plan.tables],
        "arms": {
            arm_id: {"label": plan.arm_labels[arm_id], **as_plain(arm)}
            for arm_id, arm in plan.all_arms.items()
        },
        "runs": [{**dataclasses.asdict(run), "needs": list(run.needs)} for run in plan.runs],
        "totals": totals(plan),
    }


def totals(plan: Plan) -> dict[str, Any]:
    """Counts of the whole plan, and the cost of what is not done. time_s is None while any run has none."""
    trained = [cell.arm_id for table in plan.tables for cell in table.cells if cell.arm_id is not None]
    todo = [run for run in plan.runs if not run.done]
    times = [run.time_s for run in todo if run.time_s is not None]
    return {
        "cells": sum(len(table.cells) for table in plan.tables),
        "arms": len(plan.all_arms),
        "runs": len(plan.runs),
        "done": len(plan.runs) - len(todo),
        "macs": sum(run.macs for run in todo),
        "time_s": sum(times) if len(times) == len(todo) else None,
        "shared_runs_saved": _runs(plan, trained) - _runs(plan, set(trained)),
    }


def _runs(plan: Plan, arm_ids: Iterable[str]) -> int:
    return sum(len(plan.seeds_of(arm_id)) for arm_id in arm_ids)


def _table(table: PlanTable) -> dict[str, Any]:
    return {
        "key": table.key,
        "title": table.title,
        "design": table.design,
        "columns": list(table.columns),
        "note": table.note,
        "target": None if table.target is None else dict(table.target),
        "control": control_of(table),
        "cells": [_cell(cell) for cell in table.cells],
    }


def control_of(table: PlanTable) -> dict[str, str] | None:
    """A table's control as plain data."""
    return None if table.control is None else dict(zip(("row", "versus"), table.control, strict=True))


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "row": cell.row,
        "column": cell.column,
        "arm_id": cell.arm_id,
        "tricks": list(cell.tricks),
        "versus": cell.versus,
        "paper": {name: {"value": value.value, "status": value.status} for name, value in cell.paper.items()},
        "paper_versus": cell.paper_versus,
        "note": cell.note,
        "may_fail": cell.may_fail,
    }


# Several studies planned together: how many runs they need, and which of those they share.


class Union(NamedTuple):
    """The runs of several plans, each counted once."""

    runs: int
    done: int
    shared: int  # runs that more than one study needs
    macs: float  # multiply-adds of what is not done
    time_s: float | None  # seconds of one worker for what is not done; None: not known
    sharing: tuple[tuple[tuple[str, ...], int], ...]  # studies -> runs that just these share; most runs first


def union(plans: Sequence[Plan]) -> Union:
    """What several plans need together."""
    first: dict[str, PlannedRun] = {}
    users: dict[str, list[str]] = {}
    for plan in plans:
        for run in plan.runs:
            first.setdefault(run.run_id, run)
            users.setdefault(run.run_id, []).append(plan.study)
    todo = [run for run in first.values() if not run.done]
    times = [run.time_s for run in todo if run.time_s is not None]
    sharing = Counter(tuple(names) for names in users.values() if len(names) > 1)
    return Union(
        runs=len(first),
        done=len(first) - len(todo),
        shared=sum(sharing.values()),
        macs=sum(run.macs for run in todo),
        time_s=sum(times) if len(times) == len(todo) else None,
        sharing=tuple(sharing.most_common()),
    )


def union_to_json(found: Union) -> dict[str, Any]:
    """The key `totals` of `harness plan A B --json`, as docs/json.md says."""
    return {
        "runs": found.runs,
        "done": found.done,
        "shared": found.shared,
        "macs": found.macs,
        "time_s": found.time_s,
        "sharing": [{"studies": list(names), "runs": count} for names, count in found.sharing],
    }


# Making half a million small objects without looking for garbage among them.


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """While planning, objects are made and none is dropped; looking for dropped ones takes a third of the
    time.

    Afterwards they count as old, so that they are not all looked through at once either.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_freeze_count() == 0:
                gc.freeze()  # moves every object out of the young generation ...
                gc.unfreeze()  # ... and into the oldest one
            gc.enable()


class ExpandOptions(NamedTuple):
    """What the user chose on the command line."""

    size: str = ""  # as nobody said one
    seeds: int | tuple[int, ...] | None = None  # a number, or the looks; None: as the study says
    smoke: bool = False
    changes: tuple[str, ...] = ()  # of `--set`, KEY=VALUE
    every_size: bool = True  # whether mistakes that show at another size only are looked for, too

    def wanted(self, sizes: Iterable[str]) -> str:
        """The size that is meant: `mini` where nobody said one and the study has it, else its first.

        >>> ExpandOptions().wanted(["gpu", "mini"]), ExpandOptions().wanted(["small", "large"])
        ('mini', 'small')
        """
        names = list(sizes)
        return self.size or ("mini" if "mini" in names else next(iter(names), ""))
