"""Certificates from tables that cannot tell, verdicts that competent tables lose, and the answers to claims.

Whole studies go through `harness.analysis.analyse`: a table of 9 recipes, 8 compared with the first, and 8
claims of which the paper prints the sizes. Accuracies in percent; the floor lies at 82.7, chance at 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from targets import Measured

from harness.analysis import analyse
from harness.analysis.findings import (
    COMPARABLE,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_OF_THAT_SIZE,
    OPPOSITE,
    OTHER_SIZE,
    SAME_DIRECTION,
    Findings,
    Settings,
)
from harness.analysis.sizes import log_odds
from harness.spec import Arm, DataSpec, ModelSpec, Recipe
from harness.study.conditions import setting_of
from harness.study.plan import Cell, Claim, PaperValue, Plan, PlannedRun, PlanTable

ROWS = 9
FLOOR, CHANCE = 82.7, 10.0
PAPER_BASE, PAPER_SD = 76.0, 0.15
NO_CURVES = pd.DataFrame(columns=["arm_id", "seed", "step", "epoch", "val_top1"])
SETTLED = (HELPS, HURTS, NO_DIFFERENCE)
UP = (COMPARABLE, OTHER_SIZE, SAME_DIRECTION)
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What one kind of simulated study looks like."""

    seeds: int = 3
    sd: float = 0.3
    delta: float = 1.0
    updates: int = 1000
    control: bool = False
    floor: float = FLOOR


ARMS = tuple(
    Arm(
        recipe=Recipe(
            model=ModelSpec(name="m"), data=DataSpec(name="d", resolution=32), epochs=10, lr=number + 1.0
        )
    )
    for number in range(ROWS)
)


def plan_of(study: Study, paper: Floats) -> Plan:
    """`paper`: (ROWS,) printed accuracies."""
    cells = tuple(
        Cell(
            row=str(k), column=None, arm_id=arm.arm_id, tricks=(), versus=None if k == 0 else "0",
            paper={"top1": PaperValue(value=float(value), status="verified")},
        )
        for k, (arm, value) in enumerate(zip(ARMS, paper, strict=True))
    )  # fmt: skip
    table = PlanTable(
        key="t", title="T", design="rows", columns=(None,), cells=cells,
        control=("8", "0") if study.control else None,
    )  # fmt: skip
    claims = tuple(
        Claim(says=str(k), source="", table="t", row=str(k), versus="0",
              expect="higher" if paper[k] >= paper[0] else "lower")
        for k in range(1, ROWS)
    )  # fmt: skip
    seeds = tuple(range(study.seeds))
    runs = [
        PlannedRun(run_id=f"{k}-{seed}", arm_id=arm.arm_id, seed=seed, needs=(), macs=1.0)
        for seed in seeds
        for k, arm in enumerate(ARMS)
    ]
    return Plan(
        study="s", size="mini", seeds=seeds, header={"metric": "top1", "smoke": False}, tables=(table,),
        arms={arm.arm_id: arm for arm in ARMS}, arm_labels={arm.arm_id: str(k) for k, arm in enumerate(ARMS)},
        runs=runs, claims=claims,
    )  # fmt: skip


def floors_of(study: Study) -> dict[str, Any]:
    """As a report keeps them."""
    entry = {
        "schema": 1, "setting": setting_of(ARMS[0].recipe.data), "data": "d", "problem": None,
        "fingerprint": "f", "classes": 10, "train_images": 10_000, "test_images": 10_000, "channels": 1,
        "pixels": 32, "chance": CHANCE, "guessing": 10.49, "neighbours": study.floor - 1,
        "linear": study.floor,
    }  # fmt: skip
    return {"schema": 1, "why": "", "floors": [entry]}


def found_in(study: Study, values: Floats, plan: Plan, *, conditions: bool = True) -> Findings:
    """The findings on one simulated study; `values`: (ROWS, seeds)."""
    records = pd.DataFrame(
        {
            "run_id": [f"{k}-{seed}" for k in range(ROWS) for seed in range(study.seeds)],
            "arm_id": [arm.arm_id for arm in ARMS for _ in range(study.seeds)],
            "seed": [seed for _ in range(ROWS) for seed in range(study.seeds)],
            "status": "finished",
            "top1": np.clip(values, 0.0, 100.0).ravel(),
            "steps": study.updates,
            "data_fingerprint": "f",
        }
    )
    settings = Settings(smallest_effect_pp=study.delta)
    return analyse(plan, records, NO_CURVES, settings, floors_of(study) if conditions else None)


