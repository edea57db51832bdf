"""A claim is answered by size as well as by sign, after Holm, and only where it can be tested."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.analysis import analyse, sizes
from harness.analysis.findings import (
    CANNOT_TEST,
    COMPARABLE,
    NOT_OF_THAT_SIZE,
    NOT_RUN,
    NOT_SETTLED,
    OPPOSITE,
    OTHER_SIZE,
    SAME_DIRECTION,
    Settings,
)
from harness.analysis.intervals import Estimate
from harness.analysis.sizes import Printed, fieller, log_odds, word_for
from harness.reporting.sections.claims import headline
from harness.study.plan import Claim
from tests.analysis.plans import Row, make_plan, trained
from tests.analysis.test_competence import NO_CURVES, at, floors


def estimate(value, se=0.1, df=20.0):
    return Estimate(value=np.asarray(value), se=np.asarray(se), df=np.asarray(df))


PAPER = Printed(value=0.10, sd=0.012)  # 1.5 points at 76 %, in log-odds


@pytest.mark.parametrize(
    ("points", "se", "printed", "word"),
    [
        (1.5, 0.2, PAPER, COMPARABLE),
        (0.9, 0.1, PAPER, COMPARABLE),
        (6.0, 0.2, PAPER, OTHER_SIZE),
        (0.30, 0.02, PAPER, OTHER_SIZE),
        (1.5, 0.2, Printed(value=0.02, sd=0.012), SAME_DIRECTION),  # within the paper's own noise
        (1.5, 0.2, Printed(value=-0.1, sd=0.012), SAME_DIRECTION),  # the paper prints the other direction
        (1.5, 0.2, None, SAME_DIRECTION),
        (-2.0, 0.2, PAPER, OPPOSITE),
        (-1.2, 0.2, PAPER, NOT_OF_THAT_SIZE),  # not beyond the smallest effect of interest, 1 point
        (0.1, 0.1, PAPER, NOT_OF_THAT_SIZE),
        (0.1, 0.1, None, NOT_SETTLED),
        (0.5, 0.6, PAPER, NOT_SETTLED),
    ],
)
def test_the_answer_follows_from_the_interval_and_the_papers_size(points, se, printed, word):
    per_point = 0.10 / 1.5
    sized = estimate(points * per_point, se * per_point)
    assert word_for(estimate(points, se), sized, printed, 0.05, 1.0) == word


def test_fiellers_interval_holds_the_ratios_that_are_not_rejected():
    sized, printed = estimate(0.12, 0.02, 8.0), Printed(value=0.10, sd=0.01)
    low, high = fieller(sized, printed, 0.05)
    t, z = stats.t.ppf(0.975, 8.0), stats.norm.ppf(0.975)
    for ratio in (low, high):
        assert abs(0.12 - ratio * 0.10) == pytest.approx(math.hypot(t * 0.02, z * ratio * 0.01))
    assert low < 1.2 < high
    assert fieller(sized, Printed(value=0.02, sd=0.011), 0.05) == (None, None)


def test_a_point_near_the_end_of_the_scale_is_a_larger_one():
    low, high = log_odds(np.array([75.0, 76.0])), log_odds(np.array([95.0, 96.0]))
    assert high[1] - high[0] > 3 * (low[1] - low[0])
    assert log_odds(np.array([0.0, 100.0])) == pytest.approx(log_odds(np.array([0.1, 99.9])))


def claim(**changes):
    said = Claim(says="new is better", source="Sec. 1", table="t", row="new", versus="base")
    return replace(said, **changes)


ROWS = {"base": (0, 76.0), "new": (1, 77.5), "third": (2, 75.0), "fourth": (3, None)}


def answers(values, *claims, paper=None, of=floors, settings=None, steps=1000, seeds=None, failed=(), **more):
    """values: row -> top-1 of every seed; `failed`: (row, seed) of runs that ended without one."""
    printed = {**{row: value for row, (_, value) in ROWS.items()}, **(paper or {})}
    rows = [
        Row(
            label=row,
            arm=trained(number),
            versus=None if row == "base" else "base",
            paper={} if printed[row] is None else {"top1": printed[row], **more},
        )
        for row, (number, _) in ROWS.items()
    ]
    plan = make_plan({"t": rows}, claims=claims or (claim(),), seeds=seeds or len(values["base"]))
    records = [
        {
            "run_id": f"{row}-{seed}", "arm_id": trained(ROWS[row][0]).arm_id, "seed": seed,
            "status": "failed" if (row, seed) in failed else "finished",
            "top1": value + 0.02 * ((7 * seed + 3 * ROWS[row][0]) % 5 - 2), "train_loss": 1.0 - value / 100,
            "steps": steps, "data_fingerprint": "f",
        }
        for row, column in values.items()
        for seed, value in enumerate(column)
    ]  # fmt: skip
    found = analyse(
        plan, pd.DataFrame(records), NO_CURVES, settings or Settings(smallest_effect_pp=1.0), of()
    )
    return found.claims


VALUES = {"base": at(85.0), "new": at(86.2), "third": at(84.0), "fourth": at(85.2)}


def test_a_claim_whose_rows_are_competent_is_answered_by_size():
    (found,) = answers(VALUES)
    assert (found.answer, found.answer_holm) == (COMPARABLE, COMPARABLE)
    assert found.size.scale == "log-odds"
    ours = log_odds(np.array([86.2, 85.0]))
    theirs = log_odds(np.array([77.5, 76.0]))
    assert found.size.ratio == pytest.approx((ours[0] - ours[1]) / (theirs[0] - theirs[1]), rel=0.05)
    assert found.size.ratio_low < found.size.ratio < found.size.ratio_high
    assert found.estimate == pytest.approx(1.2, abs=0.05)
    assert found.low < found.estimate < found.high


def test_a_claim_about_a_network_below_the_floor_cannot_be_tested():
    (found,) = answers({**VALUES, "new": at(37.0)})
    assert found.answer == CANNOT_TEST
    assert found.why == "new, 37.0 %, is below a linear classifier on the same images, 82.2 %"
    (few,) = answers(VALUES, steps=80)
    assert (few.answer, few.why) == (CANNOT_TEST, "new is trained for 80 updates, fewer than 500")


@pytest.mark.parametrize(
    ("seeds", "failed", "word", "why"),
    [
        ((0, 0), (), NOT_RUN, "new: 3 not run yet; base: 3 not run yet"),
        ((3, 0), (), NOT_RUN, "base: 3 not run yet"),
        ((1, 1), (), NOT_RUN, "1 seed has both runs, fewer than 3; new: 2 not run yet; base: 2 not run yet"),
        ((2, 3), (), NOT_RUN, "2 seeds have both runs, fewer than 3; new: 1 not run yet"),
        ((3, 3), (("new", 1),), CANNOT_TEST, "2 seeds have both runs, fewer than 3; new: 1 failed"),
        ((3, 3), [("new", seed) for seed in range(3)], CANNOT_TEST, "new: 3 failed"),
        ((2, 3), (("new", 1),), NOT_RUN, None),
        ((3, 3), (), COMPARABLE, ""),
    ],
)
def test_a_claim_is_answered_from_three_seeds_on_and_waits_for_runs_that_are_to_come(
    seeds, failed, word, why
):
    new, base = seeds
    values = {**VALUES, "new": VALUES["new"][:new], "base": VALUES["base"][:base]}
    (found,) = answers(values, seeds=3, failed=failed)
    assert found.answer == found.answer_holm == word
    assert why is None or found.why == why


def test_a_claim_of_two_planned_seeds_or_of_one_run_cannot_be_tested():
    (short,) = answers({row: values[:2] for row, values in VALUES.items()})
    assert (short.answer, short.why) == (CANNOT_TEST, "2 seeds have both runs, fewer than 3")
    (gone,) = answers(VALUES, claim(row="nowhere"))
    assert (gone.answer, gone.why) == (CANNOT_TEST, "nowhere is not in this table")


def test_the_opposite_and_a_size_that_is_not_there():
    opposite, no_size = (
        answers({**VALUES, "new": at(82.9)})[0],
        answers({**VALUES, "new": at(85.05)})[0],
    )
    assert (opposite.answer, no_size.answer) == (OPPOSITE, NOT_OF_THAT_SIZE)
    assert (
        answers({**VALUES, "new": at(82.9)}, claim(expect="lower"), paper={"new": 74.0})[0].answer
        == COMPARABLE
    )


def test_the_noise_is_that_of_all_rows_and_not_of_three_differences():
    """Three differences that agree by chance say little where the other rows of the table vary."""
    agree = {"base": [84.0, 85.0, 86.0], "new": [84.3, 85.3, 86.3], "third": [86.0, 84.2, 85.1],
             "fourth": [84.1, 86.4, 84.7]}  # fmt: skip
    (found,) = answers(agree, of=lambda: floors(70.0))
    assert found.answer == NOT_SETTLED
    assert found.high - found.low > 1.5


def test_holms_rule_is_over_all_claims_and_those_that_cannot_be_tested_stay_in_it():
    noisy = {"base": [84.9, 85.3, 84.6], "new": [86.2, 86.5, 86.2], "third": [85.1, 84.9, 85.4],
             "fourth": [85.2, 84.8, 85.0]}  # fmt: skip
    (alone,) = answers(noisy)
    assert alone.answer == COMPARABLE
    untestable = [claim(says=str(k), measure="train_loss") for k in range(40)]
    among = answers(noisy, claim(), *untestable, steps=1000)
    assert among[0].low < alone.low
    assert among[0].p_holm == pytest.approx(min(1.0, 41 * alone.p), rel=1e-6)


def test_the_papers_own_spread_is_used_where_it_is_printed():
    (quiet,) = answers(VALUES, top1_std=0.05)
    (wild,) = answers(VALUES, top1_std=2.0)
    assert quiet.size.paper_sd < wild.size.paper_sd
    assert (quiet.answer, wild.answer) == (COMPARABLE, SAME_DIRECTION)
    assert "the paper's own difference is within its noise" in wild.why


def test_the_prediction_interval_is_given_at_the_papers_setting_alone():
    assert answers(VALUES)[0].size.predicted is None
    (there,) = answers(VALUES, settings=Settings(smallest_effect_pp=1.0, comparable_to_paper=True))
    assert there.size.predicted is True
    far = {**VALUES, "new": at(90.0)}
    assert (
        answers(far, settings=Settings(smallest_effect_pp=1.0, comparable_to_paper=True))[0].size.predicted
        is False
    )


def test_what_is_not_settled_says_how_many_seeds_would_settle_it():
    noisy = {"base": [84.0, 85.0, 86.0], "new": [86.0, 84.9, 86.3], "third": [86.0, 84.2, 85.1],
             "fourth": [84.1, 86.4, 84.7]}  # fmt: skip
    (found,) = answers(noisy, of=lambda: floors(70.0))
    assert found.answer == NOT_SETTLED
    assert found.size.more_seeds > 0
    assert found.why == f"about {found.size.more_seeds} more seeds would settle it"


@pytest.mark.parametrize(
    ("printed", "ours", "word", "why"),
    [
        (76.18, 85.02, NOT_SETTLED, "smaller than 1 pp either way"),  # as FP16 in Bag of Tricks: +0.18
        (75.86, 85.02, NOT_SETTLED, "smaller than 1 pp either way"),  # against the paper's own sign: -0.14
        (None, 85.02, NOT_SETTLED, "smaller than 1 pp either way"),
        (76.18, 85.5, SAME_DIRECTION, "the paper's own difference is within its noise"),
        (76.18, 83.5, OPPOSITE, ""),
        (77.5, 85.02, NOT_OF_THAT_SIZE, ""),  # the paper's is 1.5: it is there to be missed
        (76.6, 85.02, NOT_OF_THAT_SIZE, ""),
    ],
)
def test_an_effect_within_the_papers_noise_has_a_direction_or_none(printed, ours, word, why):
    """With ours measured to a tenth of a point. Seeds are not promised where there may be nothing to find."""
    (found,) = answers({**VALUES, "new": at(ours)}, paper={"new": printed})
    assert (found.answer, found.why) == (word, why)
    assert found.size.more_seeds is None


def test_the_headline_counts_what_can_be_tested():
    words = {
        COMPARABLE: 7,
        OTHER_SIZE: 3,
        SAME_DIRECTION: 2,
        OPPOSITE: 1,
        NOT_OF_THAT_SIZE: 2,
        NOT_SETTLED: 3,
    }
    assert headline({**words, CANNOT_TEST: 16}) == (
        "18 testable of 34; 7 comparable, 3 of another size, 2 in the same direction, 1 opposite, 2 none of "
        "the paper's size, 3 not settled"
    )


def test_a_ratio_of_steps_has_a_size_too():
    printed = sizes.printed_of(
        make_cell({"steps_to_target_m": 2.0}), make_cell({"steps_to_target_m": 30.0}), "steps_to_target", -1.0
    )
    assert (printed.value, printed.sd) == (pytest.approx(math.log(15)), 0.0)


def make_cell(paper):
    plan = make_plan({"t": [Row(label="x", arm=trained(0), paper=paper)]})
    return plan.tables[0].cells[0]
