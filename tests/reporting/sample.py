"""A report's input made by hand: five tables shaped like the Bag of Tricks ones, three seeds.

The numbers are drawn from a fixed generator. They are test data: no claim about any trick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.analysis.findings import (
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    UNDECIDED,
    CellFinding,
    Effect,
    Findings,
    Level,
    Settings,
    TableFinding,
)
from harness.reporting import ReportInput
from harness.spec import Arm, DataSpec, ModelSpec, Recipe, TrickSpec, run_id
from harness.study.plan import Cell, PaperValue, Plan, PlannedRun, PlanTable

SEEDS = (0, 1, 2)
EPOCHS = 8
SD, T_QUANTILE = 0.3, 2.2
SETTINGS = Settings(smallest_effect_pp=0.4)


@dataclass(frozen=True)
class RowPlan:
    """One row of the sample: its label, its arm's number, its true effect, the printed values."""

    label: str
    arm: int | None
    gain: float
    top1: float | None
    top5: float | None
    versus: str | None = None
    column: str | None = None
    status: str = "memory"
    note: str | None = None


def _stack(
    labels: list[str], arms: list[int], gains: list[float], printed: list[tuple[float, float]]
) -> list[RowPlan]:
    versus = [None, *labels[:-1]]
    return [
        RowPlan(*row) for row in zip(labels, arms, gains, *zip(*printed, strict=True), versus, strict=True)
    ]


def _heuristics() -> list[RowPlan]:
    labels = ["Linear scaling", "+ LR warmup", "+ Zero γ", "+ No bias decay", "+ FP16"]
    low = [(75.87, 92.70), (76.03, 92.81), (76.19, 93.03), (76.16, 92.97), (76.15, 93.09)]
    high = [(75.17, 92.54), (75.93, 92.84), (76.37, 92.96), (76.03, 92.86), (76.21, 92.97)]
    rows = []
    for column, arms, gains, printed in (
        ("BS=256", [0, 1, 2, 3, 4], [0, 0.1, 0.9, -0.1, 0.05], low),
        ("BS=1024", [5, 6, 7, 8, 9], [-0.6, 0.5, 0.8, -0.9, 0.1], high),
    ):
        rows += [replace(row, column=column) for row in _stack(labels, arms, gains, printed)]
    return [
        row for label in labels for row in rows if row.label == label
    ]  # row by row, as the paper prints it


def _tables() -> dict[str, tuple[str, list[RowPlan]]]:
    reference = RowPlan(
        "Reference (He et al.)", None, 0, 75.3, 92.2, status="verified", note="quoted, not trained"
    )
    tweaks = _stack(
        ["ResNet-50", "ResNet-50-B", "ResNet-50-C", "ResNet-50-D"],
        [9, 10, 11, 12],
        [0, 0.6, 1.3, 0.2],
        [(76.21, 92.97), (76.66, 93.28), (76.87, 93.48), (77.16, 93.52)],
    )
    tweaks[-1] = replace(tweaks[-1], status="verified")
    refinements = [
        RowPlan("Efficient", 12, 0, 77.16, 93.52, status="verified"),
        RowPlan("+ cosine decay", 13, 0.9, 77.91, 93.81, "Efficient"),
        RowPlan("+ label smoothing", 14, 0.3, 78.31, 94.09, "+ cosine decay"),
        RowPlan("+ distill w/o mixup", 15, -1.4, 78.67, 94.36, "+ label smoothing"),
        RowPlan("+ 200 epochs (control)", 16, 1.1, None, None, "+ label smoothing"),
        RowPlan("+ mixup w/o distill", 17, -0.8, 79.15, 94.58, "+ 200 epochs (control)", status="verified"),
        RowPlan("+ distill w/ mixup", 18, 0.4, 79.29, 94.63, "+ mixup w/o distill", status="verified"),
    ]
    return {
        "table2": ("Baseline", [RowPlan("ResNet-50 baseline", 0, 0, 75.87, 92.7), reference]),
        "table3": (
            "Efficient training",
            _stack(["Baseline", "Efficient"], [0, 9], [0, 1.0], [(75.87, 92.7), (76.21, 92.97)]),
        ),
        "table4": ("Efficient-training heuristics", _heuristics()),
        "table5": ("Model tweaks", tweaks),
        "table6": ("Training refinements", refinements),
    }


def make_arms(count: int = 19) -> list[Arm]:
    """Arms that differ in their learning rate, and from the tenth on in a trick; the 16th has a teacher."""
    arms: list[Arm] = []
    for index in range(count):
        recipe = Recipe(
            model=ModelSpec(name="resnet50", args={"width": 0.25, "depth": (1, 1, 1, 1)}),
            data=DataSpec(name="fashion_mnist", resolution=32),
            epochs=EPOCHS,
            batch_size=32,
            lr=0.1 + 0.01 * index,
        )
        tricks = (TrickSpec(name="mixup", options={"alpha": 0.2}),) if index > 9 else ()
        arms.append(Arm(recipe=recipe, tricks=tricks, teacher=arms[10].arm_id if index == 15 else None))
    return arms


