"""t intervals, Welch and Holm against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import optimize, special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from harness.analysis.intervals import (
    Estimate,
    detectable_effect,
    half_width,
    holm,
    is_equivalent,
    mean,
    noncentrality,
    p_value,
    seeds_to_resolve,
    welch,
)
from harness.analysis.verdicts import probability_better
from tests.conftest import mostly_campaign

ONE, OTHER = np.array([76.1, 76.6, 75.9, 77.0]), np.array([75.2, 75.3, 75.6])


def estimate(value, se=0.1, df=8.0):
    return Estimate(value=np.asarray(value), se=np.asarray(se), df=np.asarray(df))


def test_welch_equals_scipy():
    ours, theirs = welch(ONE, OTHER), stats.ttest_ind(ONE, OTHER, equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    assert ours.df == pytest.approx(theirs.df)
    assert p_value(ours) == pytest.approx(theirs.pvalue)
    assert ours.value - half_width(ours, 0.05) == pytest.approx(low)
    assert ours.value + half_width(ours, 0.05) == pytest.approx(high)


def test_the_interval_of_a_mean_equals_scipy():
    low, high = stats.t.interval(0.95, 3, loc=ONE.mean(), scale=stats.sem(ONE))
    assert mean(ONE).value - half_width(mean(ONE), 0.05) == pytest.approx(low)
    assert mean(ONE).value + half_width(mean(ONE), 0.05) == pytest.approx(high)


def test_without_spread_the_p_value_is_0_or_1_and_nothing_divides_by_zero():
    with np.errstate(all="raise"):
        assert p_value(estimate(0.0, se=0.0)) == 1.0
        assert p_value(estimate(0.3, se=0.0)) == 0.0
        assert welch([1.0, 1.0], [2.0, 2.0]).df == 1.0


@pytest.mark.parametrize("alpha", mostly_campaign([0.01, 0.05, 0.2], 0.05))
@pytest.mark.parametrize("m", [1, 2, 8])
def test_holm_equals_statsmodels_and_its_levels_lead_to_the_same_decisions(m, alpha):
    families = np.random.default_rng(m).random((3, m)) ** 4  # few: multipletests is slow
    together = holm(families, alpha)
    for k, p in enumerate(families):
        rejected, adjusted, _, _ = multipletests(p, alpha, method="holm")
        assert together.p[k] == pytest.approx(adjusted)
        assert ((p < together.level[k]) == rejected).all()


def test_holm_levels_by_hand():
    ours = holm([0.02, 0.001, 0.04, 0.9], 0.05)
    assert ours.p == pytest.approx([0.06, 0.004, 0.08, 0.9])
    assert ours.level == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])  # one rejected, three left


@pytest.mark.parametrize("margin", [0.5, 1.0, 1.5, 2.5])
def test_equivalence_equals_statsmodels_tost(margin):
    p, _, _ = ttost_ind(ONE, OTHER, -margin, margin, usevar="unequal")
    assert bool(is_equivalent(welch(ONE, OTHER), margin)) == (p < 0.05)
    paired, _, _ = ttost_paired(ONE[:3], OTHER, -margin, margin)
    assert bool(is_equivalent(mean(ONE[:3] - OTHER), margin)) == (paired < 0.05)


def test_equivalence_needs_the_whole_interval_inside():
    width = float(half_width(estimate(0.0), 0.10))
    assert is_equivalent(estimate(0.0), width * 1.001)
    assert not is_equivalent(estimate(0.0), width * 0.999)
    assert not is_equivalent(estimate(0.01), width * 1.001)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_detectable_effect_is_found_with_80_percent_power(n):
    seen = detectable_effect(estimate(0.0, se=2.0 / np.sqrt(n), df=n - 1), 0.05)
    power = TTestPower().power(seen / 2.0, n, 0.05, alternative="larger", df=n - 1)
    one_sided = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, seen / (2.0 / np.sqrt(n)))
    assert one_sided == pytest.approx(0.80, abs=1e-6)
    assert power > 0.80  # the one-sided test at 5 % is easier


@pytest.mark.parametrize(("df_now", "arms"), [(16.0, 9), (2.0, 2)])
def test_seeds_to_resolve_is_the_fewest_that_satisfy_the_formula(df_now, arms):
    now = estimate(0.0, se=0.15 * np.sqrt(2 / 3), df=df_now)  # 3 seeds, sd 0.15 pp
    n = seeds_to_resolve(now, 3, 0.3, 0.05 / 8)

    def needed(seeds):
        df = (arms - 1) * (seeds - 1)
        t = stats.t.ppf(1 - 0.05 / 16, df) + stats.t.ppf(0.80, df)
        return 2 * t**2 * 0.15**2 / 0.3**2

    assert needed(n) <= n
    assert needed(n - 1) > n - 1
    assert seeds_to_resolve(estimate(0.0, se=100.0, df=4.0), 3, 0.01, 0.05) is None


@pytest.mark.parametrize("df", [2.0, 8.3, 46.0, 900.0])
@pytest.mark.parametrize("p", [0.025, 0.2, 0.975])
@pytest.mark.parametrize("t", [-6.0, -0.5, 0.0, 2.3, 12.0])
def test_a_noncentrality_has_more_digits_than_two_cpus_differ_by(p: float, df: float, t: float):
    """Within 1e-11, as the root that bisection finds; scipy's inverse alone is up to 1e-7 off."""
    near = special.nctdtrinc(df, p, t)
    exact = optimize.brentq(lambda nc: special.nctdtr(df, nc, t) - p, near - 0.01, near + 0.01, xtol=1e-13)
    assert noncentrality(p, df, t) == pytest.approx(exact, rel=1e-11, abs=1e-11)


def test_probability_better_is_the_mann_whitney_statistic():
    u = stats.mannwhitneyu(ONE, OTHER).statistic
    assert probability_better(ONE, OTHER) == pytest.approx(u / 12) == 1.0
    assert probability_better([1, 2, 2], [2, 3]) == pytest.approx((0 + 0.5 + 0.5) / 6)
