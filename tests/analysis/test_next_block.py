"""Which arms get more seeds, over a whole plan, and what an adaptive study's findings say."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.analysis import analyse
from harness.analysis.findings import HELPS, NO_DIFFERENCE, NOT_EVALUABLE, UNDECIDED, Settings
from harness.analysis.intervals import nominal_levels, repeated_p
from harness.analysis.looks import next_block
from harness.spec import Member
from harness.study.plan import Claim
from tests.analysis.plans import Row, make_plan, observer, trained
from tests.analysis.tables import plain

LOOKS = (3, 5, 8)
SETTINGS = Settings(smallest_effect_pp=0.5)
BASE, BIG, SMALL, OTHER = (trained(k) for k in range(4))
NAMES = {arm.arm_id: name for arm, name in [(BASE, "base"), (BIG, "big"), (SMALL, "small"), (OTHER, "other")]}
LEVELS = {BASE.arm_id: 80.0, BIG.arm_id: 90.0, SMALL.arm_id: 80.4, OTHER.arm_id: 80.5}


def rows(*arms, column=None):
    return [
        Row(label=f"row {k}", arm=arm, versus=None if k == 0 else "row 0", column=column)
        for k, arm in enumerate(arms)
    ]


def adaptive(tables, seeds=3, stopped=(), **more):
    """A plan in which every arm has `seeds` seeds by now, or was stopped at 3."""
    counts = {arm.arm_id: 3 for arm in stopped}
    return dataclasses.replace(make_plan(tables, seeds=seeds, **more), looks=LOOKS, arm_seeds=counts)


def runs(plan, levels=LEVELS, sd=0.3):
    """Every planned run, finished."""
    rows = []
    for arm in plan.arms:
        noise = sd * np.random.default_rng(int(arm[:8], 16)).normal(size=20)
        for seed in plan.seeds_of(arm):
            rows.append(
                {
                    "run_id": f"{arm}-{seed}",
                    "arm_id": arm,
                    "seed": seed,
                    "status": "finished",
                    "top1": levels.get(arm, 80.0) + noise[seed],
                    "test_images": 0,
                }
            )
    return pd.DataFrame(rows)


def with_status(records, arm, seed, status):
    found = records.copy()
    place = (found["arm_id"] == arm.arm_id) & (found["seed"] == seed)
    found.loc[place, "status"] = status
    found.loc[place, "top1"] = np.nan
    return found


def wanted(plan, records, settings=SETTINGS):
    found = next_block(plan, records, settings)
    return found and {NAMES.get(arm, arm): count for arm, count in found.items()}


ONE_TABLE = {"t": rows(BASE, BIG, SMALL)}


def test_rows_that_are_open_and_their_reference_get_the_next_block_and_settled_ones_nothing():
    plan = adaptive(ONE_TABLE)
    assert wanted(plan, runs(plan)) == {"base": 5, "small": 5}
    grown = adaptive(ONE_TABLE, seeds=5, stopped=[BIG])
    assert wanted(grown, runs(grown)) == {"base": 8, "small": 8}


def test_nothing_is_asked_for_while_the_newest_block_is_running():
    plan = adaptive(ONE_TABLE)
    whole = runs(plan)
    assert wanted(plan, whole.iloc[1:]) is None
    for status in ("running", "stopped"):
        assert wanted(plan, with_status(whole, SMALL, 1, status)) is None
    assert wanted(plan, with_status(whole, SMALL, 1, "failed")) == {"base": 5, "small": 5}
    grown = adaptive(ONE_TABLE, seeds=5, stopped=[BIG])
    assert wanted(grown, runs(plan)) is None


def test_nothing_is_asked_for_when_the_budget_is_spent_or_everything_is_settled():
    plan = adaptive(ONE_TABLE, seeds=8, stopped=[BIG])
    found = effects(plan, runs(plan, sd=1.0))["row 2"]
    assert (found.verdict, found.settled_at, [look.seeds for look in found.trace]) == (
        UNDECIDED,
        None,
        [3, 5, 8],
    )
    assert found.more_seeds >= 1
    assert wanted(plan, runs(plan, sd=1.0)) is None
    settled = adaptive({"t": rows(BASE, BIG, OTHER)})
    assert wanted(settled, runs(settled, {**LEVELS, OTHER.arm_id: 95.0})) is None


def test_a_row_whose_arm_always_fails_or_diverges_gets_no_more_seeds():
    for status in ("failed", "diverged"):
        plan = adaptive(ONE_TABLE)
        records = runs(plan)
        for seed in range(3):
            records = with_status(records, SMALL, seed, status)
        assert wanted(plan, records) is None


def test_an_arm_of_several_tables_gets_what_the_table_that_needs_most_asks_for():
    two = {"t": rows(BASE, BIG, SMALL), "u": rows(BIG, SMALL, OTHER)}
    plan = adaptive(two)
    # u settles its two rows, 9.5 points under row 0, at once; t leaves small open
    assert wanted(plan, runs(plan)) == {"base": 5, "small": 5}
    plan = adaptive({**two, "v": rows(OTHER, SMALL, BASE)}, seeds=5, stopped=[BIG])
    assert wanted(plan, runs(plan, sd=1.0)) == {"base": 8, "small": 8, "other": 8}


def test_arms_of_claims_without_a_contrast_quoted_rows_and_teachers_are_not_asked_for():
    quoted = [*rows(BASE, BIG, SMALL), Row(label="quoted", arm=None, versus="row 0")]
    claim = Claim(says="s", source="p", table="c", row="row 0", versus="alone")
    alone = [Row(label="row 0", arm=OTHER), Row(label="alone", arm=trained(9))]
    plan = adaptive({"t": quoted, "c": alone}, claims=[claim], more=[trained(7)])
    assert wanted(plan, runs(plan)) == {"base": 5, "small": 5}


def test_evaluations_of_trained_networks_and_columns_are_asked_for_like_any_arm():
    crops = observer(Member(arm=BASE.arm_id, runs=1))
    plan = adaptive({"t": [*rows(BASE, BIG, crops, column="a"), *rows(OTHER, SMALL, column="b")]})
    found = next_block(plan, runs(plan, {**LEVELS, crops.arm_id: 80.2}), SETTINGS)
    assert found == {arm.arm_id: 5 for arm in (BASE, crops, OTHER, SMALL)}


def test_a_fixed_plan_is_never_asked_for_more():
    plan = make_plan(ONE_TABLE)
    assert next_block(plan, runs(plan), SETTINGS) is None
    assert next_block(dataclasses.replace(plan, looks=(3,)), runs(plan), SETTINGS) is None


CURVES = pd.DataFrame(columns=["run_id", "arm_id", "seed", "epoch", "step", "val_top1"])


def effects(plan, records, settings=SETTINGS):
    found = analyse(plan, records, CURVES, settings)
    assert plain(found)
    return {cell.row: cell.effect for cell in found.tables[0].cells if cell.effect}


def test_a_settled_row_keeps_the_numbers_of_its_look():
    first, grown = adaptive(ONE_TABLE), adaptive(ONE_TABLE, seeds=8, stopped=[BIG])
    before, after = effects(first, runs(first))["row 1"], effects(grown, runs(grown))["row 1"]
    assert before == after
    assert (after.verdict, after.settled_at, after.n) == (HELPS, 3, 3)
    assert len(after.differences) == len(after.trace[:1]) * 3
    assert (after.low, after.high) == (after.trace[0].low, after.trace[0].high)
    assert after.prob_better_low <= after.prob_better


def test_seeds_that_another_table_asked_for_do_not_change_what_was_settled():
    two = {"t": rows(BASE, BIG, SMALL), "v": rows(SMALL, OTHER, BIG)}
    plan = adaptive(two, seeds=8)
    late = adaptive(two, seeds=8, stopped=[BIG])
    assert effects(plan, runs(plan)) == effects(late, runs(late))


def test_before_the_first_look_there_are_numbers_and_no_words():
    plan = adaptive(ONE_TABLE)
    found = effects(plan, with_status(runs(plan), SMALL, 1, "running"))
    for effect in found.values():
        assert (effect.verdict, effect.p, effect.settled_at, effect.trace) == (UNDECIDED, None, None, ())
        assert effect.qualifier == (
            "the first look, at 3 seeds, takes place when the runs of every row have ended"
        )
    assert found["row 1"].estimate == pytest.approx(10, abs=1)


def test_a_look_that_has_not_taken_place_says_nothing_yet():
    at_three, at_five = adaptive(ONE_TABLE), adaptive(ONE_TABLE, seeds=5, stopped=[BIG])
    half = with_status(runs(at_five), SMALL, 4, "running")
    assert effects(at_five, half)["row 2"] == effects(at_three, runs(at_three))["row 2"]
    assert effects(at_five, runs(at_five))["row 2"].n == 5


def test_intervals_of_an_adaptive_design_are_wider_by_what_looking_costs():
    plan = adaptive(ONE_TABLE)
    fixed = dataclasses.replace(plan, looks=())
    ours, theirs = effects(plan, runs(plan))["row 1"], effects(fixed, runs(plan))["row 1"]
    assert ours.low < theirs.low < theirs.high < ours.high
    assert ours.prob_better_low < theirs.prob_better_low
    assert ours.estimate == theirs.estimate
    assert ours.p_holm > theirs.p_holm


def test_a_row_given_up_says_why_at_the_look_that_gave_it_up():
    plan = adaptive(ONE_TABLE, seeds=5, stopped=[BIG])
    records = with_status(with_status(runs(plan), BIG, 0, "diverged"), BIG, 2, "diverged")
    effect = effects(plan, records)["row 1"]
    assert (effect.verdict, effect.qualifier, effect.settled_at) == (NOT_EVALUABLE, "2 of 3 runs diverged", 3)


def test_a_row_without_effect_is_settled_as_no_difference():
    plan = adaptive({"t": rows(BASE, BIG, SMALL)})
    found = effects(plan, runs(plan, {**LEVELS, SMALL.arm_id: 80.0}, sd=0.05))["row 2"]
    assert (found.verdict, found.settled_at) == (NO_DIFFERENCE, 3)


def test_claims_and_gaps_to_the_paper_are_at_the_level_of_their_look_too():
    printed = [dataclasses.replace(row, paper={"top1": 80.0 + 2 * k}) for k, row in enumerate(ONE_TABLE["t"])]
    claim = Claim(says="s", source="p", table="t", row="row 2", versus="row 0")
    plan = adaptive({"t": printed}, seeds=5, stopped=[BIG], claims=[claim])
    records, settings = runs(plan), dataclasses.replace(SETTINGS, comparable_to_paper=True)
    found = analyse(plan, records, CURVES, settings)
    answer, level = found.claims[0], nominal_levels(0.05, LOOKS)[1]
    theirs = stats.ttest_1samp(list(answer.differences.values()), 0)
    assert len(answer.differences) == 5
    assert (answer.low, answer.high) == pytest.approx(theirs.confidence_interval(1 - level))
    assert answer.p == pytest.approx(repeated_p(np.asarray(theirs.pvalue), LOOKS, 1))
    gap = found.tables[0].cells[2].effect
    assert gap.gap_high - gap.gap_low == pytest.approx((gap.high - gap.low) * np.sqrt(6))
