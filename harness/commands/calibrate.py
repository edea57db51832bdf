"""`harness calibrate`: train one recipe many times, and count how often effects are seen among them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import __version__
from harness.commands.data import THOROUGH, look_at_records, renew, to_stderr
from harness.commands.workspace import Workspace, first_plan, require_data, store_plugins, workspace
from harness.errors import DONE, INTERRUPTED, Problem, StudyError, unknown
from harness.runs.folder import write_json
from harness.runs.records import read_map, reason
from harness.scheduling.base import INTERRUPTED as RUN_INTERRUPTED
from harness.scheduling.base import Job
from harness.spec import FINISHED
from harness.study.plan import Plan, PlannedRun

# What `harness calibrate` has measured on this machine: stored beside the runs, shown in reports.


FOLDER = ".calibration"  # in the folder of runs
SCHEMA = 1


def newest(plan: Plan, place: Workspace) -> Mapping[str, Any] | None:
    """The last calibration on a device that trained a run of this plan; None where there is none.

    What was stored is read; nothing is computed again.
    """
    stored = [each for each in map(_read, (place.runs_dir / FOLDER).glob("*.json")) if each is not None]
    for found in sorted(stored, key=lambda each: str(each["measured"]), reverse=True):
        if any(found["device"] == device for device in _devices(plan, place)):
            return found
    return None


def _read(path: Path) -> Mapping[str, Any] | None:
    """A stored calibration; None where it is damaged, which is named, or of another version."""
    return read_map(path, _wrong) or None


def _wrong(found: Mapping[str, Any]) -> str:
    from harness.analysis.calibration import badge  # SciPy

    if found.get("schema") != SCHEMA:
        return f"it is of schema {found.get('schema')}, this version reads {SCHEMA}"
    try:
        badge(found)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        return reason(error) if isinstance(error, KeyError) else "a value is not what was measured"
    return (
        "" if isinstance(found.get("measured"), str) and isinstance(found.get("device"), str) else "no device"
    )


def _devices(plan: Plan, place: Workspace) -> Iterator[str]:
    for run in plan.runs:
        summary = place.folder(run.run_id).read_summary()
        if summary is not None:
            yield str(summary.get("device"))


# `harness calibrate`: train one recipe many times, and count how often effects are seen among them.


OWN_STUDY = Path(__file__).parents[1] / "calibration.yaml"
MOST_RUNS = 1000  # seeds of one arm that a study may have
FEWEST_ARMS, FEWEST_SEEDS = 3, 3  # below, the block fit or the verdicts are not used


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecipe:
    """What is trained again and again."""

    plan: Plan
    arm_id: str
    label: str
    runs: tuple[PlannedRun, ...]  # of this arm, one per seed
    first: tuple[PlannedRun, ...]  # all that must be executed: these, and what they need


def main(args: argparse.Namespace) -> int:
    _check(args)
    place = workspace(args)
    recipe = _recipe(args, place)
    if RUN_INTERRUPTED in _train(args, recipe, place):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    pool = _pool(recipe, place)
    found = _measure(args, recipe, pool)
    path = place.runs_dir / FOLDER / f"{recipe.plan.study}-{recipe.arm_id[:8]}.json"
    write_json(path, found)
    print(json.dumps(found, indent=1, sort_keys=True) if args.json else as_text(found, path))
    return DONE


def as_text(found: Mapping[str, Any], path: Path) -> str:
    """What was measured and what it can and cannot say."""
    from harness.analysis.calibration import badge

    pool, between = found["pool"], "too small to be seen"
    if found["pool_sd"] > 0:
        between = f"{100 * found['pool_sd']:.2f} pp"
    return "\n".join(
        [
            badge(found),
            f"  pool: {found['metric']} {pool['mean']:.2f} ± {pool['sd']:.2f} (sd); skew {pool['skew']:+.2f} "
            f"± {pool['skew_se']:.2f}, excess kurtosis {pool['excess_kurtosis']:+.2f} "
            f"± {pool['kurtosis_se']:.2f} (standard errors of a normal sample), {pool['outliers']} outliers",
            f"  coverage of 0 by the 95 % intervals: {100 * found['coverage']:.1f} %, "
            f"worst contrast {100 * found['worst_coverage']:.1f} %",
            f"  limits: all tables are drawn from the same {found['runs']} runs, which fill "
            f"{found['disjoint_tables']} tables without using one twice. The upper bound above is that of "
            f"the drawing; with what another pool of this size would change (sd {between}) it is "
            f"{100 * found['rate_upper_with_pool']:.1f} %.",
            f"  written to {path}; reports of runs on this device show it",
        ]
    )


def _check(args: argparse.Namespace) -> None:
    problems = []
    least = {"--arms": (args.arms, FEWEST_ARMS), "--seeds": (args.seeds, FEWEST_SEEDS)}
    for name, (value, fewest) in least.items():
        if value < fewest:
            problems.append(Problem(name, 0, f"a table with verdicts has at least {fewest}, got {value}"))
    if args.trainings > MOST_RUNS:
        problems.append(Problem("--trainings", 0, f"at most {MOST_RUNS}, got {args.trainings}"))
    if args.arms * args.seeds > args.trainings:
        text = (
            f"{args.arms} arms of {args.seeds} seeds need {args.arms * args.seeds} runs, "
            f"{args.trainings} are not enough for one table"
        )
        problems.append(Problem("--trainings", 0, text))
    if problems:
        raise StudyError(problems)


def _recipe(args: argparse.Namespace, place: Workspace) -> CalibrationRecipe:
    """The arm of the named row (by default the first), with as many seeds as trainings are wanted."""
    study = args.study or OWN_STUDY
    how = argparse.Namespace(study=study, size=args.size, seeds=args.trainings, smoke=False)
    plan = first_plan(how, place)
    require_data(how, plan, place)
    cells = [cell for table in plan.tables for cell in table.cells if cell.arm_id is not None]
    labels = list(dict.fromkeys(cell.row for cell in cells))
    wanted = labels[0] if args.row is None else args.row
    if wanted not in labels:
        raise StudyError([Problem(str(study), 0, unknown("row", wanted, labels))])
    arm_id = next(cell.arm_id for cell in cells if cell.row == wanted)
    assert arm_id is not None
    runs = tuple(run for run in plan.runs if run.arm_id == arm_id)[: args.trainings]
    needed = set(_with_needs(runs, {run.run_id: run for run in plan.runs}))
    plan.runs[:] = [run for run in plan.runs if run.run_id in needed]
    renew(plan, place.runs_dir, look_at_records(plan, place.runs_dir, place.data_dir, THOROUGH), to_stderr)
    look_at_records(plan, place.runs_dir, place.data_dir, THOROUGH)
    return CalibrationRecipe(plan=plan, arm_id=arm_id, label=wanted, runs=runs, first=tuple(plan.runs))


def _with_needs(runs: Sequence[PlannedRun], every: Mapping[str, PlannedRun]) -> Iterator[str]:
    for run in runs:
        yield run.run_id
        yield from _with_needs([every[need] for need in run.needs], every)


def _train(args: argparse.Namespace, recipe: CalibrationRecipe, place: Workspace) -> set[str]:
    """Train what is missing on this machine; the states that the runs ended in. Nothing is mirrored."""
    todo = [run for run in recipe.first if not run.done]
    if not todo:
        return set()
    from harness.commands.progress import ProgressDisplay
    from harness.runs.provenance import detect_devices
    from harness.scheduling.base import default_workers
    from harness.scheduling.local import Local, LocalSettings
    from harness.spec import Machine
    from harness.training import PRELOAD, SCRIPT_PRELOAD, run_one

    devices = detect_devices()
    machine = Machine(runs_dir=place.runs_dir, data_dir=place.data_dir, device=devices[0])
    workers = args.workers or default_workers(devices, 1)
    place.runs_dir.mkdir(parents=True, exist_ok=True)
    store_plugins(place.runs_dir, recipe.plan)
    jobs = [Job(spec=recipe.plan.spec(run), needs=run.needs, cost=run.macs) for run in todo]
    print(f"{len(todo)} of {len(recipe.first)} trainings are to be made", file=sys.stderr)
    with ProgressDisplay(recipe.plan, place.folder, gpus=0, workers="workers") as display:
        preload = SCRIPT_PRELOAD if recipe.plan.scripts else PRELOAD
        local = Local(LocalSettings(machine=machine, workers=workers, devices=devices, preload=preload))
        return set(local.execute(jobs, run_one, display.watch).values())


def _pool(recipe: CalibrationRecipe, place: Workspace) -> list[dict[str, Any]]:
    """The summaries of the runs that finished with a value."""
    metric = recipe.plan.header["metric"]
    summaries = [place.folder(run.run_id).read_summary() for run in recipe.runs]
    return [
        each
        for each in summaries
        if each is not None
        and each["status"] == FINISHED
        and isinstance(each["metrics"].get(metric), int | float)
    ]


def _measure(
    args: argparse.Namespace, recipe: CalibrationRecipe, pool: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """
    Raises:
        StudyError: too few runs finished for a table, or all of them gave the same value.
    """
    import numpy as np

    from harness.analysis.calibration import calibrate

    metric = recipe.plan.header["metric"]
    values = np.array([each["metrics"][metric] for each in pool], dtype=float)
    try:
        found = calibrate(values, args.arms, args.seeds, args.tables)
    except ValueError as error:
        why = f"{error} ({len(recipe.runs) - len(pool)} of {len(recipe.runs)} trainings have no value)"
        raise StudyError([Problem(recipe.label, 0, why)]) from None
    last = pool[-1]
    return {
        **dataclasses.asdict(found),
        "schema": SCHEMA,
        "study": recipe.plan.study,
        "size": recipe.plan.size,
        "recipe": f"“{recipe.label}” ({last['model']} on {last['data']})",
        "arm_id": recipe.arm_id,
        "metric": metric,
        "runs": len(pool),
        "device": last["device"],
        "threads": last["threads"],
        "torch": last["torch"],
        "harness": __version__,
        "data_fingerprint": last["data_fingerprint"],
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