def make_report(settings: Settings = SETTINGS) -> ReportInput:
    """A whole study: everything finished except one diverged and one failed run of one row."""
    arms = make_arms()
    tables = _tables()
    rng = np.random.default_rng(7)
    level_of: dict[int, float] = {}
    for _, rows in tables.values():
        for row in rows:
            if row.arm is not None and row.arm not in level_of:
                above = next((r.arm for r in rows if r.label == row.versus and r.column == row.column), None)
                level_of[row.arm] = (84.0 if above is None else level_of[above]) + row.gain
    values = {arm: {s: level + SD * float(rng.normal()) for s in SEEDS} for arm, level in level_of.items()}
    del values[17][1], values[17][2]
    found = tuple(_table_finding(key, title, rows, arms, values) for key, (title, rows) in tables.items())
    findings = Findings(study="bag_of_tricks", size="mini", settings=settings, seeds=SEEDS, tables=found)
    plan = _plan(tables, arms)
    return ReportInput(
        title="Bag of Tricks for Image Classification",
        findings=findings,
        plan=plan,
        records=_records(plan, arms, values),
        curves=_curves(plan, arms, values, rng),
        provenance={
            "harness": "0.1.0", "commit": "0123abcd", "python": "3.11.9", "torch": "2.13.0", "device": "cpu",
            "machine": "2 cores", "data": {"name": "fashion_mnist", "fingerprint": "sha256:9f2c"},
        },
    )  # fmt: skip


def _level(values: dict[int, float], lost: bool) -> Level:
    n = len(values)
    mean = float(np.mean(list(values.values()))) if n else None
    sd = float(np.std(list(values.values()), ddof=1)) if n > 1 else None
    half = 4.303 * sd / n**0.5 if sd is not None else None
    return Level(
        n=n,
        diverged=1 if lost else 0,
        missing=1 if lost else 0,
        missing_reason="1 failed: out of memory" if lost else None,
        mean=mean,
        sd=sd,
        low=None if half is None or mean is None else mean - half,
        high=None if half is None or mean is None else mean + half,
        secondary={"top5": 99.0 + 0.01 * n, "loss": 0.4},
        values=values,
    )


def _verdict(estimate: float, half: float, n: int) -> tuple[str, str]:
    delta = SETTINGS.smallest_effect_pp
    if n < 3:
        return UNDECIDED, "about 9 more seeds would settle it"
    if estimate - half > 0:
        return HELPS, f"by at least {delta} pp" if estimate - half > delta else ""
    if estimate + half < 0:
        return HURTS, f"by at least {delta} pp" if estimate + half < -delta else ""
    if abs(estimate) + 0.8 * half < 1.2 * delta:
        return NO_DIFFERENCE, f"smaller than {delta} pp"
    return UNDECIDED, "about 4 more seeds would settle it"


def _effect(row: RowPlan, mine: dict[int, float], other: dict[int, float], paper: float | None) -> Effect:
    estimate = float(np.mean(list(mine.values())) - np.mean(list(other.values())))
    half = T_QUANTILE * SD * (1 / len(mine) + 1 / len(other)) ** 0.5
    verdict, qualifier = _verdict(estimate, half, len(mine))
    assert row.versus is not None
    return Effect(
        versus=row.versus,
        n=len(mine),
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        adjusted_low=estimate - 1.4 * half,
        adjusted_high=estimate + 1.4 * half,
        p=0.01,
        p_holm=0.04,
        df=24.0,
        flagged=row.arm == 17,
        new_images_low=estimate - 1.6 * half,
        new_images_high=estimate + 1.6 * half,
        detectable=0.74,
        prob_better=0.8,
        verdict=verdict,
        qualifier=qualifier,
        fragile=row.arm == 7,
        differences={seed: mine[seed] - other[seed] for seed in mine if seed in other},
        paper=paper,
        paper_status=None if paper is None else row.status,
        gap=None if paper is None else estimate - paper,
        gap_low=None if paper is None else estimate - paper - 1.5 * half,
        gap_high=None if paper is None else estimate - paper + 1.5 * half,
        agreement=None,
        more_seeds={"about 9": 9, "about 4": 4}.get(qualifier[:7]),
    )


