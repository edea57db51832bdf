"""Each verdict word follows from its rule and from nothing else."""

import numpy as np
import pytest

from harness.analysis.findings import HELPS, HURTS, NO_DIFFERENCE, UNDECIDED, Settings
from harness.analysis.intervals import Estimate, half_width
from harness.analysis.verdicts import judge, too_many_diverged

SETTINGS = Settings(smallest_effect_pp=0.2)
LEVEL = 0.05 / 8


def at(value, se=0.05, df=16.0):
    return Estimate(value=np.asarray(value), se=np.asarray(se), df=np.asarray(df))


def verdict(value, se=0.05, seeds=3, level=LEVEL):
    return judge(at(value, se), level, seeds, SETTINGS)


def test_the_sign_is_decided_by_the_adjusted_interval():
    edge = float(half_width(at(0.0), LEVEL))
    assert verdict(edge * 1.001).word == HELPS
    assert verdict(-edge * 1.001).word == HURTS
    assert verdict(edge * 0.999).word != HELPS
    assert float(half_width(at(0.0), 0.05)) < edge * 0.999  # the unadjusted interval would have said helps


@pytest.mark.parametrize(
    ("value", "se", "qualifier"),
    [
        (1.0, 0.05, "by at least 0.2 pp"),
        (0.1, 0.02, "but by less than 0.2 pp"),
        (0.25, 0.05, ""),
    ],
)
def test_how_large_a_difference_is_said_both_ways(value, se, qualifier):
    assert verdict(value, se) == verdict(value, se).__class__(HELPS, qualifier)
    assert verdict(-value, se) == verdict(value, se).__class__(HURTS, qualifier)


def test_no_detectable_difference_needs_the_90_percent_interval_inside_delta():
    fits = 0.2 / float(half_width(at(0.0, 1.0), 0.10))
    small = verdict(0.0, fits * 0.99)
    assert small.word == NO_DIFFERENCE
    assert small.qualifier.startswith("smaller than 0.2 pp either way; an effect of ")
    assert verdict(0.0, fits * 1.01).word == UNDECIDED


def test_undecided_says_how_many_more_seeds_for_delta_whatever_was_observed():
    near, far = verdict(0.0, 0.3), verdict(0.5, 0.3)
    assert near.word == far.word == UNDECIDED
    assert near.qualifier == far.qualifier
    assert near.qualifier.startswith("about ")
    more = int(near.qualifier.split()[1])
    assert more == pytest.approx((3.16 + 0.86) ** 2 * 0.3**2 * 3 / 0.2**2 - 3, rel=0.25)
    assert verdict(0.0, 100.0).qualifier == "more than 10,000 seeds would be needed to settle it"


def test_two_seeds_are_always_undecided():
    sure = verdict(5.0, 0.01, seeds=2)
    assert sure.word == UNDECIDED
    assert sure.qualifier.startswith("2 seeds: a verdict needs at least 3; about 1 more seed would")


@pytest.mark.parametrize(
    ("diverged", "ended", "too_many"),
    [(0, 3, False), (1, 3, False), (2, 3, True), (2, 10, True), (2, 20, False)],
)
def test_more_than_one_training_failure_in_ten_seeds_is_too_many(diverged, ended, too_many):
    assert too_many_diverged(diverged, ended) is too_many
