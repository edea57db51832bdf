"""However often one looks, no more error is spent than was declared: boundaries against published values."""

import numpy as np
import pytest
from scipy import stats

from harness.analysis.intervals import (
    Stage,
    critical_values,
    holm,
    nominal_levels,
    obrien_fleming_spent,
    pocock_spent,
    repeated_p,
)

LOOKS = (3, 5, 8, 12, 20)
SHARES = [seeds / 20 for seeds in LOOKS]


def normal_process(shares):
    t = np.asarray(shares)
    cov = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    return stats.multivariate_normal(np.zeros(t.size), cov, maxpts=2_000_000, abseps=1e-8, releps=1e-8)


def test_obrien_fleming_boundaries_are_those_of_the_literature():
    shares = (0.25, 0.5, 0.75, 1.0)
    z = critical_values([obrien_fleming_spent(0.05, t) for t in shares], shares, sides=1)
    # SeqBounds.jl prints 3.74955 2.53993 2.01604 1.72014; its last two spend 2e-6 and 4e-6 too much
    assert z == pytest.approx((3.74955, 2.53993, 2.01604, 1.72014), abs=5e-5)
    for k in (1, 2, 3):
        stays = normal_process(shares[: k + 1]).cdf(z[: k + 1])
        assert 1 - stays == pytest.approx(obrien_fleming_spent(0.05, shares[k]), abs=1e-7)


def test_pocock_type_boundaries_are_those_of_the_protocol():
    z = critical_values([pocock_spent(0.05 / 8, t) for t in SHARES], SHARES)
    assert z == pytest.approx((3.19, 3.27, 3.20, 3.15, 3.04), abs=0.005)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("alpha", [0.2, 0.05 / 9])
def test_two_looks_spend_what_they_should_by_the_bivariate_normal_distribution(alpha, sides):
    shares = (0.3, 1.0)
    z = critical_values([pocock_spent(alpha, t) for t in shares], shares, sides)
    low = [-each if sides == 2 else -40.0 for each in z]
    stays = normal_process(shares).cdf(z, lower_limit=low)
    assert 1 - stays == pytest.approx(alpha, rel=1e-6)
    assert sides * stats.norm.sf(z[0]) == pytest.approx(pocock_spent(alpha, 0.3), rel=1e-9)


def test_a_single_look_spends_everything_and_is_the_plain_quantile():
    assert critical_values([0.05], [1.0]) == pytest.approx((stats.norm.ppf(0.975),), abs=1e-9)
    assert critical_values([0.05], [1.0], sides=1) == pytest.approx((stats.norm.ppf(0.95),), abs=1e-9)
    assert nominal_levels(0.05, (5,)) == nominal_levels(0.05, ()) == (0.05,)
    assert pocock_spent(0.05, 1.0) == pytest.approx(0.05, rel=1e-15)
    assert obrien_fleming_spent(0.05, 1.0) == pytest.approx(0.05, rel=1e-12)


def test_a_look_that_may_spend_nothing_rejects_nothing():
    first, last = critical_values([obrien_fleming_spent(1e-3, 1e-3), 1e-3], [1e-3, 1.0])
    assert first == np.inf
    assert last == pytest.approx(stats.norm.isf(5e-4), rel=1e-9)


@pytest.mark.parametrize("looks", [LOOKS, (3, 5, 7, 10), (3, 5), tuple(range(3, 21))])
def test_more_error_to_spend_never_makes_any_look_stricter(looks):
    """Without this a row could lose by being given more: the condition of Maurer and Bretz (2013)."""
    levels = np.array([nominal_levels(float(alpha), looks) for alpha in np.geomspace(1e-6, 0.3, 25)])
    assert (np.diff(levels, axis=0) > 0).all()
    assert (levels.sum(axis=1) > np.geomspace(1e-6, 0.3, 25) * 0.9999).all()  # looks overlap, none is lost


def test_the_repeated_p_is_the_alpha_whose_boundary_the_p_touches():
    for number in range(len(LOOKS)):
        alpha = np.array([1e-7, 0.004, 0.05])
        p = np.array([nominal_levels(float(each), LOOKS)[number] for each in alpha])
        assert repeated_p(p, LOOKS, number) == pytest.approx(alpha, rel=1e-4)
    extreme = repeated_p(np.array([0.0, 1e-250, 1.0]), LOOKS, 2)
    assert (extreme >= 0).all()
    assert extreme[1] < 1e-248
    assert extreme[2] == 1.0
    assert repeated_p(np.array([0.03]), (5,), 0) == [0.03]


def test_one_look_is_holm():
    p = np.array([0.02, 0.001, 0.04, 0.9])
    ours, theirs = Stage(looks=(5,)).step_down(p, 4, 0.05), holm(p, 0.05)
    assert ours.p.tolist() == theirs.p.tolist()
    assert ours.level.tolist() == theirs.level.tolist()


def test_at_a_look_holm_steps_through_the_nominal_levels():
    stage = Stage(looks=LOOKS, number=1, open=(0, 1, 2, 3))
    bar = [stage.nominal(0.05 / left) for left in (4, 3, 2, 1)]
    p = np.array([bar[2] * 0.99, bar[0] * 0.99, bar[1] * 0.99, 0.5])
    found = stage.step_down(p, 4, 0.05)
    assert found.level == pytest.approx([bar[2], bar[0], bar[1], bar[3]])
    assert (found.p <= 0.05).tolist() == [True, True, True, False]
    first_fails = stage.step_down(np.array([bar[2] * 0.99, bar[0] * 1.01, bar[1] * 0.99, 0.5]), 4, 0.05)
    assert first_fails.level == pytest.approx([bar[0]] * 4)
    assert (first_fails.p > 0.05).all()


def test_recycling_gives_the_share_of_a_rejected_row_to_those_that_are_left():
    before = Stage(looks=LOOKS, number=2, open=(0, 1), rejected=0)
    after = Stage(looks=LOOKS, number=2, open=(1,), rejected=1)
    p = (before.nominal(0.05 / 2) + before.nominal(0.05)) / 2
    assert (before.step_down(np.array([0.9, p]), 2, 0.05).p > 0.05).all()
    assert after.step_down(np.array([p]), 2, 0.05).p < 0.05
    assert after.step_down(np.array([p]), 2, 0.05).level == before.nominal(0.05)


def test_a_row_settled_as_no_difference_keeps_its_share():
    stage = Stage(looks=LOOKS, number=2, open=(1,), rejected=0)  # of two, none rejected
    assert stage.step_down(np.array([0.5]), 2, 0.05).level == stage.nominal(0.05 / 2)
