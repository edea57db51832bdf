"""How sure the chance is that one run of a row beats one of its reference."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from harness.analysis.contrasts import compare
from harness.analysis.findings import Settings
from harness.analysis.fit import Relations
from harness.analysis.intervals import Estimate
from harness.analysis.verdicts import better_interval, dependably_better
from tests.analysis.tables import quiet
from tests.conftest import mostly_campaign


def at(value, se=0.5, df=8.0):
    return Estimate(value=np.asarray(value), se=np.asarray(se), df=np.asarray(df))


@pytest.mark.parametrize(("value", "df"), [(1.0, 8.0), (-2.0, 2.5), (0.0, 30.0), (4.0, 1.0)])
def test_the_ends_are_the_noncentralities_that_just_allow_the_observed_t(value, df):
    se, one_run_sd = 0.5, 0.5 * np.sqrt(5)  # of 5 runs each
    low, high = better_interval(at(value, se, df), one_run_sd)
    ends = special.ndtri([low, high]) * np.sqrt(5)
    assert stats.nct.cdf(value / se, df, ends) == pytest.approx([0.975, 0.025], abs=1e-3)


def test_a_mirrored_effect_has_the_mirrored_interval_and_no_effect_one_around_a_half():
    low, high = better_interval(at(1.0), 1.0)
    assert better_interval(at(-1.0), 1.0) == pytest.approx((1 - high, 1 - low))
    assert sum(better_interval(at(0.0), 1.0)) == pytest.approx(1.0)
    for extreme in (1e4, -1e4):
        ends = better_interval(at(extreme), 1.0)
        assert all(0.0 <= end <= 1.0 for end in ends)


def test_there_is_none_without_a_standard_error_or_between_evaluations_of_the_same_networks():
    assert better_interval(None, 1.0) is None
    assert better_interval(at(1.0), None) is None
    assert better_interval(at(1.0, se=0.0), 1.0) is None
    values = np.random.default_rng(0).normal(size=(4, 5))
    roots = [frozenset("a"), frozenset("a"), frozenset("b"), frozenset("c")]
    same, other = compare(values, [(1, 0), (2, 0)], Settings(), relations=Relations(roots))
    assert same.one_run_sd is None
    assert other.one_run_sd > 0


@pytest.mark.parametrize("arms", mostly_campaign([2, 6], 6))  # Welch's test, the block fit
def test_the_interval_covers_the_truth(arms):
    rng, seeds, effects = np.random.default_rng(7), 5, np.array([0.0, 0.5, 1.0, 2.0, 3.0, 1.0])[-arms:]
    pairs = [(k, 0) for k in range(1, arms)]
    hits = []
    for _ in range(1000 // len(pairs)):
        values = effects[:, None] + rng.normal(size=(arms, seeds))
        for (arm, versus), found in zip(pairs, compare(values, pairs, Settings()), strict=True):
            low, high = better_interval(found.estimate, found.one_run_sd)
            hits.append(low <= special.ndtr((effects[arm] - effects[versus]) / np.sqrt(2)) <= high)
    assert 0.93 <= np.mean(hits) <= 0.98


def test_dependably_better_needs_three_wins_in_four_and_chance_excluded():
    effect = quiet()["up"].effect
    assert (effect.prob_better, effect.prob_better_low > 0.9) == (1.0, True)
    assert dependably_better(effect)
    assert not dependably_better(quiet()["down"].effect)
    assert not dependably_better(dataclasses.replace(effect, prob_better=0.74))
    assert not dependably_better(dataclasses.replace(effect, prob_better_low=0.5))
    assert not dependably_better(dataclasses.replace(effect, prob_better_low=None))