def words_of(found: Findings) -> list[str]:
    return [cell.effect.verdict for cell in found.tables[0].cells if cell.effect is not None]


# Tables in which nothing can be seen: how often do they certify something?


def _equal(level: float) -> Callable[[np.random.Generator, Study], Floats]:
    def draw(rng: np.random.Generator, study: Study) -> Floats:
        return level + study.sd * rng.normal(size=(ROWS, study.seeds))

    return draw


def _collapsed(rng: np.random.Generator, study: Study) -> Floats:
    """Competent, but that one run of every row but the first learnt nothing, each in a seed of its own."""
    values = 86.0 + study.sd * rng.normal(size=(ROWS, study.seeds))
    values[np.arange(1, ROWS), rng.integers(0, study.seeds, ROWS - 1)] = CHANCE
    return values


def _collapsed_alike(rng: np.random.Generator, study: Study) -> Floats:
    """One seed spoils every row: equal differences."""
    values = 86.0 + study.sd * rng.normal(size=(ROWS, study.seeds))
    values[:, rng.integers(study.seeds)] = CHANCE
    return values


def _half_below(rng: np.random.Generator, study: Study) -> Floats:
    """The first four rows are competent; the others, which are counted, are two points below the floor."""
    values = 86.0 + study.sd * rng.normal(size=(ROWS, study.seeds))
    values[5:] -= 86.0 - (FLOOR - 2.0)
    return values


INCOMPETENT: tuple[tuple[str, Study, Callable[[np.random.Generator, Study], Floats], slice], ...] = (
    ("every recipe at chance", Study(), _equal(CHANCE), slice(None)),
    ("constant answers", Study(sd=0.0), _equal(CHANCE), slice(None)),
    ("nothing to be learnt, floor at chance", Study(sd=0.2, floor=10.2), _equal(CHANCE), slice(None)),
    ("a collapsed run in every row but the first", Study(), _collapsed, slice(None)),
    ("one of 10 seeds collapses in every row", Study(seeds=10, floor=30.0), _collapsed_alike, slice(None)),
    ("1 point below the floor, sd .3", Study(), _equal(FLOOR - 1.0), slice(None)),
    ("half a point below the floor, sd .3", Study(), _equal(FLOOR - 0.5), slice(None)),
    ("1 point below the floor, 10 seeds, sd .5", Study(seeds=10, sd=0.5), _equal(FLOOR - 1.0), slice(None)),
    ("four rows below the floor", Study(), _half_below, slice(4, None)),
    ("300 updates", Study(updates=300), _equal(86.0), slice(None)),
    ("saturated, 99.4 % and delta 1", Study(sd=0.05), _equal(99.4), slice(None)),
)


def false_certificates(repetitions: int) -> list[Measured]:
    """Comparisons called "no difference" and claims called comparable or none of the paper's size."""
    rows = []
    for name, study, draw, counted in INCOMPETENT:
        rng = np.random.default_rng(7)
        plan = plan_of(study, PAPER_BASE + np.r_[0.0, np.full(ROWS - 1, 0.5)])
        false = total = 0
        for _ in range(repetitions):
            found = found_in(study, draw(rng, study), plan)
            words = words_of(found)[counted]
            answers = [claim.answer for claim in found.claims][counted]
            false += sum(word == NO_DIFFERENCE for word in words)
            false += sum(answer in (COMPARABLE, NOT_OF_THAT_SIZE) for answer in answers)
            total += len(words) + len(answers)
        rows.append(
            Measured(
                quantity="false certificates",
                setting=name,
                value=false / total,
                repetitions=total,
                high=0.01,
                group="tables that cannot tell",
            )
        )
    return rows


# Competent tables: how many of the verdicts that they had do they lose?


