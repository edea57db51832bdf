"""The block fit is ordinary least squares on arms and seeds, complete or not."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from harness.analysis.fit import BlockDesign, contrast, fit, guard, seed_correlation

COMPLETE = np.ones((4, 3), dtype=bool)
GAPS = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)


def values_for(mask, seed=0):
    rng = np.random.default_rng(seed)
    table = (
        70 + rng.normal(size=mask.shape) + rng.normal(size=(1, mask.shape[1])) + np.arange(len(mask))[:, None]
    )
    return np.where(mask, table, np.nan)


def ols(values):
    """The same model in statsmodels, arm 0 and seed 0 as references."""
    arms, seeds = np.nonzero(np.isfinite(values))
    frame = pd.DataFrame({"arm": arms, "seed": seeds, "y": values[np.isfinite(values)]})
    return smf.ols("y ~ C(arm) + C(seed)", frame).fit()


def never_flag(fitted):
    return guard(fitted, np.full(fitted.own_df.shape[-1], -1.0))


@pytest.mark.parametrize("mask", [COMPLETE, GAPS], ids=["complete", "gaps"])
def test_contrasts_standard_errors_and_df_equal_statsmodels(mask):
    values = values_for(mask)
    model = ols(values)
    fitted = fit(BlockDesign.of(mask), values)
    assert fitted.design.df == model.df_resid
    assert fitted.pooled == pytest.approx(model.mse_resid, rel=1e-9)
    for arm in range(1, len(mask)):
        estimate = contrast(fitted, never_flag(fitted), arm, 0)
        assert estimate.value == pytest.approx(model.params[f"C(arm)[T.{arm}]"], abs=1e-9)
        assert estimate.se == pytest.approx(model.bse[f"C(arm)[T.{arm}]"], rel=1e-9)
        assert estimate.df == pytest.approx(model.df_resid)
    between = contrast(fitted, never_flag(fitted), 3, 2)
    theirs = model.t_test("C(arm)[T.3] - C(arm)[T.2]")
    assert between.value == pytest.approx(float(theirs.effect[0]), abs=1e-9)
    assert between.se == pytest.approx(float(theirs.sd.item()), rel=1e-9)


def test_two_complete_arms_give_the_paired_t_test():
    values = values_for(np.ones((2, 6), dtype=bool))
    fitted = fit(BlockDesign.of(np.ones((2, 6))), values)
    estimate = contrast(fitted, never_flag(fitted), 1, 0)
    theirs = stats.ttest_rel(values[1], values[0])
    assert estimate.value / estimate.se == pytest.approx(theirs.statistic, rel=1e-9)
    assert estimate.df == theirs.df == 5


def test_a_table_by_hand():
    values = np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 7.0]])
    exact = fit(BlockDesign.of(np.ones((3, 2))), values)
    assert exact.pooled == pytest.approx(0.0, abs=1e-20)
    values[0, 0] -= 3.0  # residuals (2/3)(1/2)(-3) = -1 on that run, +1 beside it, +-1/2 in the other rows
    fitted = fit(BlockDesign.of(np.ones((3, 2))), values)
    assert fitted.pooled == pytest.approx((1 + 1 + 4 * 0.25) / 2)
    # arm 0 holds all of it: Q_0 = A / (A - 1) (1 + 1) = 3, the others 0; own = (3 * 3 - 0) / (3 - 1) = 4.5
    assert fitted.own[0] == pytest.approx(4.5)
    assert fitted.ratio[0] > 1e12


@pytest.mark.parametrize("mask", [COMPLETE, GAPS], ids=["complete", "gaps"])
def test_an_arms_part_of_the_residuals_is_what_vanishes_when_the_arm_is_left_out(mask):
    values = values_for(mask, seed=3)
    whole = ols(values)
    fitted = fit(BlockDesign.of(mask), values)
    for arm in range(len(mask)):
        rest = ols(np.delete(values, arm, axis=0))
        df = whole.df_resid - rest.df_resid
        assert fitted.own_df[arm] == df
        assert fitted.ratio[arm] == pytest.approx(((whole.ssr - rest.ssr) / df) / rest.mse_resid, rel=1e-7)


def test_own_variances_are_unbiased_when_arms_differ_and_runs_are_missing():
    sd = np.array([3.0, 1.0, 0.5, 2.0, 1.0])
    rng = np.random.default_rng(1)
    tables = rng.normal(size=(20000, *GAPS.shape)) * sd[:, None] + rng.normal(size=(20000, 1, GAPS.shape[1]))
    own = fit(BlockDesign.of(GAPS), tables).own.mean(axis=0)
    complete = fit(BlockDesign.of(np.ones_like(GAPS)), tables).own.mean(axis=0)
    assert complete == pytest.approx(sd**2, abs=0.2)
    # with gaps the other arms' variances enter with unequal weights: near, not equal
    assert own[0] == pytest.approx(9.0, rel=0.1)


def test_the_ratio_is_f_distributed_when_variances_are_equal():
    tables = np.random.default_rng(2).normal(size=(4000, 5, 4))
    fitted = fit(BlockDesign.of(np.ones((5, 4))), tables)
    p = stats.f.sf(fitted.ratio[:, 2], 3, 12 - 3)
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_many_tables_at_once_equal_one_by_one():
    tables = np.random.default_rng(4).normal(size=(3, *GAPS.shape))
    design = BlockDesign.of(GAPS)
    together = fit(design, tables)
    for k in range(3):
        alone = fit(design, tables[k])
        assert together.pooled[k] == pytest.approx(alone.pooled)
        assert together.own[k] == pytest.approx(alone.own)
        both = contrast(together, never_flag(together), 2, 0), contrast(alone, never_flag(alone), 2, 0)
        assert both[0].se[k] == pytest.approx(both[1].se)


def test_arms_without_a_chain_of_shared_seeds_cannot_be_compared_by_the_fit():
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    design = BlockDesign.of(mask)
    assert design.df == 2
    assert design.weights(1, 0) is not None
    assert design.weights(2, 0) is None


def test_empty_arms_and_seeds_change_nothing():
    values = values_for(COMPLETE)
    padded = np.full((5, 4), np.nan)
    padded[:4, 1:] = values
    plain, wide = fit(BlockDesign.of(COMPLETE), values), fit(BlockDesign.of(np.isfinite(padded)), padded)
    assert wide.design.df == plain.design.df
    assert wide.pooled == pytest.approx(plain.pooled)
    assert wide.own[:4] == pytest.approx(plain.own)


def test_seed_correlation_is_the_blocks_share_of_the_variance():
    rng = np.random.default_rng(5)
    noise, blocks = rng.normal(size=(500, 6, 8)), rng.normal(size=(500, 1, 8))
    complete = BlockDesign.of(np.ones((6, 8)))
    assert seed_correlation(fit(complete, noise + blocks)).mean() == pytest.approx(0.5, abs=0.05)
    assert seed_correlation(fit(complete, noise)).mean() < 0.05
    gaps = np.ones((6, 8), dtype=bool)
    gaps[[0, 2, 5], [1, 3, 3]] = False
    assert seed_correlation(fit(BlockDesign.of(gaps), noise + blocks)).mean() == pytest.approx(0.5, abs=0.05)
