"""The Bag of Tricks study at size `gpu` on generated data: wall time and runs per minute.

Every arm goes through the scheduler of `harness run`, several at a time on the device, teachers before their
students, in the exact mode. By default a stated part of the study is run: fewer seeds, and every training cut
in the same proportion. The wall time of the whole study is then extrapolated from measured training times.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from gpu_parts.rows import Add, Row
from gpu_parts.settings import Settings
from gpu_parts.study_plan import StudyPlan, find_plan, in_time, rewrite, with_teachers
from harness.models.costs import lookup
from harness.runs.folder import RunFolder
from harness.scheduling.base import Job, Progress
from harness.scheduling.local import Local, LocalSettings
from harness.spec import ENDED, FAILED, Arm, DataSpec, Recipe, RunSpec
from harness.training import run_one

TINY_DATA = {"classes": 10, "size": 32, "channels": 3, "train": 64, "test": 50}


def measure(settings: Settings, add: Add) -> None:
    plan, origin = find_plan(settings.plan)
    arms = part_of(plan, settings)
    seeds = min(settings.study_seeds, plan.seeds)
    jobs = make_jobs(arms, seeds)
    machine = settings.machine("study")
    local = LocalSettings(
        machine=machine,
        workers=settings.study_workers,
        devices=(settings.device,),
        per_device=settings.study_workers,
    )
    started_s = time.monotonic()
    deadline = Deadline(started_s + settings.study_seconds)
    ended = Local(local).execute(jobs, run_one, deadline.watch)
    wall_s = time.monotonic() - started_s
    part = describe_part(plan, settings, arms=len(arms), seeds=seeds) + f" ({origin})"
    add_rows(add, ended, wall_s, part, workers=settings.study_workers)
    summaries = [RunFolder(machine.runs_dir / job.run_id).read_summary() for job in jobs]
    if all(each is not None and each["status"] in ENDED for each in summaries) and not settings.tiny:
        longer, more_seeds = 1 / share_of(plan, settings), plan.seeds / seeds
        whole_s = extrapolate(summaries, wall_s, longer=longer, more_seeds=more_seeds)
        runs = len(plan.arms) * plan.seeds
        note = f"extrapolated, not run: {runs} runs of full length with {plan.seeds} seeds"
        add(Row(what="the whole study", value=whole_s / 60, unit="min", note=note))


class Deadline:
    """Interrupts the scheduler as Ctrl-C does, once, when the time is over."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def watch(self, progress: Progress) -> None:
        if time.monotonic() > self.at_s and (progress.waiting or progress.running):
            self.at_s = float("inf")
            signal.raise_signal(signal.SIGINT)


def share_of(plan: StudyPlan, settings: Settings) -> float:
    """The length of the trainings relative to the study's; the first arm is the baseline."""
    baseline = next(iter(plan.arms.values())).recipe.epochs
    return min(1.0, settings.study_epochs / baseline)


def part_of(plan: StudyPlan, settings: Settings) -> dict[str, Arm]:
    """The arms that are run: all of them, with shorter trainings; in the tiny form three, far smaller."""
    arms = plan.arms
    if settings.tiny:
        student = next(arm_id for arm_id, arm in arms.items() if arm.teacher is not None)
        arms = rewrite(with_teachers(plan, [next(iter(arms)), student]), tiny)[0]
    return rewrite(arms, partial(in_time, share=share_of(plan, settings)))[0]


def tiny(recipe: Recipe) -> Recipe:
    args = {**recipe.model.args, "depth": (1, 1, 1, 1), "width": 1 / 16}
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, args=args),
        data=DataSpec(name="generated", resolution=32, args=TINY_DATA),
        batch_size=8,
        lr=0.01,
    )


def make_jobs(arms: Mapping[str, Arm], seeds: int) -> list[Job]:
    specs = [RunSpec(arm=arm, seed=seed) for seed in range(seeds) for arm in arms.values()]
    return [
        Job(spec=spec, needs=() if spec.teacher_run_id is None else (spec.teacher_run_id,), cost=cost(spec))
        for spec in specs
    ]


def cost(spec: RunSpec) -> float:
    """Multiply-adds of a training, up to a common factor."""
    recipe = spec.arm.recipe
    classes = recipe.data.args["classes"]
    _, macs = lookup(recipe.model.name, recipe.model.args, resolution=recipe.data.resolution, classes=classes)
    return macs * recipe.epochs


def describe_part(plan: StudyPlan, settings: Settings, *, arms: int, seeds: int) -> str:
    share = share_of(plan, settings)
    if share == 1 and seeds == plan.seeds and arms == len(plan.arms):
        return "the whole study"
    return f"part: {arms} of {len(plan.arms)} arms, {seeds} of {plan.seeds} seeds, epochs x {share:.3g}"


def add_rows(add: Add, ended: Mapping[str, str], wall_s: float, part: str, *, workers: int) -> None:
    """What was run and how fast; a run that failed, or none that ended, is a failure of the section."""
    counts = {status: list(ended.values()).count(status) for status in sorted(set(ended.values()))}
    note = ", ".join(f"{count} {status}" for status, count in counts.items())
    done = sum(status in ENDED for status in ended.values())
    what = f"gpu size, {workers} runs at a time"
    if FAILED in counts or not done:
        add(Row(what=what, failed=note, note=part))
        return
    add(Row(what=f"{what}: wall time", value=wall_s, unit="s", note=f"{part}; {note}"))
    rate = 60 * done / wall_s
    add(Row(what=f"{what}: rate", value=rate, unit="runs/min", note=f"{part}; start of workers included"))


def extrapolate(summaries: list[Any], wall_s: float, *, longer: float, more_seeds: float) -> float:
    """Wall seconds of the whole study, with as many runs under way on average as in the part.

    Training time grows with the length (`longer`) and the seeds, set-up and evaluation with the seeds only.
    """
    train_s = sum(each["train_time_s"] for each in summaries)
    busy_s = sum(each["wall_time_s"] for each in summaries)
    whole_s = (train_s * longer + (busy_s - train_s)) * more_seeds
    return whole_s * wall_s / busy_s
