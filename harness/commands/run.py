"""`harness run`: reconcile, train what is missing, mirror, report. Does nothing the second time."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from harness.commands.adaptive import run_blocks
from harness.commands.counts import counts_of
from harness.commands.data_now import THOROUGH, DataNow, Watch, again, renew
from harness.commands.declare import declare
from harness.commands.plugins import store_plugins
from harness.commands.report import is_up_to_date, write_report
from harness.commands.step_times import estimate
from harness.commands.workspace import (
    Workspace,
    load_with_data,
    mirror,
    report_folder,
    require_data,
    require_none,
    workspace,
)
from harness.display import plan_line
from harness.progress_display import ProgressDisplay
from harness.scheduling.base import INTERRUPTED as RUN_INTERRUPTED
from harness.scheduling.base import Job, Scheduler
from harness.study.machine import Machine
from harness.study.plan import Plan
from harness.study.problems import DONE, INTERRUPTED, SOME_FAILED, Problem, StudyError
from harness.study.records import FAILED
from harness.training.entry import run_one

if TYPE_CHECKING:
    from harness.scheduling.slurm import Slurm


def main(args: argparse.Namespace) -> int:
    _check_options(args)
    place = workspace(args)
    plan, found = _checked(args, place)
    if args.dry_run:
        return _dry_run(args, plan, place)
    if renew(plan, place.runs_dir, found, _say):
        plan, _ = load_with_data(args, place, how=THOROUGH)
    watch = Watch(plan, place.data_dir)
    require_none(args, plan, watch.look_through())
    if args.on != "slurm":
        estimate(plan, place.data_dir, measure=True)
    print(plan_line(plan, hint=args.on != "slurm") + _elsewhere(args, plan), flush=True)
    train = _Trainer(args, place)
    if any(not run.done for run in plan.runs):
        train.get_ready(plan)
    print(declare(plan, place), flush=True)
    with watch:
        progress = run_blocks(plan, place, train, _say, submits_only=args.detach)
    plan, statuses = progress.plan, progress.statuses
    if args.detach and statuses:
        print(f"submitted and left alone; {_again(args)}{_next_block(plan)}")
        return DONE
    interrupted = RUN_INTERRUPTED in statuses.values()
    reported = DONE
    if not args.no_report and not interrupted:
        reported = _report(args, plan, place)
    if progress.says:
        print(progress.says)
    if interrupted:
        print(_interrupted(args), file=sys.stderr)
        return INTERRUPTED
    return SOME_FAILED if FAILED in statuses.values() else reported


def _elsewhere(args: argparse.Namespace, plan: Plan) -> str:
    """Why a plan for a cluster has no seconds."""
    unknown = any(run.time_s is None and not run.done for run in plan.runs)
    return (
        " (seconds are not known: this machine is not the cluster)" if args.on == "slurm" and unknown else ""
    )


def _checked(args: argparse.Namespace, place: Workspace) -> tuple[Plan, DataNow]:
    """The plan, and which records saw other data than are there now.

    Raises:
        StudyError: a mistake in the study, data that are missing, or rows that cannot be trained.
    """
    plan, found = load_with_data(args, place, how=THOROUGH)
    notes = require_data(args, plan, place)
    counts = counts_of(plan, place.data_dir)
    require_none(args, plan, counts.problems)
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
        "--per-gpu": (args.per_gpu > 1, "runs_side_by_side"),
        "--processes": (args.processes > 1, "processes"),
    }
    wrong = []
    if args.on == "slurm":
        for name, (given, key) in elsewhere.items():
            if given:
                wrong.append(Problem(name, 0, f"on Slurm, the cluster file says it: {key}"))
    else:
        wrong = [Problem(name, 0, "only with --on slurm") for name, given in slurm_only.items() if given]
    if wrong:
        raise StudyError(wrong)


def _again(args: argparse.Namespace) -> str:
    return (
        f"`harness run {args.study} --on slurm` with the same options watches it, `harness status` tells how"
        " far it is, `harness cancel` stops it"
    )


def _interrupted(args: argparse.Namespace) -> str:
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

    def __init__(self, args: argparse.Namespace, place: Workspace) -> None:
        self._args, self._place = args, place
        self._scheduler: tuple[Scheduler, int] | None = None

    def get_ready(self, plan: Plan) -> tuple[Scheduler, int]:
        """Where the runs are executed, as `_scheduler` says. Called early, it refuses early."""
        if self._scheduler is None:
            self._scheduler = _scheduler(self._args, plan, self._place)
        return self._scheduler

    def __call__(self, plan: Plan) -> dict[str, str]:
        from harness.tracking.live import LiveMirror

        args, place = self._args, self._place
        scheduler, gpus = self.get_ready(plan)
        jobs = _jobs(plan)
        folders = [place.folder(run.run_id) for run in plan.runs]
        place.runs_dir.mkdir(parents=True, exist_ok=True)
        store_plugins(place.runs_dir)
        live = None if args.detach else LiveMirror(lambda: mirror(plan, place.store()), folders)
        workers = "Slurm jobs" if args.on == "slurm" else "workers"
        try:
            with ProgressDisplay(plan, place.folder, gpus=gpus, workers=workers) as display:
                return scheduler.execute(jobs, run_one, display.watch)
        finally:
            trouble = live.close() if live else None
            if trouble:
                print(trouble, file=sys.stderr)


def _jobs(plan: Plan) -> list[Job]:
    """What is missing; costs in seconds where all are known, else in multiply-adds."""
    todo = [run for run in plan.runs if not run.done]
    priced = all(run.time_s is not None for run in todo)
    return [
        Job(spec=plan.spec(run), needs=run.needs, cost=run.time_s if priced else run.macs)  # type: ignore[arg-type]
        for run in todo
    ]


def _scheduler(args: argparse.Namespace, plan: Plan, place: Workspace) -> tuple[Scheduler, int]:
    """Where the runs are executed, and on how many GPUs at most.

    Local workers begin to import torch while the caller prepares the rest.

    Raises:
        StudyError: more workers than the devices may share, or a mistake in the cluster file.
    """
    if args.on == "slurm":
        slurm = _slurm(args, plan, place)
        gpus = slurm.settings.cluster.resources.gpus
        return slurm, gpus * slurm.settings.agents
    from harness.scheduling.machines import detect_devices

    devices = detect_devices()
    gpus = 0 if devices[0] == "cpu" else len(devices)
    machine = Machine(
        runs_dir=place.runs_dir,
        data_dir=place.data_dir,
        device=devices[0],
        processes=args.processes,
        exact=not args.fast,
    )
    if args.on == "inline":
        from harness.scheduling.inline import Inline

        return Inline(machine), gpus
    return _local(args, machine, devices), gpus


def _local(args: argparse.Namespace, machine: Machine, devices: tuple[str, ...]) -> Scheduler:
    from harness.scheduling.local import Local, LocalSettings
    from harness.scheduling.machines import default_workers

    workers = args.workers or max(1, default_workers(devices, args.per_gpu) // args.processes)
    try:
        settings = LocalSettings(machine=machine, workers=workers, devices=devices, per_device=args.per_gpu)
    except ValueError as error:
        raise StudyError([Problem("--workers", 0, str(error))]) from None
    local = Local(settings)
    local.warm_up()
    return local


def _slurm(args: argparse.Namespace, plan: Plan, place: Workspace) -> Slurm:
    """
    Raises:
        StudyError: a mistake in the cluster file.
    """
    from harness.scheduling.cluster import find_cluster
    from harness.scheduling.slurm import Slurm, SlurmSettings

    settings = SlurmSettings(
        runs_dir=place.runs_dir,
        data_dir=place.data_dir,
        cluster=find_cluster(args.cluster),
        study=plan.study,
        size=plan.size,
        exact=not args.fast,
        at_most=args.at_most,
        detach=args.detach,
    )
    return Slurm(settings)


def _report(args: argparse.Namespace, plan: Plan, place: Workspace) -> int:
    out_dir = report_folder(args, plan)
    if is_up_to_date(plan, place, out_dir):
        print(f"report: {out_dir / 'report.md'} is up to date")
        return DONE
    mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
    return write_report(plan, place, out_dir)
