"""The weights of every design give the Shapley values, by the definition over all orders."""

import itertools

import numpy as np
import pytest
import statsmodels.formula.api as smf
from pandas import DataFrame

from harness.analysis.contrasts import FORWARD_AND_REVERSE, weights_for
from harness.study.designs import fraction


def arms_of(design, tricks):
    every = frozenset(range(tricks))
    singles = [frozenset({i}) for i in range(tricks)]
    if design == "both_ends":
        return list(dict.fromkeys([frozenset(), *singles, every, *(every - one for one in singles)]))
    if design == "both_ways":
        return [frozenset(range(k)) for k in range(tricks + 1)] + [
            frozenset(range(k, tricks)) for k in range(1, tricks)
        ]
    if design == "fractional":
        return [frozenset(np.flatnonzero(row).tolist()) for row in fraction(tricks, 5)]
    return [frozenset(c) for k in range(tricks + 1) for c in itertools.combinations(range(tricks), k)]


def game(tricks, order, seed=0):
    """A random game with interactions of at most `order` tricks, as a function of a set."""
    rng = np.random.default_rng(seed)
    terms = {
        frozenset(members): rng.normal()
        for size in range(order + 1)
        for members in itertools.combinations(range(tricks), size)
    }
    return lambda on: sum(value for members, value in terms.items() if members <= on)


def by_definition(value, tricks):
    """The mean over all T! orders of what each trick adds."""
    added = np.zeros(tricks)
    orders = list(itertools.permutations(range(tricks)))
    for order in orders:
        for place, trick in enumerate(order):
            below = frozenset(order[:place])
            added[trick] += value(below | {trick}) - value(below)
    return added / len(orders)


def credits(design, tricks, value):
    arms = arms_of(design, tricks)
    weights = weights_for(design, arms, tricks)
    return weights, np.array([value(arm) for arm in arms])


EXACT_FOR_PAIRS = [
    *(("both_ends", tricks) for tricks in (2, 3, 4, 6)),
    *(("both_ways", tricks) for tricks in (2, 3, 4, 6)),
    *(("factorial", tricks) for tricks in (2, 3, 4, 6)),
    *(("fractional", tricks) for tricks in (5, 6)),
]


@pytest.mark.parametrize(("design", "tricks"), EXACT_FOR_PAIRS)
def test_with_interactions_of_pairs_every_design_gives_the_shapley_values(design, tricks):
    for seed in range(5):
        value = game(tricks, 2, seed)
        weights, means = credits(design, tricks, value)
        np.testing.assert_allclose(weights.credit @ means, by_definition(value, tricks), rtol=0, atol=1e-12)
        np.testing.assert_allclose(weights.checks @ means, 0.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("design", "tricks"), [("factorial", 2), ("factorial", 5), ("both_ends", 3)])
def test_all_subsets_and_three_tricks_at_both_ends_need_no_assumption(design, tricks):
    value = game(tricks, tricks, 7)
    weights, means = credits(design, tricks, value)
    np.testing.assert_allclose(weights.credit @ means, by_definition(value, tricks), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("design", "tricks"), EXACT_FOR_PAIRS)
