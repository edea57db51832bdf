"""A/A tables from a pool of identical trainings: counted right, bounded right, and described honestly."""

import numpy as np
import pytest
from scipy import stats

from harness.analysis.calibration import badge, calibrate, describe


@pytest.mark.campaign
def test_normal_noise_gives_few_false_alarms_and_says_how_sure_that_is():
    found = calibrate(np.random.default_rng(0).normal(70, 2, size=120), 5, 4, 1500)
    assert 0.005 < found.rate < 0.05
    assert found.rate == found.false_alarms / 1500
    exact = stats.binomtest(found.false_alarms, 1500, alternative="less").proportion_ci(0.95, method="exact")
    assert found.rate_upper == pytest.approx(exact.high)
    assert found.rate_upper_with_pool >= found.rate_upper
    assert 0.94 < found.worst_coverage <= found.coverage < 0.99
    assert found.disjoint_tables == 120 // 20


def test_no_alarm_at_all_still_has_an_upper_bound():
    found = calibrate(np.random.default_rng(0).normal(size=40), 3, 3, 5)
    assert (found.false_alarms, found.rate) == (0, 0.0)
    assert found.rate_upper == pytest.approx(1 - 0.05 ** (1 / 5))


def test_a_pool_that_is_no_noise_of_one_recipe_is_noticed():
    alike = np.random.default_rng(1).normal(size=(400,))
    odd = alike.copy()
    odd[:8] += 12.0
    assert describe(alike).outliers <= 1
    assert describe(odd).outliers == 8
    assert describe(odd).excess_kurtosis > 10 * describe(odd).kurtosis_se


def test_the_shape_of_a_pool_is_that_of_scipy():
    values = np.random.default_rng(2).gumbel(size=50)
    pool = describe(values)
    assert pool.skew == pytest.approx(stats.skew(values, bias=False))
    assert pool.excess_kurtosis == pytest.approx(stats.kurtosis(values, bias=False))
    assert pool.skew_se == pytest.approx(0.3366, abs=1e-4)  # the usual table, n = 50
    assert pool.kurtosis_se == pytest.approx(0.6619, abs=1e-4)


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(ValueError, match="9 arms of 3 seeds need 27 runs, the pool has 20"):
        calibrate(np.arange(20.0), 9, 3, 10)
    with pytest.raises(ValueError, match="the same value"):
        calibrate(np.full(40, 71.0), 3, 3, 10)


def test_the_badge_is_one_line():
    stored = {"runs": 400, "recipe": "“r” (m on d)", "tables": 10_000, "arms": 9, "seeds": 3}
    stored |= {"rate": 0.0312, "rate_upper": 0.0345, "alpha": 0.05}
    assert badge(stored) == (
        "A/A self-test on this machine, 400 identical trainings of “r” (m on d), 10,000 tables of 9 arms x 3 "
        "seeds: false alarms 3.1 % (upper bound 3.5 %) at nominal 5 %"
    )
