"""Whole plans made by hand, with records and curves as `harness.tracking.collect` returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.spec import Arm, DataSpec, Member, ModelSpec, Recipe, RunSpec
from harness.study.plan import Cell, Claim, PaperValue, Plan, PlannedRun, PlanTable

EPOCHS, STEPS_PER_EPOCH = 6, 40
RECIPE = Recipe(
    model=ModelSpec(name="inception_v3"), data=DataSpec(name="fashion_mnist", resolution=32), epochs=EPOCHS
)


def trained(number: int, **changes: Any) -> Arm:
    """An arm of its own for every number."""
    return Arm(recipe=replace(RECIPE, lr=0.01 * (1 + number), **changes))


def observer(*members: Member, crops: int = 144) -> Arm:
    return Arm(recipe=replace(RECIPE, eval_crops=crops), observes=members)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a hand-made table; `arm` None: quoted."""

    label: str
    arm: Arm | None
    versus: str | None = None
    column: str | None = None
    paper: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None


def plan_table(key: str, rows: Sequence[Row], target: Mapping[str, Any] | None = None) -> PlanTable:
    cells = tuple(
        Cell(
            row=row.label,
            column=row.column,
            arm_id=None if row.arm is None else row.arm.arm_id,
            tricks=(),
            versus=row.versus,
            paper={name: PaperValue(value=value, status="verified") for name, value in row.paper.items()},
            note=row.note,
        )
        for row in rows
    )
    columns = tuple(dict.fromkeys(row.column for row in rows))
    title = f"Title of {key}"
    return PlanTable(key=key, title=title, design="rows", columns=columns, cells=cells, target=target)


def make_plan(
    tables: Mapping[str, Sequence[Row]],
    *,
    seeds: int = 3,
    claims: Sequence[Claim] = (),
    targets: Mapping[str, Mapping[str, Any]] | None = None,
    more: Sequence[Arm] = (),
) -> Plan:
    """The plan of some tables. `more`: arms without a row (teachers, sources, members), trained too."""
    arms: dict[str, Arm] = {arm.arm_id: arm for arm in more}
    labels = {arm_id: f"arm / {place}" for place, arm_id in enumerate(arms)}
    for key, rows in tables.items():
        for row in rows:
            if row.arm is not None:
                arms.setdefault(row.arm.arm_id, row.arm)
                labels.setdefault(row.arm.arm_id, " / ".join(filter(None, (key, row.label, row.column))))
    runs: dict[str, PlannedRun] = {}
    for seed in range(seeds):
        for arm in arms.values():
            _add(RunSpec(arm=arm, seed=seed), arms, runs)
    return Plan(
        study="made_up",
        size="mini",
        seeds=tuple(range(seeds)),
        header={"paper": "nobody2026", "question": "Does it render?", "metric": "top1", "smoke": False},
        tables=tuple(plan_table(key, rows, (targets or {}).get(key)) for key, rows in tables.items()),
        arms=arms,
        arm_labels=labels,
        runs=list(runs.values()),
        claims=tuple(claims),
    )


def _add(spec: RunSpec, arms: Mapping[str, Arm], runs: dict[str, PlannedRun]) -> None:
    for member in spec.arm.observes:
        for index in range(member.runs):
            _add(RunSpec(arm=arms[member.arm], seed=spec.seed + 1000 * index), arms, runs)
    runs.setdefault(
        spec.run_id,
        PlannedRun(run_id=spec.run_id, arm_id=spec.arm.arm_id, seed=spec.seed, needs=spec.needs, macs=1e12),
    )


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How the runs of a made-up plan come out."""

    seed: int = 0
    sd: float = 0.3
    lost: float = 0.0  # probability that a run failed, diverged, stopped or was never started
    metrics: tuple[str, ...] = ()


def frames_of(plan: Plan, levels: Mapping[str, float], noise: Noise) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records and curves of every run of the plan. `levels`: arm_id -> true top-1 (default 80)."""
    rng = np.random.default_rng(noise.seed)
    records, curves = [], []
    for run in plan.runs:
        status = "finished"
        if rng.random() < noise.lost:
            status = str(rng.choice(["failed", "diverged", "stopped", "never started"]))
        if status == "never started":
            continue
        arm = plan.arms[run.arm_id]
        level = levels.get(run.arm_id, 80.0)
        top1 = float(np.clip(level + noise.sd * rng.normal(), 0, 100)) if status == "finished" else None
        records.append(_record(run, arm, status, top1, noise))
        if not arm.observes:
            curves += _curve(run, level if top1 is None else top1, status, rng)
    columns = ["run_id", "arm_id", "seed", "epoch", "step", "val_top1"]
    return pd.DataFrame(records, columns=list(_record(plan.runs[0], RECIPE_ARM, "finished", 1.0, noise))), (
        pd.DataFrame(curves, columns=columns)
    )


RECIPE_ARM = trained(0)


def _record(run: PlannedRun, arm: Arm, status: str, top1: float | None, noise: Noise) -> dict[str, Any]:
    trains = not arm.observes
    more = {name: None if top1 is None else top1 / 100 for name in noise.metrics}
    return {
        "run_id": run.run_id,
        "arm_id": run.arm_id,
        "seed": run.seed,
        "status": status,
        "attempts": 1,
        "top1": top1,
        "top5": None if top1 is None else min(100.0, top1 + 15),
        "loss": None if top1 is None else 2 - top1 / 100,
        "train_loss": 2.2 - top1 / 100 if trains and top1 is not None else None,
        "train_time_s": 10.0 if trains else 0.0,
        "error": "OutOfMemoryError" if status == "failed" else None,
        "reason": "out of memory" if status == "failed" else None,
        "predictions": None,
        "test_images": 1000,
        **more,
    }


def _curve(run: PlannedRun, end: float, status: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Two points an epoch that rise to `end`; a run that did not finish has half of them."""
    points = 2 * EPOCHS if status == "finished" else EPOCHS
    rows = []
    for point in range(1, points + 1):
        epoch = point / 2
        top1 = end - 40 * np.exp(-epoch) + 0.2 * rng.normal()
        place = {"epoch": epoch, "step": round(STEPS_PER_EPOCH * epoch), "val_top1": float(top1)}
        rows.append({"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed, **place})
    return rows