def _cell_finding(
    row: RowPlan, rows: list[RowPlan], arms: list[Arm], values: dict[int, dict[int, float]]
) -> CellFinding:
    printed = {"top1": row.top1, "top5": row.top5}
    paper = {name: PaperValue(value=v, status=row.status) for name, v in printed.items() if v is not None}
    level = effect = None
    sentence = f"{row.label}: quoted, {row.top1} % in the paper."
    if row.arm is not None:
        level = _level(values[row.arm], row.arm == 17)
        sentence = f"{row.label}: {level.mean:.2f} % ({level.n} seeds), the reference."
        above = next((r for r in rows if r.label == row.versus and r.column == row.column), None)
        if above is not None and above.arm is not None:
            both = row.top1 is not None and above.top1 is not None
            gain = round(row.top1 - above.top1, 2) if both else None  # type: ignore[operator]
            effect = _effect(row, values[row.arm], values[above.arm], gain)
            name = row.label if row.column is None else f"{row.label} ({row.column})"
            words = {HELPS: "helps", HURTS: "hurts", UNDECIDED: "is undecided"}.get(
                effect.verdict, "makes no detectable difference"
            )
            sentence = (
                f"{name} {words}: {effect.estimate:+.2f} pp [{effect.low:.2f}, {effect.high:.2f}] over "
                f"{row.versus}, {effect.n} seeds"
                + (f" (the paper: {gain:+.2f})." if gain is not None else ".")
            )
    return CellFinding(
        row=row.label,
        column=row.column,
        arm_id=None if row.arm is None else arms[row.arm].arm_id,
        tricks=(),
        paper=paper,
        note=row.note,
        level=level,
        effect=effect,
        sentence=sentence,
    )


def _table_finding(
    key: str, title: str, rows: list[RowPlan], arms: list[Arm], values: dict[int, dict[int, float]]
) -> TableFinding:
    cells = tuple(_cell_finding(row, rows, arms, values) for row in rows)
    return TableFinding(
        key=key,
        title=title,
        design="stack",
        columns=tuple(dict.fromkeys(row.column for row in rows)),
        cells=cells,
        note=None,
        contrasts=sum(cell.effect is not None for cell in cells),
        pooled_sd=SD,
        seed_correlation=0.1,
        paired_df_cost=2,
    )


def _plan(tables: dict[str, tuple[str, list[RowPlan]]], arms: list[Arm]) -> Plan:
    labels: dict[str, str] = {}
    plan_tables = []
    for key, (title, rows) in tables.items():
        cells = []
        for row in rows:
            arm_id = None if row.arm is None else arms[row.arm].arm_id
            if arm_id:
                labels.setdefault(arm_id, " / ".join(filter(None, (key, row.label, row.column))))
            cells.append(Cell(row=row.label, column=row.column, arm_id=arm_id, tricks=(), versus=row.versus))
        columns = tuple(dict.fromkeys(row.column for row in rows))
        plan_tables.append(
            PlanTable(key=key, title=title, design="stack", columns=columns, cells=tuple(cells))
        )
    runs = [
        PlannedRun(run_id=run_id(arm.arm_id, seed), arm_id=arm.arm_id, seed=seed, needs=(), macs=1e12)
        for seed in SEEDS
        for arm in arms
    ]
    header = {
        "paper": "he2019bag",
        "question": "Which tricks improve ResNet-50, by how much, alone and stacked?",
        "expect": {"cosine": "helps in the paper (+0.75 pp)"},
        "unknown": ["The order of the colour augmentations.", "Whether the teacher saw mixup."],
    }
    return Plan(
        study="bag_of_tricks",
        size="mini",
        seeds=SEEDS,
        header=header,
        tables=tuple(plan_tables),
        arms={arm.arm_id: arm for arm in arms},
        arm_labels=labels,
        runs=runs,
        notes=("fp16 is replaced by bf16: CPUs have no fast FP16 convolutions.", "120 epochs become 8."),
    )


def _records(plan: Plan, arms: list[Arm], values: dict[int, dict[int, float]]) -> pd.DataFrame:
    number = {arm.arm_id: index for index, arm in enumerate(arms)}
    rows = []
    for run in plan.runs:
        top1 = values[number[run.arm_id]].get(run.seed)
        status = "finished" if top1 is not None else {1: "diverged", 2: "failed"}[run.seed]
        rows.append(
            {
                "run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed, "status": status, "attempts": 1,
                "top1": top1, "top5": None if top1 is None else 99.0, "loss": None if top1 is None else 0.4,
                "train_time_s": None if top1 is None else 11.5, "device": "cpu", "predictions": b"\x00",
                "started_s": 1.7e9, "ended_s": 1.7e9 + 12,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _curves(
    plan: Plan, arms: list[Arm], values: dict[int, dict[int, float]], rng: np.random.Generator
) -> pd.DataFrame:
    number = {arm.arm_id: index for index, arm in enumerate(arms)}
    rows = []
    for run in plan.runs:
        end = values[number[run.arm_id]].get(run.seed)
        if end is None:
            continue
        for epoch in range(1, EPOCHS + 1):
            gap = 30 * np.exp(-0.7 * epoch) + 0.4 * rng.normal() * (epoch < EPOCHS)
            rows.append(
                {
                    "run_id": run.run_id,
                    "arm_id": run.arm_id,
                    "seed": run.seed,
                    "epoch": epoch,
                    "val_top1": end - gap,
                }
            )
    return pd.DataFrame(rows)
