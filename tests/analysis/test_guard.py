"""The guard makes noisy arms pay, and the error rates it exists for hold on simulated tables."""

import numpy as np
import pytest
from scipy import stats

from harness.analysis.fit import BlockDesign, block_fit, contrast, fit, guard, thresholds
from harness.analysis.intervals import half_width, holm, p_value

STAR = [(arm, 0) for arm in range(1, 9)]
CHAIN = [(arm, arm - 1) for arm in range(1, 9)]


def test_thresholds_grow_with_the_contrasts_that_rest_on_an_arm():
    assert thresholds(np.full(9, 2), STAR) == pytest.approx([0.495] + [0.14] * 8, abs=1e-3)
    assert thresholds(np.full(9, 2), CHAIN) == pytest.approx([0.14] + [0.2687] * 7 + [0.14], abs=1e-4)
    assert thresholds(np.full(3, 2), [(1, 0), (2, 0)]) == pytest.approx([0.495, 0.14, 0.14], abs=1e-3)
    assert thresholds(np.full(9, 4), STAR)[0] == pytest.approx(0.35)
    assert thresholds(np.full(9, 25), STAR) == pytest.approx([0.14] * 9)


def noisy_arm_table():
    values = np.random.default_rng(0).normal(size=(5, 4))
    values[2] += [6.0, -5.0, 4.0, -5.0]
    return block_fit(BlockDesign.of(np.ones((5, 4))), values)


def test_a_noisy_arm_is_flagged_and_pays_with_its_own_variance_and_df():
    fitted = noisy_arm_table()
    guarded = guard(fitted, np.full(5, 0.10))
    assert guarded.flagged.tolist() == [False, False, True, False, False]
    assert guarded.variance[2] == pytest.approx(fitted.own[2])
    assert guarded.variance[0] == pytest.approx(fitted.pooled)
    noisy, quiet = contrast(fitted, guarded, 2, 0), contrast(fitted, guarded, 1, 0)
    own, pooled = fitted.own[2] / 4, fitted.pooled / 4
    assert noisy.se == pytest.approx(np.sqrt(own + pooled))
    assert noisy.df == pytest.approx((own + pooled) ** 2 / (own**2 / 3 + pooled**2 / 12))
    assert quiet.se == pytest.approx(np.sqrt(2 * pooled))
    assert quiet.df == pytest.approx(12)


def test_the_exact_f_test_decides_how_much_of_its_own_variance_an_arm_gets():
    fitted = noisy_arm_table()
    p = stats.f.sf(fitted.ratio, 3, 9)
    full = 1.2 / 3  # of the threshold, at 3 degrees of freedom
    assert guard(fitted, p * 0.99).weight == pytest.approx(np.zeros(5))
    assert guard(fitted, p * 1.01).weight == pytest.approx(np.log(1.01) / np.log(1 / full) * np.ones(5))
    assert guard(fitted, p / full * 1.01).weight == pytest.approx(np.ones(5))
    half = guard(fitted, p / np.sqrt(full))
    assert half.weight == pytest.approx(np.full(5, 0.5))
    larger = np.maximum(fitted.own, fitted.pooled)
    assert half.variance == pytest.approx((fitted.pooled + larger) / 2)


def test_each_part_of_a_variance_counts_with_its_own_degrees_of_freedom():
    fitted = noisy_arm_table()
    p, quiet = stats.f.sf(fitted.ratio, 3, 9), -np.ones(5)
    threshold = np.where(np.arange(5) == 2, p / np.sqrt(0.4), quiet)  # weight 1/2 for the noisy arm alone
    estimate = contrast(fitted, guard(fitted, threshold), 2, 0)
    own, pooled = 0.5 * fitted.own[2] / 4, 1.5 * fitted.pooled / 4
    assert estimate.se == pytest.approx(np.sqrt(own + pooled))
    assert estimate.df == pytest.approx((own + pooled) ** 2 / (own**2 / 3 + pooled**2 / 12))


def test_two_flagged_arms_never_have_more_df_than_the_pool():
    fitted = noisy_arm_table()
    both = contrast(fitted, guard(fitted, np.full(5, 2.0)), 1, 0)
    assert both.df <= fitted.design.df


def collapsed_table(collapsed, arms=6, seeds=3):
    values = 85.0 + np.random.default_rng(2).normal(scale=0.1, size=(arms, seeds))
    for arm in collapsed:
        values[arm] = np.random.default_rng(arm).uniform(10.0, 60.0, size=seeds)
    return values


def test_a_collapsed_arm_does_not_take_the_table_with_it():
    values = collapsed_table([5])
    pairs = [(arm, 0) for arm in range(1, 6)]
    fitted = fit(BlockDesign.of(np.ones((6, 3))), values)
    guarded = guard(fitted, thresholds(fitted.own_df, pairs))
    assert fitted.wild.tolist() == [False] * 5 + [True]
    without = fit(BlockDesign.of(np.ones((5, 3))), values[:5])
    alone = guard(without, thresholds(fitted.own_df, pairs)[:5])
    for pair in pairs[:4]:
        one, other = contrast(fitted, guarded, *pair), contrast(without, alone, *pair)
        assert (one.value, one.se, one.df) == pytest.approx((other.value, other.se, other.df))
    noisy = contrast(fitted, guarded, 5, 0)
    assert noisy.se == pytest.approx(np.sqrt(values[5].var(ddof=1) / 3), rel=0.02)
    assert noisy.df == pytest.approx(2, abs=0.01)


