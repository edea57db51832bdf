"""A report on a made-up study whose tables have credits: made plans, drawn runs, the real analysis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from harness.analysis import analyse
from harness.analysis.findings import Settings
from harness.reporting import ReportInput
from harness.study.plan import Plan
from tests.study.fakes import HEAD, plan_of

TRICKS = "[cosine, mixup, {label_smoothing: {eps: 0.2}}, zero_gamma]"
TABLES = {
    "ends": f"design: both_ends, tricks: {TRICKS}",
    "ways": f"design: both_ways, tricks: {TRICKS}",
    "columns": f"design: both_ends, tricks: {TRICKS}, columns: "
    "{wide: {model: {resnet50: {width: 2}}}, plain: {}}",
    "half": "design: fractional, tricks: [cosine, mixup, label_smoothing, zero_gamma, warmup]",
    "pile": "design: stack, rows: [{label: a}, {label: b, add: cosine}]",
}
EFFECTS = {"cosine": 1.5, "mixup": 0.8, "label_smoothing": 0.1, "zero_gamma": -0.6, "warmup": 0.3}
OVERLAP = -0.9  # of cosine and mixup
SETTINGS = Settings(smallest_effect_pp=0.5)


def credit_report(folder: Path, *keys: str, seeds: int = 3, sd: float = 0.2) -> ReportInput:
    """The report on some of `TABLES`."""
    text = "".join(f"  {key}: {{title: Table {key}, {TABLES[key]}}}\n" for key in keys)
    plan = plan_of(folder, f"{HEAD}tables:\n{text}", seeds=seeds)
    records = pd.DataFrame(_records(plan, sd))
    curves = pd.DataFrame(columns=["run_id", "arm_id", "seed", "epoch", "step", "val_top1"])
    return ReportInput(
        title="Credits",
        findings=analyse(plan, records, curves, SETTINGS),
        plan=plan,
        records=records,
        curves=curves,
        provenance={},
    )


def _records(plan: Plan, sd: float) -> list[Mapping[str, object]]:
    tricks = {cell.arm_id: cell.tricks for table in plan.tables for cell in table.cells}
    rng = np.random.default_rng(8)
    rows = []
    for run in plan.runs:
        on = tricks.get(run.arm_id, ())
        top1 = 80 + sum(EFFECTS[trick] for trick in on) + OVERLAP * ({"cosine", "mixup"} <= set(on))
        row = {
            "run_id": run.run_id,
            "arm_id": run.arm_id,
            "seed": run.seed,
            "status": "finished",
            "attempts": 1,
        }
        measured = {"top1": top1 + 0.1 * run.seed + sd * rng.normal(), "top5": 99.0, "loss": 0.4}
        rows.append({**row, **measured, "train_time_s": 10.0, "predictions": None, "test_images": 5000})
    return rows
