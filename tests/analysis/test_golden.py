"""The statistics against other implementations, published values and closed forms: to 1e-6 where exact."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import integrate, stats
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

from harness.analysis.fit import BlockDesign, Guarded, contrast, fit
from harness.analysis.intervals import (
    Estimate,
    critical_values,
    crossed,
    detectable_effect,
    half_width,
    holm,
    is_equivalent,
    mean_squares,
    nominal_levels,
    obrien_fleming_spent,
    p_value,
    pocock_spent,
    welch,
)
from harness.analysis.verdicts import better_interval

# Penicillin yields of four processes in five blends of corn liquor: Box, Hunter and Hunter, Statistics for
# Experimenters, 2nd ed. 2005, Table 4.4; its analysis of variance is printed in Table 4.5.
PENICILLIN = np.array(
    [[89, 84, 81, 87, 79], [88, 77, 87, 92, 81], [97, 92, 87, 89, 80], [94, 79, 85, 84, 88]]
)
EXACT = {"rel": 1e-6}


def pooled(fitted):
    zeros = np.zeros_like(fitted.own)
    return Guarded(variance=zeros + fitted.pooled[..., None], weight=zeros)


def frame_of(values):
    arms, seeds = np.nonzero(np.isfinite(values))
    return pd.DataFrame({"arm": arms, "seed": seeds, "y": values[np.isfinite(values)]})


def test_a_textbook_randomised_block_experiment():
    fitted = fit(BlockDesign.of(np.ones((4, 5))), PENICILLIN)
    assert fitted.design.df == 12
    assert float(fitted.pooled) * 12 == pytest.approx(226.0, **EXACT)  # printed: residual 226, 12 df, 18.83
    assert float(fitted.pooled) == pytest.approx(226 / 12, **EXACT)
    third = contrast(fitted, pooled(fitted), 2, 0)
    assert float(third.value) == pytest.approx(5.0, **EXACT)  # process means 84, 85, 89, 86
    assert float(third.se) == pytest.approx(math.sqrt(2 * 226 / 12 / 5), **EXACT)
    model = smf.ols("y ~ C(arm) + C(seed)", frame_of(PENICILLIN.astype(float))).fit()
    assert anova_lm(model).loc["Residual", "sum_sq"] == pytest.approx(226.0, **EXACT)
    assert anova_lm(model).loc["C(seed)", "sum_sq"] == pytest.approx(264.0, **EXACT)  # printed


def test_intervals_and_p_values_of_a_table_with_gaps_are_those_of_statsmodels():
    values = np.random.default_rng(0).normal(70, 1, size=(6, 5)) + np.arange(6)[:, None]
    values[[0, 2, 4, 5], [3, 0, 4, 4]] = np.nan
    model = smf.ols("y ~ C(arm) + C(seed)", frame_of(values)).fit()
    fitted = fit(BlockDesign.of(np.isfinite(values)), values)
    for arm in range(1, 6):
        name, estimate = f"C(arm)[T.{arm}]", contrast(fitted, pooled(fitted), arm, 0)
        low, high = model.conf_int().loc[name]
        assert float(half_width(estimate, 0.05)) == pytest.approx((high - low) / 2, **EXACT)
        assert float(p_value(estimate)) == pytest.approx(model.pvalues[name], **EXACT)


def test_balanced_contrasts_in_closed_form():
    values = np.random.default_rng(1).normal(size=(5, 4))
    fitted = fit(BlockDesign.of(np.ones((5, 4))), values)
    arm_means, seed_means = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    residuals = values - arm_means - seed_means + values.mean()
    assert float(fitted.pooled) == pytest.approx((residuals**2).sum() / 12, **EXACT)
    grubbs = [
        5 / (4 - 1) / (5 - 2) * ((residuals[a] ** 2).sum() - (residuals**2).sum() / 5 / 4) for a in range(5)
    ]  # Grubbs 1948: [A Q_a - Q / (A - 1)] / [(A - 2)(S - 1)], Q_a the sum of squares of the arm's residuals
    assert fitted.own == pytest.approx(np.array(grubbs), **EXACT)


def test_dunnetts_pooled_standard_error_is_ours_where_seeds_have_no_effect():
    # scipy's Dunnett has no blocks: its statistic is ours when every seed effect is removed beforehand,
    # but for the degrees of freedom of the residual variance
    values = np.random.default_rng(2).normal(size=(4, 6))
    values -= values.mean(axis=0, keepdims=True)
    fitted = fit(BlockDesign.of(np.ones((4, 6))), values)
    theirs = stats.dunnett(*values[1:], control=values[0])
    own = [contrast(fitted, pooled(fitted), arm, 0) for arm in (1, 2, 3)]
    ours = np.array([float(each.value / each.se) for each in own])
    assert theirs.statistic * math.sqrt(15 / 20) == pytest.approx(ours, **EXACT)


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(3).uniform(0, 0.1, size=12)
    rejected, adjusted, _, _ = multipletests(p, alpha=0.05, method="holm")
    ours = holm(p, 0.05)
    assert ours.p == pytest.approx(adjusted, **EXACT)
    assert (p <= ours.level).tolist() == rejected.tolist()


def test_welch_is_that_of_scipy():
    one, other = np.random.default_rng(4).normal(size=7), 2 * np.random.default_rng(5).normal(size=4)
    theirs = stats.ttest_ind(one, other, equal_var=False)
    ours = welch(one, other)
    assert float(p_value(ours)) == pytest.approx(theirs.pvalue, **EXACT)
    assert float(ours.df) == pytest.approx(theirs.df, **EXACT)


@pytest.mark.parametrize("margin", [0.5, 1.0, 1.4, 1.5, 2.5])
def test_equivalence_is_that_of_statsmodels(margin):
    one, other = np.random.default_rng(6).normal(size=8), np.random.default_rng(7).normal(size=6)
    p = ttost_ind(one, other, -margin, margin, usevar="unequal")[0]
    assert bool(is_equivalent(welch(one, other), margin)) == (p < 0.05)


def test_the_detectable_effect_has_the_power_that_statsmodels_says():
    estimate = Estimate(value=np.array(0.0), se=np.array(math.sqrt(2 / 6)), df=np.array(10.0))
    found = detectable_effect(estimate, 0.05)
    power = TTestIndPower().power(found, nobs1=6, alpha=0.05, alternative="larger", df=10)
    one_sided = stats.nct.sf(stats.t.ppf(0.975, 10), 10, found / math.sqrt(2 / 6))
    assert one_sided == pytest.approx(0.80, **EXACT)
    assert TTestIndPower().power(found, nobs1=6, alpha=0.05, df=10) == pytest.approx(0.80, abs=1e-6)
    assert power > 0.80


def test_group_sequential_boundaries_are_the_published_ones():
    # Lan-DeMets spending at equal looks. O'Brien-Fleming type, one-sided .05, four looks: integrated on a
    # coarser grid than ours, which the next test holds against quadrature. Pocock type, two-sided .05, five
    # looks: DeMets and Lan, Statistics in Medicine 13, 1994
    shares = [0.25, 0.5, 0.75, 1.0]
    spent = [obrien_fleming_spent(0.05, share) for share in shares]
    assert critical_values(spent, shares, sides=1) == pytest.approx(
        (3.74955, 2.53993, 2.01604, 1.72014), abs=5e-5
    )
    shares = [0.2, 0.4, 0.6, 0.8, 1.0]
    spent = [pocock_spent(0.05, share) for share in shares]
    assert critical_values(spent, shares) == pytest.approx((2.438, 2.427, 2.410, 2.397, 2.386), abs=1e-3)


def test_two_looks_spend_what_numerical_integration_says():
    first, second = (stats.norm.isf(level / 2) for level in nominal_levels(0.05, (5, 10)))
    stays = integrate.quad(
        lambda z: (
            stats.norm.pdf(z)
            * (
                stats.norm.cdf((second * math.sqrt(10) - z * math.sqrt(5)) / math.sqrt(5))
                - stats.norm.cdf((-second * math.sqrt(10) - z * math.sqrt(5)) / math.sqrt(5))
            )
        ),
        -first,
        first,
        epsabs=1e-12,
    )[0]
    assert 1 - stays == pytest.approx(0.05, abs=1e-8)
    assert 2 * stats.norm.sf(first) == pytest.approx(pocock_spent(0.05, 0.5), **EXACT)


def test_mean_squares_of_seeds_and_images_are_those_of_a_two_way_analysis_of_variance():
    differences = np.random.default_rng(8).integers(-1, 2, size=(4, 30)).astype(np.int8)
    seeds, images = np.indices(differences.shape)
    frame = pd.DataFrame({"s": seeds.ravel(), "i": images.ravel(), "d": differences.ravel().astype(float)})
    table = anova_lm(smf.ols("d ~ C(s) + C(i)", frame).fit())
    ours = mean_squares(differences)
    assert ours.seeds == pytest.approx(table.loc["C(s)", "mean_sq"], **EXACT)
    assert ours.images == pytest.approx(table.loc["C(i)", "mean_sq"], **EXACT)
    assert ours.residual == pytest.approx(table.loc["Residual", "mean_sq"], **EXACT)
    assert float(crossed(ours).value) == pytest.approx(differences.mean(), **EXACT)


def test_the_interval_of_p_a_better_inverts_the_noncentral_t():
    estimate = Estimate(value=np.array(1.2), se=np.array(0.6), df=np.array(9.0))
    low, high = better_interval(estimate, 0.6 * math.sqrt(5))
    for end, tail in ((low, 0.975), (high, 0.025)):
        noncentrality = stats.norm.ppf(end) * math.sqrt(5)
        assert stats.nct.cdf(2.0, 9, noncentrality) == pytest.approx(tail, abs=1e-6)