def test_two_collapsed_arms_do_not_hide_each_other():
    values = collapsed_table([1, 4], arms=7)
    assert block_fit(BlockDesign.of(np.ones((7, 3))), values).ratio.max() < 20
    fitted = fit(BlockDesign.of(np.ones((7, 3))), values)
    assert np.flatnonzero(fitted.wild).tolist() == [1, 4]
    assert np.sqrt(fitted.pooled) < 0.2
    assert fitted.df == 8


def test_a_pool_keeps_four_arms_and_needs_a_variance_to_compare_with():
    assert not fit(BlockDesign.of(np.ones((4, 3))), collapsed_table([3], arms=4)).wild.any()
    constant = np.full((6, 3), 10.0)
    constant[0] = [10.0, 40.0, 20.0]
    assert not fit(BlockDesign.of(np.ones((6, 3))), constant).wild.any()


def test_a_comparison_that_hangs_together_by_a_wild_arm_pays_for_it():
    values, there = collapsed_table([5], seeds=6), np.zeros((6, 6), dtype=bool)
    there[:2, :3] = there[2:5, 3:] = there[5] = True
    fitted = fit(BlockDesign.of(there), values)
    assert fitted.wild.tolist() == [False] * 5 + [True]
    guarded = guard(fitted, np.full(6, 0.14))
    assert contrast(fitted, guarded, 1, 0).se < 0.2
    assert contrast(fitted, guarded, 2, 0).se > 5


def test_an_arm_that_shares_seeds_with_a_wild_one_alone_loses_their_degrees_of_freedom():
    values, there = collapsed_table([5], seeds=4), np.ones((6, 4), dtype=bool)
    there[:4, 3] = False
    fitted = fit(BlockDesign.of(there), values)
    assert fitted.wild.tolist() == [False] * 5 + [True]
    assert fitted.own_df.tolist() == [2, 2, 2, 2, 2, 3]
    assert fitted.df == 8


@pytest.mark.campaign
def test_by_chance_no_arm_is_wild():
    rng = np.random.default_rng(5)
    for arms, seeds in ((5, 3), (9, 3), (9, 10)):
        fitted = fit(BlockDesign.of(np.ones((arms, seeds))), rng.normal(size=(20_000, arms, seeds)))
        assert fitted.wild.any(axis=-1).sum() <= 6  # 2 are allowed on average


def error_rates(sd, pairs, seeds, tables=6000, gap=()):
    """(family-wise error, worst coverage) of the harness on null tables with these standard deviations."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(tables, len(sd), seeds)) * np.asarray(sd)[:, None]
    values += rng.normal(size=(tables, 1, seeds))
    mask = np.ones((len(sd), seeds), dtype=bool)
    for run in gap:
        mask[run] = False
    fitted = fit(BlockDesign.of(mask), values)
    guarded = guard(fitted, thresholds(fitted.own_df, pairs))
    estimates = [contrast(fitted, guarded, *pair) for pair in pairs]
    rejected = holm(np.stack([p_value(e) for e in estimates], axis=-1), 0.05).p <= 0.05
    covered = [(np.abs(e.value) <= half_width(e, 0.05)).mean() for e in estimates]
    return rejected.any(axis=1).mean(), min(covered)


# 6,000 tables: the Monte-Carlo standard error of a rate of .05 is .0028; three of them are allowed.
@pytest.mark.parametrize(
    ("sd", "pairs", "seeds", "coverage"),
    [
        ([1.0] * 9, STAR, 3, 0.94),
        ([1.0] * 9, CHAIN, 5, 0.94),
        ([3.0] + [1.0] * 8, STAR, 3, 0.90),
        ([2.0] + [1.0] * 8, STAR, 5, 0.925),
        ([1.0, 3.0] + [1.0] * 7, STAR, 3, 0.90),
        ([1.0] * 4 + [3.0] + [1.0] * 4, CHAIN, 3, 0.90),
        ([1.0, 3.0, 1.0], [(1, 0), (2, 1)], 3, 0.90),
        ([1.0] * 8 + [100.0], STAR, 3, 0.93),  # nearly always wild
        ([1.0] * 8 + [10.0], CHAIN, 3, 0.92),  # half of the times
        ([1.0] * 5 + [20.0], [(arm, 0) for arm in range(1, 6)], 3, 0.92),
    ],
)
def test_family_wise_error_and_coverage_hold(sd, pairs, seeds, coverage):
    error, worst = error_rates(sd, pairs, seeds)
    assert error <= 0.05 + 3 * 0.0028
    assert worst >= coverage - 0.01


def test_error_rates_hold_with_missing_runs():
    error, worst = error_rates([1.0] * 9, STAR, 4, gap=((0, 3), (2, 0), (5, 1)))
    assert error <= 0.05
    assert 0.94 <= worst <= 0.985


def test_equal_arms_are_not_charged_more_than_the_nominal_rate_allows():
    error, worst = error_rates([1.0] * 9, STAR, 5)
    assert error >= 0.015  # a broken p value that never rejects would pass the upper bounds alone
    assert worst <= 0.975


def test_the_guard_costs_little_power_where_all_arms_are_equally_noisy():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6000, 9, 5))
    values[:, 1] += 3.0
    fitted = fit(BlockDesign.of(np.ones((9, 5))), values)
    guarded = guard(fitted, thresholds(fitted.own_df, STAR))
    p = np.stack([p_value(contrast(fitted, guarded, *pair)) for pair in STAR], axis=-1)
    assert (holm(p, 0.05).p[:, 0] <= 0.05).mean() >= 0.85 - 2 * 0.0046