def test_credits_add_up_to_all_minus_none_whatever_interacts(design, tricks):
    value = game(tricks, tricks, 3)
    weights, means = credits(design, tricks, value)
    assert (weights.credit @ means).sum() == pytest.approx(weights.total @ means, abs=1e-12)
    if design != "fractional":  # there, the total is that of the fit
        everything, nothing = frozenset(range(tricks)), frozenset()
        assert weights.total @ means == pytest.approx(value(everything) - value(nothing), abs=1e-12)
    for part in (weights.credit, weights.first, weights.last, weights.total[None], weights.checks):
        np.testing.assert_allclose(part.sum(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("design", ["both_ends", "factorial", "fractional"])
def test_first_is_alone_and_last_is_given_all_others(design):
    value = game(5, 2, 11)
    weights, means = credits(design, 5, value)
    every = frozenset(range(5))
    alone = [value(frozenset({i})) - value(frozenset()) for i in range(5)]
    after = [value(every) - value(every - {i}) for i in range(5)]
    np.testing.assert_allclose(weights.first @ means, alone, atol=1e-12)
    np.testing.assert_allclose(weights.last @ means, after, atol=1e-12)
    np.testing.assert_allclose(weights.half_gap @ means, (np.array(after) - alone) / 2, atol=1e-12)


def test_both_ways_shows_the_two_orders_and_both_add_up():
    value = game(4, 4, 5)
    weights, means = credits("both_ways", 4, value)
    sets = [frozenset(range(k)) for k in range(5)]
    forward = [value(above) - value(below) for below, above in itertools.pairwise(sets)]
    assert weights.places == FORWARD_AND_REVERSE
    np.testing.assert_allclose(weights.first @ means, forward, atol=1e-12)
    np.testing.assert_allclose(weights.forward @ means, forward, atol=1e-12)
    total = value(sets[-1]) - value(sets[0])
    assert (weights.last @ means).sum() == pytest.approx(total, abs=1e-12)


def test_the_fraction_is_the_least_squares_fit_of_statsmodels():
    arms = arms_of("fractional", 6)
    weights = weights_for("fractional", arms, 6)
    means = np.random.default_rng(2).normal(size=len(arms))
    frame = DataFrame({f"x{i}": [float(i in arm) for arm in arms] for i in range(6)})
    frame["y"] = means
    fit = smf.ols("y ~ (x0 + x1 + x2 + x3 + x4 + x5) ** 2", frame).fit()
    pairs = {i: sum(fit.params[f"x{min(i, j)}:x{max(i, j)}"] for j in range(6) if j != i) for i in range(6)}
    for i in range(6):
        assert weights.first[i] @ means == pytest.approx(fit.params[f"x{i}"], abs=1e-9)
        assert weights.credit[i] @ means == pytest.approx(fit.params[f"x{i}"] + pairs[i] / 2, abs=1e-9)
        assert weights.last[i] @ means == pytest.approx(fit.params[f"x{i}"] + pairs[i], abs=1e-9)


def test_interactions_of_three_show_in_the_checks_but_not_in_three_tricks_at_both_ends():
    value = game(4, 3, 1)
    for design in ("both_ends", "factorial"):
        weights, means = credits(design, 4, value)
        assert np.abs(weights.checks @ means).max() > 0.1
    assert weights_for("both_ways", arms_of("both_ways", 4), 4).checks.shape == (0, 8)
    assert weights_for("factorial", arms_of("factorial", 2), 2).checks.shape[0] == 0


@pytest.mark.parametrize("design", ["both_ends", "both_ways", "factorial"])
def test_a_missing_arm_leaves_no_weights(design):
    arms = arms_of(design, 4)
    assert all(weights_for(design, arms[:k] + arms[k + 1 :], 4) is None for k in range(len(arms)))


def test_a_fraction_that_confounds_pairs_gives_no_credit():
    arms = [frozenset(np.flatnonzero(row).tolist()) for row in fraction(6, 4)]
    assert weights_for("fractional", arms, 6) is None


def test_sharing_the_rest_halves_the_variance():
    """docs/decisions/0015: sums of squared weights, in sigma^2 / S; the mean of the ends alone has 1."""
    for tricks in (3, 4, 6, 8, 10):
        weights = weights_for("both_ends", arms_of("both_ends", tricks), tricks)
        expected = 1 / tricks + (tricks + (tricks - 2) ** 2) / (2 * tricks**2)
        np.testing.assert_allclose((weights.credit**2).sum(axis=1), expected, rtol=1e-12)
    both_ways = weights_for("both_ways", arms_of("both_ways", 6), 6)
    np.testing.assert_allclose((both_ways.credit**2).sum(axis=1), 1.0, rtol=1e-12)