EFFECTS = np.array([0.0, 0.0, 0.0, 0.0, 0.3, 1.0, 2.0, -2.0, 4.0])  # points; the last row is the control
COMPETENT = (
    ("3 seeds, sd .15, delta 1", Study(sd=0.15)),
    ("5 seeds, sd .3, delta 1", Study(seeds=5, sd=0.3)),
    ("10 seeds, sd .5, delta 1", Study(seeds=10, sd=0.5)),
    ("3 seeds, sd .5, delta 1, with a control", Study(sd=0.5, control=True)),
    ("5 seeds, sd .5, delta 1, with a control", Study(seeds=5, sd=0.5, control=True)),
)


def verdicts_lost(repetitions: int) -> list[Measured]:
    """Of helps, hurts and no difference. Rows are 3 to 9 points above the floor."""
    rows = []
    for name, study in COMPETENT:
        rng = np.random.default_rng(8)
        plan = plan_of(study, PAPER_BASE + EFFECTS)
        had = lost = 0
        for _ in range(repetitions):
            values = 86.5 + EFFECTS[:, None] + study.sd * rng.normal(size=(ROWS, study.seeds))
            before = words_of(found_in(study, values, plan, conditions=False))
            after = words_of(found_in(study, values, plan))
            had += sum(word in SETTLED for word in before)
            lost += sum(word in SETTLED and other != word for word, other in zip(before, after, strict=True))
        rows.append(
            Measured(
                quantity="verdicts lost to conditions",
                setting=name,
                value=lost / had,
                repetitions=had,
                high=0.02,
                group="competent tables",
            )
        )
    return rows


# Claims of competent tables: the rates that the answers promise.


def answers_to_claims(repetitions: int) -> list[Measured]:
    """8 claims whose sizes are printed, with the noise of printing; ours at 86 %, theirs at 76 %."""
    rows: list[Measured] = []
    for seeds in (3, 5, 10):
        study = Study(seeds=seeds)
        rows += _rates(study, repetitions)
    return rows


def _rates(study: Study, repetitions: int) -> Iterator[Measured]:
    rng = np.random.default_rng(9)
    printed = np.r_[0.0, np.full(ROWS - 1, 1.5)]
    size = float(log_odds(np.array([PAPER_BASE + 1.5]))[0] - log_odds(np.array([PAPER_BASE]))[0])
    same = 100.0 / (1.0 + math.exp(-float(log_odds(np.array([86.0]))[0]) - size)) - 86.0
    any_false = opposite = covered = intervals = no_size = comparable = 0
    for _ in range(repetitions):
        paper = PAPER_BASE + printed + PAPER_SD * rng.normal(size=ROWS)
        plan = plan_of(study, paper)
        noise = study.sd * rng.normal(size=(ROWS, study.seeds))
        null = found_in(study, 86.0 + noise, plan).claims
        any_false += any(claim.answer in UP for claim in null)
        opposite += any(claim.answer == OPPOSITE for claim in null)
        true = found_in(study, 86.0 + np.r_[0.0, np.full(ROWS - 1, same)][:, None] + noise, plan).claims
        no_size += sum(claim.answer == NOT_OF_THAT_SIZE for claim in true)
        comparable += sum(claim.answer == COMPARABLE for claim in true)
        for claim in true:
            if (
                claim.size is not None
                and claim.size.ratio_low is not None
                and claim.size.ratio_high is not None
            ):
                intervals += 1
                covered += claim.size.ratio_low <= 1.0 <= claim.size.ratio_high
    of, total = f"8 claims, {study.seeds} seeds", repetitions * (ROWS - 1)
    yield Measured(quantity="a claim confirmed without an effect", setting=of, value=any_false / repetitions,
                   repetitions=repetitions, high=0.05)  # fmt: skip
    yield Measured(quantity="a claim called opposite without an effect", setting=of,
                   value=opposite / repetitions, repetitions=repetitions, high=0.025)  # fmt: skip
    yield Measured(quantity="coverage of ours over the paper's", setting=of, value=covered / intervals,
                   repetitions=intervals, low=0.95)  # fmt: skip
    yield Measured(quantity="an effect of the paper's size called none", setting=of, value=no_size / total,
                   repetitions=total, high=0.025)  # fmt: skip
    yield Measured(quantity="an effect of the paper's size called comparable", setting=of,
                   value=comparable / total, repetitions=total)  # fmt: skip
