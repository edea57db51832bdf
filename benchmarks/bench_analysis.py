"""What the analysis and the formats of a large study cost: 100 arms x 20 seeds x 10,000 test images.

    python benchmarks/bench_analysis.py [--arms 100] [--seeds 20] [--images 10000] [--repeats 3] [--out FILE]

The study is made up: a baseline and rows that are each compared with it, in one table (the largest Holm
family, fit and figure) or, with `--tables K`, in K tables. Each figure is the median of `--repeats`:

- `analyse`: from the frames of records and curves to the findings, per-image predictions (T2) included;
- `render`: every format and figure, written to a folder.

Wall time, and beside it CPU time of this process, which other processes on the machine disturb less.
`--profile` prints where the time goes instead.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures
import numpy as np
import pandas as pd

from harness.analysis import analyse
from harness.analysis.findings import Findings, Settings
from harness.reporting import ReportInput, render
from harness.spec import Arm, DataSpec, ModelSpec, Recipe, run_id
from harness.study.plan import Cell, PaperValue, Plan, PlannedRun, PlanTable

EPOCHS, STEPS_PER_EPOCH = 8, 400
SETTINGS = Settings(smallest_effect_pp=0.2)
SEED_SD_PP = 0.3
ANALYSIS_S, RENDER_S = 2.0, 10.0  # goals


def main() -> None:
    options = parse()
    plan = make_plan(options.arms, options.seeds, options.tables)
    records, curves = frames(plan, options.images)
    if options.profile:
        findings = profiled(lambda: analyse(plan, records, curves, SETTINGS))
        with tempfile.TemporaryDirectory() as name:
            profiled(lambda: render(report_of(plan, records, curves, findings), Path(name)))
        return
    table = figures.Figures()
    tables = "one table" if options.tables == 1 else f"{options.tables} tables"
    what = f"{options.arms} arms x {options.seeds} seeds x {options.images:,} images, {tables}"
    findings = measure(
        table, f"analyse {what}", lambda: analyse(plan, records, curves, SETTINGS), options, ANALYSIS_S
    )
    report = report_of(plan, records, curves, findings)
    with tempfile.TemporaryDirectory() as name:
        measure(table, "render every format of it", lambda: render(report, Path(name)), options, RENDER_S)
    table.save(options.out)


def parse() -> argparse.Namespace:
    parser = figures.parser(__doc__)
    parser.add_argument("--arms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--tables", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    return parser.parse_args()


def measure(
    table: figures.Figures,
    what: str,
    call: Callable[[], Any],
    options: argparse.Namespace,
    goal_s: float | None,
) -> Any:
    """Two rows: wall and CPU time. Returns what the last call returned."""
    wall_s, cpu_s = [], []
    for _ in range(options.repeats):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        result = call()
        wall_s.append(time.perf_counter() - began_s)
        cpu_s.append(time.process_time() - began_cpu_s)
    table.add(what, wall_s, "s", goal_s)
    table.add("the same, CPU time", cpu_s, "s")
    return result


def profiled(call: Callable[[], Any]) -> Any:
    profile = cProfile.Profile()
    result = profile.runcall(call)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return result


def make_plan(arms: int, seeds: int, tables: int) -> Plan:
    """`arms` arms in `tables` tables; the first arm of each is what its rows are compared with."""
    base = Recipe(
        model=ModelSpec(name="resnet50"), data=DataSpec(name="fashion_mnist", resolution=32), epochs=EPOCHS
    )
    return plan_for(
        [Arm(recipe=replace(base, lr=0.001 * (index + 1))) for index in range(arms)], seeds, tables
    )


def plan_for(made: list[Arm], seeds: int, tables: int) -> Plan:
    """The same for given arms."""
    shares = np.array_split(np.arange(len(made)), tables)
    found = [_table(f"table{k + 1}", [made[int(i)] for i in share]) for k, share in enumerate(shares)]
    labels = {cell.arm_id: f"{table.key} / {cell.row}" for table in found for cell in table.cells}
    runs = [
        PlannedRun(run_id=run_id(arm.arm_id, seed), arm_id=arm.arm_id, seed=seed, needs=(), macs=1e12)
        for seed in range(seeds)
        for arm in made
    ]
    return Plan(
        study="benchmark",
        size="mini",
        seeds=tuple(range(seeds)),
        header={"paper": None, "question": "What does a large study cost?", "metric": "top1", "smoke": False},
        tables=tuple(found),
        arms={arm.arm_id: arm for arm in made},
        arm_labels=labels,
        runs=runs,
    )


def _table(key: str, arms: list[Arm]) -> PlanTable:
    cells = tuple(
        Cell(
            row=f"Row {index}",
            column=None,
            arm_id=arm.arm_id,
            tricks=(),
            versus="Row 0" if index else None,
            paper={"top1": PaperValue(value=76.0 + 0.01 * index, status="verified")},
        )
        for index, arm in enumerate(arms)
    )
    return PlanTable(key=key, title=f"Title of {key}", design="rows", columns=(None,), cells=cells)


def frames(plan: Plan, images: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every run finished: an accuracy that its per-image bits have, and a curve of `EPOCHS` points."""
    rng = np.random.default_rng(0)
    ease = rng.normal(1.2, 1.0, images)  # some images are hard for every network
    gains = {arm_id: 0.02 * (place % 7) for place, arm_id in enumerate(plan.arms)}
    records, curves = [], []
    for run in plan.runs:
        ability = gains[run.arm_id] + SEED_SD_PP / 30 * rng.normal()
        right = ease + ability + 0.5 * rng.standard_normal(images) > 0
        top1 = 100.0 * float(right.mean())
        own = {"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed}
        results = {"top1": top1, "top5": min(100.0, top1 + 9), "loss": 2 - top1 / 100, "train_loss": 0.5}
        about = {"status": "finished", "attempts": 1, "train_time_s": 10.0, "test_images": images}
        about |= {"error": None, "reason": None, "device": "a CPU", "started_s": 1.7e9, "ended_s": 1.7e9 + 12}
        records.append({**own, **about, **results, "predictions": np.packbits(right).tobytes()})
        for epoch in range(1, EPOCHS + 1):
            point = {"epoch": float(epoch), "step": STEPS_PER_EPOCH * epoch, "train_loss": 2.0 / epoch}
            curves.append({**own, **point, "val_top1": top1 - 40 * float(np.exp(-epoch))})
    return pd.DataFrame(records), pd.DataFrame(curves)


def report_of(plan: Plan, records: pd.DataFrame, curves: pd.DataFrame, findings: Findings) -> ReportInput:
    return ReportInput(
        title="A benchmark",
        findings=findings,
        plan=plan,
        records=records,
        curves=curves,
        provenance={"harness": "made up", "device": "a CPU"},
    )


if __name__ == "__main__":
    main()
