"""`harness run`: reconcile, train what is missing, look at the results, mirror, report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.budget import LEAST_S, Budget, short_of_seeds, within_budget
from harness.commands.data import (
    THOROUGH,
    DataNow,
    Watch,
    again,
    counts_of,
    look_at_records,
    renew,
    wrong_starts,
)
from harness.commands.display import plan_line
from harness.commands.floors import AfterTheFirstBlock, FloorsBeside, hopeless_by_now, measure_floors
from harness.commands.plan import declare, read_anew
from harness.commands.progress import ProgressDisplay
from harness.commands.report import GrowingReport, open_report, settings_of, up_to_date, write_report, written
from harness.commands.step_times import estimate
from harness.commands.workspace import (
    Workspace,
    asked_part,
    load_plan,
    load_with_data,
    mirror,
    project_folder,
    require_data,
    require_none,
    store_plugins,
    workspace,
)
from harness.errors import DONE, INTERRUPTED, SOME_FAILED, Problem, StudyError, counted
from harness.runs.state import LookRecord, look, write_blocks
from harness.scheduling.base import INTERRUPTED as RUN_INTERRUPTED
from harness.scheduling.base import Job, Progress, Scheduler
from harness.scheduling.base import Watch as Watcher
from harness.scheduling.queue import in_this_order
from harness.spec import ENDED, FAILED, Machine
from harness.study.expand import grow
from harness.study.part import breadth_first
from harness.study.plan import Plan, PlannedRun, runs_at_most
from harness.training import PRELOAD, SCRIPT_PRELOAD, run_one

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import CellFinding, Findings
    from harness.slurm.controller import Slurm

# Block after block: train what is missing, look at the results, plan the next block.
#
# What is settled is the analysis' to say (`harness.analysis.looks`), where a run is trained the
# scheduler's; neither knows of the other.


MOST_NAMED = 4  # comparisons in one line

Train = Callable[[Plan], Mapping[str, str]]
"""Executes what is not done of a plan's runs, and says what came of each: run_id -> status."""

Wanted = Callable[[Plan], Sequence[PlannedRun]]
"""Which of a plan's runs are to be trained, in the plan's order."""


def all_runs(plan: Plan) -> Sequence[PlannedRun]:
    return plan.runs


@dataclass(slots=True, kw_only=True)
class StudyProgress:
    """How far a study has come in this command."""

    plan: Plan
    statuses: dict[str, str] = field(default_factory=dict)  # run_id -> status, of what was executed
    says: str = ""  # how much the early stops saved; "" for a fixed design


def run_blocks(
    plan: Plan,
    place: Workspace,
    train: Train,
    say: Callable[[str], None],
    *,
    submits_only: bool,
    wanted: Wanted = all_runs,
) -> StudyProgress:
    """Train what is missing; of an adaptive study then look at the results and go on with the next block.

    Returns when every comparison is settled, the budget is spent, or something keeps a block from being
    complete. A run that failed here is not tried again with the next block. Each look is kept in the folder
    of runs before its block starts, so that the same command goes on from there.

    submits_only: come back after the first block that has anything to do; nothing is known of it yet.
    wanted: which runs of a plan are to be trained. Looks are at whole tables: one of which a part is trained
    waits for the rest.
    """
    progress = StudyProgress(plan=plan)
    while True:
        block = _to_train(progress, wanted)
        if block is not None:
            progress.statuses.update(train(block))
            if submits_only or RUN_INTERRUPTED in progress.statuses.values():
                return progress
        grown = _look_and_grow(progress, place, say) if plan.is_adaptive else None
        if grown is None:
            return progress
        progress.plan = grown


def saved(plan: Plan) -> str:
    """What the early stops of an adaptive study were worth by now."""
    most, needed = runs_at_most(plan), len(plan.runs)
    return (
        f"adaptive seeds: {needed} runs in place of {most} with {plan.looks[-1]} seeds for every arm;"
        f" stopping early saved {most - needed} ({1 - needed / most:.0%})"
    )


def _to_train(progress: StudyProgress, wanted: Wanted) -> Plan | None:
    """The plan without the runs that were tried in this command already; None: nothing is to be trained."""
    runs = [run for run in wanted(progress.plan) if run.run_id not in progress.statuses or run.done]
    return replace(progress.plan, runs=runs) if any(not run.done for run in runs) else None


