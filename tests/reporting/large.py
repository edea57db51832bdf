"""A large made-up study, analysed for real: long labels, columns, observers, quoted rows, claims, targets."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from harness.analysis import analyse
from harness.analysis.findings import Settings
from harness.reporting import ReportInput
from harness.spec import Arm, DataSpec, Member
from harness.study.plan import Claim
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained

COLUMNS = ("Efficient", "ResNet-50-D, batch 1,024", "MobileNet at half width")
SETTINGS = Settings(smallest_effect_pp=0.4)


def _grid(first: int, rows: int) -> list[Row]:
    """Rows times three columns, every row against the first one."""
    names = [f"Row {k}: all of the above, and one more change with a name that wraps" for k in range(rows)]
    return [
        Row(
            label=name,
            arm=trained(first + 3 * k + c),
            versus=names[0] if k else None,
            column=column,
            paper={"top1": 70.0 + 0.3 * k, "top5": 90.0 + 0.1 * k},
        )
        for k, name in enumerate(names)
        for c, column in enumerate(COLUMNS)
    ]


def _speed() -> list[Row]:
    names = ["Inception", "BN-Baseline", "BN-x5", "BN-x30", "BN-x5-Sigmoid", "Inception sigmoid, no BN"]
    steps = [31.0, 13.3, 2.1, 2.7, None, None]
    return [
        Row(
            label=name,
            arm=trained(400 + k),
            versus=names[k - 1] if k else None,
            paper={"top1": 72.2 + k} | ({} if step is None else {"steps_to_target_m": step}),
        )
        for k, (name, step) in enumerate(zip(names, steps, strict=True))
    ]


def _crops() -> list[Row]:
    one, other = trained(500), trained(501)
    rows = []
    for k, crops in enumerate((1, 10, 144)):
        arm = one if crops == 1 else observer(Member(arm=one.arm_id), crops=crops)
        versus = None if k == 0 else "1 model x 1 crop"
        rows.append(Row(label=f"1 model x {crops} crop{'s' * (crops > 1)}", arm=arm, versus=versus,
                        paper={"top5": 89.93 + k, "cost": float(crops)}))  # fmt: skip
        seven = observer(Member(arm=one.arm_id, runs=7), crops=crops)
        rows.append(Row(label=f"7 models x {crops} crop{'s' * (crops > 1)}", arm=seven, versus=rows[0].label,
                        paper={"top5": 91.91 + k, "cost": 7.0 * crops}))  # fmt: skip
    mixed = observer(Member(arm=one.arm_id), Member(arm=other.arm_id, runs=3))
    rows.append(Row(label="Another network", arm=other, versus="1 model x 1 crop"))
    rows.append(Row(label="One of the first and three of the other", arm=mixed, versus="Another network"))
    rows.append(Row(label="VGG (quoted)", arm=None, paper={"top5": 93.2}, note="Another group's number."))
    return rows


def _places() -> list[Row]:
    base = trained(600)
    smaller = Arm(recipe=replace(base.recipe, data=DataSpec(name="fashion_mnist", resolution=20)))
    part = DataSpec(name="fashion_mnist", resolution=32, args={"part": "last5"})
    tuned = Arm(recipe=replace(base.recipe, data=part), source=base.arm_id)
    extras = {"top1": 76.4, "top1_std": 0.12, "params_m": 25.557, "gflops": 3.8, "epoch_minutes": 13.1}
    return [
        Row(label="1.0 MobileNet-224", arm=base, paper=extras),
        Row(
            label="1.0 MobileNet-128", arm=smaller, versus="1.0 MobileNet-224", paper={**extras, "top1": 64.4}
        ),
        Row(label="Places365, fine-tuned", arm=tuned, versus="1.0 MobileNet-224", paper={"top1": 54.1}),
    ]


@cache
def large_report(seeds: int = 3, lost: float = 0.03) -> ReportInput:
    """Eight tables; `lost`: the probability that a run has no result."""
    tables = {
        "table2": _grid(0, 14),
        "table3": _grid(100, 4),
        "table4": [replace(row, column=None) for row in _grid(200, 20) if row.column == COLUMNS[0]],
        "figure3": _speed(),
        "table5": _crops(),
        "table7": _places(),
    }
    claims = [
        Claim(says="Batch normalisation alone needs fewer steps to Inception's accuracy",
              source="Fig. 3, 13.3 against 31.0 million steps", table="figure3", row="BN-Baseline",
              versus="Inception", measure="steps_to_target", expect="lower"),
        Claim(says="BN-x5 needs fewer steps to Inception's accuracy", source="Fig. 3, 2.1 against 31.0",
              table="figure3", row="BN-x5", versus="Inception", measure="steps_to_target", expect="lower"),
        Claim(says="Sigmoid units need fewer steps", source="nowhere", table="figure3", row="BN-x5-Sigmoid",
              versus="Inception", measure="steps_to_target", expect="lower"),
        Claim(says="BN-x30 ends higher than BN-x5", source="Fig. 3, 74.8 % against 73.0 %", table="figure3",
              row="BN-x30", versus="BN-x5"),
        Claim(says="144 crops are better than one", source="Table 3, 92.11 % against 89.93 %", table="table5",
              row="1 model x 144 crops", versus="1 model x 1 crop", measure="top5"),
        Claim(says="Seven networks are better than one", source="Table 3", table="table5",
              row="7 models x 1 crop", versus="1 model x 1 crop", measure="top5"),
        Claim(says="The training loss rises with the last change", source="Sec. 5.2", table="table2",
              row=tables["table2"][-1].label, versus=tables["table2"][0].label, measure="train_loss"),
        Claim(says="Quoted systems are worse", source="Table 5", table="table5", row="VGG (quoted)",
              versus="1 model x 1 crop", expect="lower"),
    ]  # fmt: skip
    plan = make_plan(tables, seeds=seeds, claims=claims, targets={"figure3": {"row": "Inception"}})
    levels = {arm_id: 78.0 + 0.9 * (place % 7) for place, arm_id in enumerate(plan.arms)}
    speed = [row.arm.arm_id for row in tables["figure3"] if row.arm]
    levels |= dict(zip(speed, (78, 79.5, 84, 86, 80, 30), strict=True))
    records, curves = frames_of(plan, levels, Noise(lost=lost))
    return ReportInput(
        title="A large made-up study",
        findings=analyse(plan, records, curves, SETTINGS),
        plan=plan,
        records=records,
        curves=curves,
        provenance={"harness": "0.1.0", "device": "cpu", "data": {"name": "fashion_mnist"}},
    )
