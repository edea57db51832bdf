"""Whatever a plan holds and whatever came of its runs: findings are finite, honest and free of order."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis import analyse
from harness.analysis.findings import NO, NOT_SETTLED, YES, Settings
from harness.spec import Arm, Member
from harness.study.plan import Claim
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained
from tests.analysis.tables import plain

MEASURES = ("top1", "top5", "loss", "train_loss", "steps_to_target")


def random_plan(seed: int):
    """Tables of trained, observing, fine-tuned and quoted rows that are compared with anything."""
    rng = np.random.default_rng(seed)
    arms = [trained(k) for k in range(4)]
    tuned = Arm(recipe=trained(7).recipe, source=arms[0].arm_id)
    pool: list[Arm | None] = [*arms, tuned, None]
    for _ in range(4):
        members = {str(rng.choice([arm.arm_id for arm in arms])): int(rng.integers(1, 4)) for _ in range(2)}
        crops = int(rng.choice([1, 10, 144]))
        pool.append(observer(*(Member(arm=arm, runs=runs) for arm, runs in members.items()), crops=crops))
    tables = {f"t{k}": random_rows(rng, pool) for k in range(2)}
    labels = [row.label for rows in tables.values() for row in rows] + ["nowhere"]
    claims = [
        Claim(
            says="so", source="there", table=str(rng.choice(["t0", "t1", "t2"])),
            row=str(rng.choice(labels)), versus=str(rng.choice(labels)),
            column=rng.choice([None, "x", "y"]), versus_column=rng.choice([None, "y"]),
            measure=str(rng.choice(MEASURES)), expect=str(rng.choice(["higher", "lower"])),
        )
        for _ in range(6)
    ]  # fmt: skip
    targets = {"t0": {"row": str(rng.choice(labels))}, "t1": {"top1": float(rng.choice([20.0, 79.9, 200.0]))}}
    seeds = int(rng.integers(1, 5))
    return make_plan(tables, seeds=seeds, claims=claims, targets=targets, more=arms)


def random_rows(rng, pool):
    columns = [None] if rng.random() < 0.5 else ["x", "y"]
    names = [f"r{k}" for k in range(int(rng.integers(1, 6)))]
    return [
        Row(
            label=name,
            column=column,
            arm=pool[int(rng.integers(len(pool)))],
            versus=None if rng.random() < 0.2 else str(rng.choice(names)),
            paper={"top1": 70.0, "params_m": 25.5, "steps_to_target_m": float(rng.integers(0, 3))},
        )
        for name in names
        for column in columns
        if rng.random() < 0.9 or column is None
    ] or [Row(label="r0", arm=pool[0])]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.6]), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_any_plan_with_any_outcome_gives_finite_findings_whatever_the_order(seed, lost, random):
    plan = random_plan(seed)
    records, curves = frames_of(plan, {}, Noise(seed=seed, lost=lost))
    found = analyse(plan, records, curves, Settings())
    first = json.dumps(plain(found), sort_keys=True)
    again = analyse(
        plan,
        records.sample(frac=1, random_state=random.randrange(99)),
        curves.sample(frac=1, random_state=random.randrange(99)),
        Settings(),
    )
    assert json.dumps(plain(again), sort_keys=True) == first
    own = analyse(
        plan, records[records["seed"].isin(plan.seeds)], curves[curves["seed"].isin(plan.seeds)], Settings()
    )
    assert json.dumps(plain(own), sort_keys=True) == first  # further members of ensembles are no row's runs
    for cell in (cell for table in found.tables for cell in table.cells):
        assert cell.sentence
        assert cell.level is None or cell.level.n <= len(plan.seeds)
    for claim in found.claims:
        is_honest(claim)


def is_honest(claim):
    assert claim.answer in (YES, NO, NOT_SETTLED)
    assert claim.answer_holm in (claim.answer, NOT_SETTLED)
    assert claim.why or claim.n > 0
    if claim.answer == NOT_SETTLED:
        return
    assert claim.n >= 2
    assert claim.p <= 0.05
    if claim.low is not None:
        null = 1.0 if claim.claim.measure == "steps_to_target" else 0.0
        up = claim.low > null
        assert up or claim.high < null
        assert (claim.answer == YES) == (up == (claim.claim.expect == "higher"))