def _look_and_grow(progress: StudyProgress, place: Workspace, say: Callable[[str], None]) -> Plan | None:
    """The plan with its next block, after telling what was seen and keeping it; None: there is none."""
    from harness.analysis.looks import next_block

    plan = progress.plan
    summaries = look_at_records(plan, place.runs_dir, place.data_dir).summaries
    records = records_of(plan, place, summaries)
    wanted = next_block(plan, records, settings_of(plan))
    hopeless = hopeless_by_now(plan, place, summaries) if wanted else ""
    grown = grow(plan, wanted) if wanted and not hopeless else None
    waiting = sum(status not in _NO_LONGER_AWAITED for status in records["status"])
    if grown is None and waiting:
        say(f"look {_which(plan)} waits for {counted(waiting, 'run')} without an outcome")
        return None
    seen = _seen(plan, records, grown)
    if hopeless:
        seen = seen._replace(says=f"{seen.says}; no further seeds, as nothing could be tested: {hopeless}")
    say(seen.says)
    write_blocks(place.runs_dir, grown or plan, [seen])
    if grown is None:
        progress.says = saved(plan)
        return None
    look_at_records(grown, place.runs_dir, place.data_dir)
    return grown if len(grown.runs) > len(plan.runs) else None


_NO_LONGER_AWAITED = ENDED | {FAILED}


