"""`harness run`: reconcile, train what is missing, mirror, report. Does nothing the second time."""

from __future__ import annotations

import argparse
import sys

from harness.cli import DONE, INTERRUPTED, SOME_FAILED
from harness.commands.plugins import store_plugins
from harness.commands.report import is_up_to_date, write_report
from harness.commands.workspace import (
    Workspace,
    load_plan,
    mirror,
    report_folder,
    require_data,
    workspace,
)
from harness.display import plan_line
from harness.progress_display import ProgressDisplay
from harness.scheduling.base import INTERRUPTED as RUN_INTERRUPTED
from harness.scheduling.base import Job, Scheduler
from harness.study.machine import Machine
from harness.study.plan import Plan
from harness.study.problems import Problem, StudyError
from harness.study.records import FAILED
from harness.training.entry import run_one


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    require_data(args, plan, place)
    print(plan_line(plan), flush=True)
    todo = [run for run in plan.runs if not run.done]
    statuses = _train(args, plan, place) if todo else {}
    interrupted = RUN_INTERRUPTED in statuses.values()
    if not args.no_report and not interrupted:
        _report(args, plan, place)
    if interrupted:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return SOME_FAILED if FAILED in statuses.values() else DONE


def _train(args: argparse.Namespace, plan: Plan, place: Workspace) -> dict[str, str]:
    from harness.scheduling.machines import detect_devices
    from harness.tracking.live import LiveMirror

    devices = detect_devices()
    scheduler = _scheduler(args, place, devices)
    jobs = _jobs(plan)
    folders = [place.folder(run.run_id) for run in plan.runs]
    place.runs_dir.mkdir(parents=True, exist_ok=True)
    store_plugins(place.runs_dir)
    live = LiveMirror(lambda: mirror(plan, place.store()), folders)
    gpus = 0 if devices[0] == "cpu" else len(devices)
    try:
        with ProgressDisplay(plan, place.folder, gpus=gpus) as display:
            return scheduler.execute(jobs, run_one, display.watch)
    finally:
        trouble = live.close()
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


def _scheduler(args: argparse.Namespace, place: Workspace, devices: tuple[str, ...]) -> Scheduler:
    """Where the runs are executed. Local workers begin to import torch while the caller prepares the rest.

    Raises:
        StudyError: more workers than the devices may share.
    """
    machine = Machine(
        runs_dir=place.runs_dir, data_dir=place.data_dir, device=devices[0], exact=not args.fast
    )
    if args.on == "inline":
        from harness.scheduling.inline import Inline

        return Inline(machine)
    from harness.scheduling.local import Local, LocalSettings
    from harness.scheduling.machines import default_workers

    workers = args.workers or default_workers(devices, args.per_gpu)
    try:
        settings = LocalSettings(machine=machine, workers=workers, devices=devices, per_device=args.per_gpu)
    except ValueError as error:
        raise StudyError([Problem("--workers", 0, str(error))]) from None
    local = Local(settings)
    local.warm_up()
    return local


def _report(args: argparse.Namespace, plan: Plan, place: Workspace) -> None:
    out_dir = report_folder(args, plan)
    if is_up_to_date(plan, place, out_dir):
        print(f"report: {out_dir / 'report.md'} is up to date")
    else:
        mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
        print(write_report(plan, place, out_dir))
