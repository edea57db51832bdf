"""A claim is answered only as far as its own seeds carry, and what is missing is named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.analysis import analyse
from harness.analysis.findings import NO, NOT_SETTLED, YES, Settings
from harness.analysis.intervals import fewest_for, sign_test
from harness.spec import Member
from harness.study.plan import Claim
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained

BASE, NEW, THIRD = trained(0), trained(1), trained(2)
CROPS = observer(Member(arm=BASE.arm_id))
ROWS = [
    Row(label="base", arm=BASE, paper={"top1": 70.0, "steps_to_target_m": 30.0}),
    Row(label="new", arm=NEW, versus="base", paper={"top1": 71.5, "steps_to_target_m": 2.0}),
    Row(label="again", arm=BASE, versus="base"),
    Row(label="crops", arm=CROPS, versus="base"),
    Row(label="quoted", arm=None, paper={"top1": 60.0}),
]


ARMS = {row.label: row.arm.arm_id for row in ROWS if row.arm}


def claim(**changes) -> Claim:
    said = Claim(says="new is better", source="Sec. 1", table="t", row="new", versus="base")
    return replace(said, **changes)


def answer(values, *claims, seeds=None, target=None, curves=None, edit=None):
    """The findings on claims; `values`: row -> top-1 of seeds 0, 1, ...; None: a run that is not there."""
    n = seeds or max(map(len, values.values()))
    plan = make_plan({"t": ROWS}, seeds=n, claims=claims, targets={"t": target} if target else None)
    records, made = frames_of(plan, {}, Noise())
    lookup = {(ARMS[row], s): v for row, column in values.items() for s, v in enumerate(column)}
    place = pd.Series([lookup.get((a, s)) for a, s in zip(records["arm_id"], records["seed"], strict=True)])
    records["top1"] = place.astype(float)
    records["train_loss"] = (3 - records["top1"] / 100).where(records["train_loss"].notna())
    records = records[records["top1"].notna()].reset_index(drop=True)
    if edit:
        edit(records)
    return analyse(plan, records, made if curves is None else curves, Settings()).claims


def one(values, *args, **more):
    found = answer(values, *(args or (claim(),)), **more)
    assert len(found) == 1
    return found[0]


FAR = {"base": [70.0, 70.2, 69.9, 70.1], "new": [71.0, 71.3, 70.8, 71.2]}


def test_the_interval_is_the_paired_t_interval_of_the_seeds():
    found = one(FAR)
    theirs = stats.ttest_rel(FAR["new"], FAR["base"])
    low, high = theirs.confidence_interval(0.95)
    assert (found.answer, found.n, found.why) == (YES, 4, "")
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.differences == pytest.approx({0: 1.0, 1: 1.1, 2: 0.9, 3: 1.1})
    assert (found.paper, found.paper_status) == (pytest.approx(1.5), "verified")


def test_the_expected_direction_decides_between_yes_and_no_and_a_wide_interval_settles_nothing():
    assert one(FAR, claim(expect="lower")).answer == NO
    assert one(FAR, claim(row="base", versus="new", expect="lower")).answer == YES
    wide = one({"base": [70.0, 70.0, 70.0], "new": [72.0, 69.9, 71.0]})
    assert (wide.answer, wide.low < 0 < wide.high) == (NOT_SETTLED, True)


def test_one_seed_settles_nothing():
    found = one({"base": [70.0], "new": [75.0]})
    assert (found.answer, found.n, found.low) == (NOT_SETTLED, 1, None)
    assert found.estimate == pytest.approx(5.0)
    assert found.why == "one seed: not settled"


def test_no_spread_is_no_certainty():
    found = one({"base": [70.0, 71.0, 72.0], "new": [71.0, 72.0, 73.0]})
    assert (found.answer, found.low, found.p) == (NOT_SETTLED, None, None)
    assert "the spread between seeds is unknown" in found.why


def test_missing_and_diverged_runs_are_named_and_left_out():
    def diverge(records):
        hit = (records["arm_id"] == NEW.arm_id) & (records["seed"] == 1)
        records.loc[hit, ["status", "top1"]] = ["diverged", None]

    values = {"base": [70.0, 70.2, 69.9, None], "new": [71.0, 71.3, 70.8, 71.2]}
    found = one(values, edit=diverge)
    assert found.n == 2
    assert set(found.differences) == {0, 2}
    assert found.why == "new: 1 diverged; base: 1 not run yet"


def test_more_than_one_diverged_run_settles_nothing():
    def diverge(records):
        hit = (records["arm_id"] == NEW.arm_id) & (records["seed"] < 2)
        records.loc[hit, "status"] = "diverged"

    found = one(FAR, edit=diverge)
    assert (found.answer, found.estimate, found.why) == (NOT_SETTLED, None, "new: 2 diverged")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"row": "quoted"}, "quoted is a quoted number, not trained here"),
        ({"row": "again"}, "both rows are the same run at this size"),
        ({"row": "nobody"}, "nobody is not in this table"),
        ({"table": "elsewhere"}, "new is not in this table"),
        ({"measure": "steps_to_target"}, "the table has no target accuracy"),
        ({"row": "crops", "measure": "train_loss"}, "crops: trains nothing, so that it has no such number"),
    ],
)
def test_what_cannot_be_answered_says_why(changes, why):
    found = one({**FAR, "crops": [72.0, 72.1, 72.3, 72.2]}, claim(**changes))
    assert (found.answer, found.n, found.estimate, found.why) == (NOT_SETTLED, 0, None, why)


def test_an_observer_is_paired_with_the_run_of_its_own_seed():
    found = one({**FAR, "crops": [71.0, 71.3, 70.8, 71.2]}, claim(row="crops"))
    assert (found.answer, found.n) == (YES, 4)


def test_measures_are_read_from_their_own_columns():
    loss = one(FAR, claim(measure="train_loss", expect="lower"))
    assert loss.estimate == pytest.approx(-np.mean([1.0, 1.1, 0.9, 1.1]) / 100)
    assert loss.answer == YES
    assert loss.paper is None


def test_holms_correction_is_over_all_claims_and_never_makes_an_answer_more_certain():
    weak = {"base": [70.0, 70.2, 69.9], "new": [71.0, 71.6, 70.6], "crops": [69.0, 71.0, 70.0]}
    alone = one(weak)
    assert (alone.answer, alone.answer_holm, alone.p_holm) == (YES, YES, pytest.approx(alone.p))
    several = answer(weak, claim(), *(claim(row="crops") for _ in range(9)))
    assert (several[0].answer, several[0].answer_holm) == (YES, NOT_SETTLED)
    assert several[0].p_holm == pytest.approx(10 * alone.p)
    assert several[0].p == alone.p


def curve(arm, seed, points):
    """(step, top-1) pairs, two points an epoch."""
    return [
        {"run_id": f"{arm.arm_id}{seed}", "arm_id": arm.arm_id, "seed": seed, "epoch": (k + 1) / 2,
         "step": step, "val_top1": top1}
        for k, (step, top1) in enumerate(points)
    ]  # fmt: skip


def curves(*runs):
    return pd.DataFrame([row for run in runs for row in curve(*run)])


STEPS = claim(measure="steps_to_target", expect="lower")


def test_steps_are_compared_as_a_ratio_with_a_t_interval_of_its_logarithm():
    frame = curves(
        *((BASE, s, [(100, 10), (200, 40), (300 + 100 * s, 60.0)]) for s in range(3)),
        *((NEW, s, [(50 + 10 * s, 70.0), (600, 80.0)]) for s in range(3)),
    )
    found = one({"base": [60.0] * 3, "new": [80.0] * 3}, STEPS, target={"top1": 60.0}, curves=frame)
    logs = np.log([50 / 300, 60 / 400, 70 / 500])
    width = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert found.estimate == pytest.approx(math.exp(logs.mean()))
    assert (found.low, found.high) == pytest.approx(
        (math.exp(logs.mean() - width), math.exp(logs.mean() + width))
    )
    assert found.differences == pytest.approx({0: 50 / 300, 1: 60 / 400, 2: 70 / 500})
    assert found.answer == YES
    assert found.paper == pytest.approx(2 / 30)


def censored(seeds, base_end=59.0):
    """`base` never reaches 60 %; `new` does at step 50 + seed."""
    frame = curves(
        *((BASE, s, [(100, 10), (300, base_end)]) for s in range(seeds)),
        *((NEW, s, [(50 + s, 70.0), (300, 80.0)]) for s in range(seeds)),
    )
    values = {"base": [base_end] * seeds, "new": [80.0] * seeds}
    return one(values, STEPS, target={"top1": 60.0}, curves=frame)


def test_a_run_that_never_reaches_the_target_is_slower_but_by_an_unknown_factor():
    few = censored(3)
    assert (few.answer, few.estimate, few.low, few.never_reached) == (NOT_SETTLED, None, None, 3)
    assert few.p == pytest.approx(0.25)
    assert "base: 3 never reached the target" in few.why
    assert "new took fewer steps in 3 and more in 0 of 3 seeds (sign test, p = 0.25" in few.why
    assert "from 6 seeds on" in few.why
    enough = censored(6)
    assert (enough.answer, enough.low, enough.p) == (YES, None, pytest.approx(2 / 64))


def test_two_runs_that_never_reach_the_target_say_nothing():
    frame = curves(*((arm, s, [(100, 10), (300, 20)]) for arm in (BASE, NEW) for s in range(6)))
    found = one({"base": [20.0] * 6, "new": [20.0] * 6}, STEPS, target={"top1": 60.0}, curves=frame)
    assert (found.answer, found.p, found.never_reached) == (NOT_SETTLED, 1.0, 12)


def test_a_run_that_stopped_earlier_than_the_other_one_arrived_says_nothing():
    frame = curves(
        *((BASE, s, [(100, 10), (900, 60.0)]) for s in range(6)),
        *((NEW, s, [(100, 10), (300, 59.0)]) for s in range(6)),
    )
    values = {"base": [60.0] * 6, "new": [59.0] * 6}
    both = answer(
        values, STEPS, replace(STEPS, row="base", versus="new"), target={"top1": 60.0}, curves=frame
    )
    assert [(found.answer, found.p) for found in both] == [(NOT_SETTLED, 1.0)] * 2


def test_the_sign_test_is_scipys():
    for signs in ([1] * 5 + [-1], [1, 1, -1, 0], [-1] * 9):
        up, n = sum(s > 0 for s in signs), sum(s != 0 for s in signs)
        assert sign_test(signs) == pytest.approx(stats.binomtest(up, n).pvalue)
    assert sign_test([1] * (fewest_for(0.05) - 1)) > 0.05 >= sign_test([1] * fewest_for(0.05))