def records_of(plan: Plan, place: Workspace, summaries: Mapping[str, Mapping[str, Any]]) -> DataFrame:
    """One row per run of the plan, from the run folders: arm_id, seed, status, and the metrics of its end."""
    import pandas as pd

    views = look(plan, place.runs_dir, summaries)
    rows: list[dict[str, Any]] = []
    for run in plan.runs:
        summary = summaries.get(run.run_id, {})
        about = {"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed}
        view = views[run.run_id]
        rows.append({**summary.get("metrics", {}), **about, "status": view.state, "reason": view.message})
    return pd.DataFrame(rows)


def _seen(plan: Plan, records: DataFrame, grown: Plan | None) -> LookRecord:
    """What a look showed, in one line."""
    import pandas as pd

    from harness.analysis import analyse

    no_curves = pd.DataFrame(columns=["arm_id", "seed", "step", "epoch", "val_top1"])
    compared = dict(_comparisons(analyse(plan, records, no_curves, settings_of(plan))))
    settled = [
        f"{_name(cell)} {cell.effect.verdict}"
        for cell in compared.values()
        if cell.effect and cell.effect.settled_at
    ]
    seeds, total = len(plan.seeds), len(compared)
    where = f"look {_which(plan)} ({counted(seeds, 'seed')})"
    says = f"{where}: {len(settled)} of {counted(total, 'comparison')} settled"
    if settled:
        says += f" ({'; '.join(settled[:MOST_NAMED])}{_and_more(len(settled) - MOST_NAMED)})"
    if len(settled) < total:
        says += f"; {_what_follows(total - len(settled), plan, grown)}"
    return LookRecord(seeds=seeds, settled=len(settled), comparisons=total, says=says)


def _what_follows(left: int, plan: Plan, grown: Plan | None) -> str:
    """For the comparisons that are not settled."""
    if grown is not None:
        further = counted(len(grown.runs) - len(plan.runs), "further run")
        return f"{left} {'goes' if left == 1 else 'go'} on to {len(grown.seeds)} seeds: {further}"
    if plan.look == len(plan.looks):
        return f"{left} undecided, the budget is spent"
    return f"{left} cannot be evaluated"


def _comparisons(findings: Findings) -> Iterator[tuple[tuple[str, str, str], CellFinding]]:
    """(table, arm, arm that it is compared with) -> the first cell that shows it."""
    for table in findings.tables:
        arms = {(cell.column, cell.row): cell.arm_id for cell in table.cells}
        seen = set()
        for cell in table.cells:
            versus = arms.get((cell.column, cell.effect.versus)) if cell.effect else None
            if cell.arm_id is None or versus is None or versus == cell.arm_id:
                continue
            key = (table.key, cell.arm_id, versus)
            if key not in seen:
                seen.add(key)
                yield key, cell


def _name(cell: CellFinding) -> str:
    return f"{cell.row} / {cell.column}" if cell.column else cell.row


def _which(plan: Plan) -> str:
    return f"{plan.look} of {len(plan.looks)}"


def _and_more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""


# `harness run`: reconcile, train what is missing, mirror, report. Does nothing the second time.


def main(args: argparse.Namespace) -> int:
    _check_options(args)
    place, budget = workspace(args), Budget(args.budget, least_s=0.0 if args.on == "slurm" else LEAST_S)
    if (project := project_folder(args.study)) != Path():
        print(f"project: {project.resolve()}, which has the study and its runs", file=sys.stderr)
    plan, found = _checked(args, place)
    mine = _mine(args, plan)
    if args.dry_run:
        return _dry_run(args, mine, place)
    if renew(mine, place.runs_dir, _of_plan(mine, found), _say):
        plan, _ = load_with_data(args, place, how=THOROUGH)
        mine = _mine(args, plan)
    watch = Watch(mine, place.data_dir)
    require_none(args, plan, watch.look_through())
    if args.on != "slurm":
        estimate(mine, place.data_dir, measure=True)
    print(
        plan_line(mine, hint=args.on != "slurm") + _elsewhere(args, mine) + read_anew(mine, place), flush=True
    )
    train = _Trainer(args, place, budget)
    if any(not run.done for run in mine.runs):
        train.get_ready(mine)
    print(declare(plan, place), flush=True)
    with watch, FloorsBeside(mine, place, is_idle=args.on != "local") as floors:
        progress = run_blocks(
            plan,
            place,
            train,
            _say,
            submits_only=args.detach,
            wanted=lambda plan: _mine(args, plan).runs,
        )
        is_spent = budget.is_spent()
        if RUN_INTERRUPTED in progress.statuses.values() and not is_spent:
            floors.stop()
    code = _ended(args, place, progress, is_spent=is_spent)
    if args.open and not (train.growing and train.growing.is_open):
        open_report(written(args, plan))
    return code


def _ended(args: argparse.Namespace, place: Workspace, progress: StudyProgress, *, is_spent: bool) -> int:
    """Write the report and say what came of the command. Returns: the exit code."""
    plan, statuses = progress.plan, progress.statuses
    if args.detach and statuses:
        print(f"submitted and left alone; {_again(args)}{_next_block(plan)}")
        return DONE
    interrupted = RUN_INTERRUPTED in statuses.values()
    reported = DONE
    if not args.no_report:
        reported = _report(args, plan, place, at_once=interrupted and not is_spent)
    if progress.says:
        print(progress.says)
    if interrupted and is_spent:
        _say_what_is_left(args, place)
    if interrupted:
        print(_interrupted(args, is_spent=is_spent), file=sys.stderr)
        return INTERRUPTED
    return SOME_FAILED if FAILED in statuses.values() else reported


def _say_what_is_left(args: argparse.Namespace, place: Workspace) -> None:
    mine = _mine(args, load_plan(args, place))
    done = sum(run.done for run in mine.runs)
    print(f"the budget of {args.budget.says} is spent: {done} of {counted(len(mine.runs), 'run')} have ended")
    for line in short_of_seeds(mine):
        print(line)


def _mine(args: argparse.Namespace, plan: Plan) -> Plan:
    """The part of the plan that was asked for, or all of it."""
    part = asked_part(args, plan)
    return part.plan if part else plan


def _of_plan(plan: Plan, found: DataNow) -> DataNow:
    """What was found of these runs."""
    own = {run.run_id for run in plan.runs}
    why = {run_id: key for run_id, key in found.why.items() if run_id in own}
    return found._replace(why=why, others={run_id: found.others[run_id] for run_id in why})


def _elsewhere(args: argparse.Namespace, plan: Plan) -> str:
    """Why a plan for a cluster has no seconds."""
    unknown = args.on == "slurm" and any(run.time_s is None and not run.done for run in plan.runs)
    return " (seconds are not known: this machine is not the cluster)" if unknown else ""


def _checked(args: argparse.Namespace, place: Workspace) -> tuple[Plan, DataNow]:
    """The plan, and which records saw other data than are there now.

    Raises:
        StudyError: a mistake in the study, data that are missing, or rows that cannot be trained.
    """
    plan, found = load_with_data(args, place, how=THOROUGH)
    part = asked_part(args, plan)
    mine = part.plan if part else plan
    if part:
        print(part.line, file=sys.stderr)
    notes = require_data(args, mine, place)
    counts = counts_of(mine, place.data_dir)
    require_none(args, plan, [*counts.problems, *wrong_starts(mine)])
    changed = [again(text) for text in found.says] if args.dry_run else []
    for text in (*notes, *counts.notes, *changed):
        print(f"data: {text}", file=sys.stderr)
    return plan, found


def _dry_run(args: argparse.Namespace, plan: Plan, place: Workspace) -> int:
    print(plan_line(plan), file=sys.stderr)
    if plan.is_adaptive and all(run.done for run in plan.runs):
        print("a look at the results is due, which decides on the next block", file=sys.stderr)
    print(_slurm(args, plan, place).scripts(_jobs(plan)), end="")
    return DONE


def _check_options(args: argparse.Namespace) -> None:
    """
    Raises:
        StudyError: options that mean nothing where the runs are executed.
    """
    slurm_only = {"--cluster": args.cluster, "--at-most": args.at_most}
    slurm_only |= {"--dry-run": args.dry_run, "--detach": args.detach}
    elsewhere = {
        "--workers": (args.workers, "runs_side_by_side"),
        "--per-gpu": (args.per_gpu != 1, "runs_side_by_side"),
        "--processes": (args.processes > 1, "processes"),
    }
    wrong = []
    if args.on == "slurm":
        for name, (given, key) in elsewhere.items():
            if given:
                wrong.append(Problem(name, 0, f"on Slurm, the cluster file says it: {key}"))
    else:
        wrong = [Problem(name, 0, "only with --on slurm") for name, given in slurm_only.items() if given]
    wrong += _wrong_with_budget(args)
    if args.open and (args.no_report or args.detach or args.dry_run):
        wrong.append(Problem("--open", 0, "there will be no report to open"))
    if wrong:
        raise StudyError(wrong)


def _wrong_with_budget(args: argparse.Namespace) -> list[Problem]:
    if args.budget is None:
        return []
    if args.detach or args.dry_run:
        option = "--detach" if args.detach else "--dry-run"
        return [Problem("--budget", 0, f"a budget is watched by the command itself; leave {option} out")]
    if args.budget.of_gpus and args.on != "slurm":
        return [Problem("--budget", 0, "GPU-hours are counted with --on slurm; here, say a time such as 2h")]
    return []


def _again(args: argparse.Namespace) -> str:
    return (
        f"`harness run {args.study} --on slurm` with the same options watches it, `harness status` tells how"
        " far it is, `harness cancel` stops it"
    )


def _interrupted(args: argparse.Namespace, *, is_spent: bool) -> str:
    if is_spent:
        return "not finished; the same command goes on from here"
    if args.on == "slurm":
        return f"not finished; jobs that were submitted go on without this command. {_again(args)}"
    return "interrupted; the same command goes on from here"


def _next_block(plan: Plan) -> str:
    """What follows the block that was submitted."""
    if not plan.is_adaptive or plan.look == len(plan.looks):
        return ""
    return "; once these have ended, the same command looks at the results and submits the next block"


def _say(text: str) -> None:
    print(text, flush=True)


class _Trainer:
    """Executes what is missing of a plan, where the command line says; one scheduler for all blocks."""

    def __init__(self, args: argparse.Namespace, place: Workspace, budget: Budget) -> None:
        self._args, self._place, self._budget = args, place, budget
        self._scheduler: tuple[Scheduler, int] | None = None
        self.growing: GrowingReport | None = None

    def get_ready(self, plan: Plan) -> tuple[Scheduler, int]:
        """Where the runs are executed, as `_scheduler` says. Called early, it refuses early."""
        if self._scheduler is None:
            self._scheduler = _scheduler(self._args, plan, self._place, self._budget)
        return self._scheduler

    def __call__(self, plan: Plan) -> dict[str, str]:
        from harness.tracking.mirror import LiveMirror

        args, place = self._args, self._place
        scheduler, gpus = self.get_ready(plan)
        jobs = _in_order(plan) if self._budget.limit else _jobs(plan)
        folders = [place.folder(run.run_id) for run in plan.runs]
        place.runs_dir.mkdir(parents=True, exist_ok=True)
        store_plugins(place.runs_dir, plan)
        live = None if args.detach else LiveMirror(lambda: mirror(plan, place.store()), folders)
        workers = "Slurm jobs" if args.on == "slurm" else "workers"
        try:
            with ProgressDisplay(plan, place.folder, gpus=gpus, workers=workers) as display:
                display.more = self._budget.line
                watch = AfterTheFirstBlock(plan, place, self._shown(plan, display))
                return scheduler.execute(jobs, run_one, within_budget(self._budget, args, jobs, watch))
        finally:
            self._stop_growing()
            trouble = live.close() if live else None
            if trouble:
                print(trouble, file=sys.stderr)

    def _shown(self, plan: Plan, display: ProgressDisplay) -> Watcher:
        """What is told of the scheduler's progress: the display, and who writes the report as it grows."""
        if self._args.no_report or self._args.detach:
            return display.watch
        was_opened = self.growing is not None and self.growing.is_open
        growing = self.growing = GrowingReport(self._args, plan)
        growing.is_open = was_opened

        def watched(progress: Progress) -> None:
            display.watch(progress)
            growing.watch(progress, display.left_s)

        return watched

    def _stop_growing(self) -> None:
        if self.growing is not None:
            self.growing.close()


def _in_order(plan: Plan) -> list[Job]:
    """What is missing, breadth first, at costs that keep this order whatever is measured."""
    jobs = {job.run_id: job for job in _jobs(plan)}
    return in_this_order([jobs[run.run_id] for run in breadth_first(plan) if not run.done])


def _jobs(plan: Plan) -> list[Job]:
    """What is missing; costs in seconds where all are known, else in multiply-adds."""
    todo = [run for run in plan.runs if not run.done]
    priced = all(run.time_s is not None for run in todo)
    return [
        Job(spec=plan.spec(run), needs=run.needs, cost=run.time_s if priced else run.macs)  # type: ignore[arg-type]
        for run in todo
    ]


def _scheduler(
    args: argparse.Namespace, plan: Plan, place: Workspace, budget: Budget
) -> tuple[Scheduler, int]:
    """Where the runs are executed, and on how many GPUs at most.

    Local workers begin to import torch while the caller prepares the rest.

    Raises:
        StudyError: more workers than the devices may share, or a mistake in the cluster file.
    """
    if args.on == "slurm":
        slurm = _slurm(args, plan, place)
        gpus = slurm.settings.cluster.resources.gpus
        return slurm, gpus * slurm.settings.agents
    from harness.runs.provenance import detect_devices, wrong_visible

    if wrong := wrong_visible():
        raise StudyError([Problem("CUDA_VISIBLE_DEVICES", 0, wrong)])
    devices = detect_devices()
    gpus = 0 if devices[0] == "cpu" else len(devices)
    _require_gpu_to_compile(args, gpus, "of this machine")
    machine = Machine(
        runs_dir=place.runs_dir,
        data_dir=place.data_dir,
        device=devices[0],
        processes=args.processes,
        exact=not args.fast,
        compile=args.compile,
    )
    if args.on == "inline":
        from harness.scheduling.local import Inline

        return Inline(machine, budget.is_spent), gpus
    if args.per_gpu == "auto":
        from harness.scheduling.local import runs_beside

        args.per_gpu, why = runs_beside(machine, devices, _jobs(plan))
        print(f"runs that share a GPU: {args.per_gpu} ({why})", file=sys.stderr)
    preload = SCRIPT_PRELOAD if plan.scripts else PRELOAD
    return _local(args, (machine, devices), budget, preload), gpus


def _require_gpu_to_compile(args: argparse.Namespace, gpus: int, where: str) -> None:
    """
    Raises:
        StudyError: --compile, and the runs are to train on a CPU.
    """
    if args.compile and not gpus:
        text = f"is for GPUs, and there is none {where}; on a CPU each layer is checked and used as it is"
        raise StudyError([Problem("--compile", 0, text)])


def _local(
    args: argparse.Namespace, here: tuple[Machine, tuple[str, ...]], budget: Budget, preload: tuple[str, ...]
) -> Scheduler:
    from harness.scheduling.base import default_workers
    from harness.scheduling.local import Local, LocalSettings

    machine, devices = here
    workers = args.workers or max(1, default_workers(devices, args.per_gpu) // args.processes)
    try:
        settings = LocalSettings(
            machine=machine, workers=workers, devices=devices, per_device=args.per_gpu, preload=preload
        )
    except ValueError as error:
        raise StudyError([Problem("--workers", 0, str(error))]) from None
    local = Local(settings, budget.is_spent)
    local.warm_up()
    return local


def _slurm(args: argparse.Namespace, plan: Plan, place: Workspace) -> Slurm:
    """
    Raises:
        StudyError: a mistake in the cluster file, or --compile where it asks for no GPU.
    """
    from harness.slurm.cluster import find_cluster
    from harness.slurm.controller import Slurm, SlurmSettings

    cluster = find_cluster(args.cluster)
    resources = (cluster.resources, *(shape.resources for shape in cluster.shapes))
    _require_gpu_to_compile(args, max(each.gpus for each in resources), "in the cluster file (`gpus:`)")
    settings = SlurmSettings(
        runs_dir=place.runs_dir,
        data_dir=place.data_dir,
        cluster=cluster,
        study=plan.study,
        size=plan.size,
        exact=not args.fast,
        compile=args.compile,
        at_most=args.at_most,
        detach=args.detach,
    )
    return Slurm(settings)


def _report(args: argparse.Namespace, plan: Plan, place: Workspace, *, at_once: bool) -> int:
    """at_once: without what takes long, because somebody waits for the end of the command."""
    part = asked_part(args, plan)
    if at_once and not any(place.folder(run.run_id).summary.exists() for run in plan.runs):
        return DONE
    if not at_once:
        measure_floors(part.plan if part else plan, place)
    if folder := up_to_date(args, plan, place):
        print(f"report: {folder / 'report.md'} is up to date")
        return DONE
    mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
    return write_report(args, plan, place, part)
