"""Order, seed effects and units change nothing; no table whatever gives NaN."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.findings import Settings
from tests.analysis.tables import found, plain, records, star

values_strategy = st.lists(
    st.lists(st.one_of(st.none(), st.floats(0, 100).map(lambda v: round(v, 2))), min_size=4, max_size=4),
    min_size=2,
    max_size=5,
)


@given(values_strategy, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_any_table_is_finite_and_the_order_of_rows_does_not_matter(values, random):
    arms = {f"a{k}": row for k, row in enumerate(values)}
    rows = records(arms)
    first = plain(found(star(list(arms)), rows, 4))
    random.shuffle(rows)
    assert plain(found(star(list(arms)), rows, 4)) == first


EFFECT_SCALES = ("estimate", "low", "high", "adjusted_low", "adjusted_high", "detectable")


@given(st.integers(0, 1000), st.sampled_from([0.5, 2.0]), st.permutations(range(4)))
@settings(max_examples=15, deadline=None)
def test_seed_effects_and_seed_order_do_not_matter_and_scaling_scales(seed, factor, order):
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 0.3, size=(4, 4)) + np.array([[0], [0.8], [-0.4], [0]])
    shift = rng.normal(0, 3, size=(1, 4))
    arms = ["a0", "a1", "a2", "a3"]

    def effects(values, scale=1.0):
        rows = records({arm: list(50 + row) for arm, row in zip(arms, values, strict=True)})
        return [
            each.effect
            for each in found(
                star([f"a{k}" for k in range(4)]), rows, 4, Settings(smallest_effect_pp=0.2 * scale)
            ).cells
            if each.effect
        ]

    plain_effects = effects(base)
    for ours, moved, permuted, scaled in zip(
        plain_effects,
        effects(base + shift),
        effects(base[:, order]),
        effects(base * factor, factor),
        strict=True,
    ):
        for name in EFFECT_SCALES:
            value = getattr(ours, name)
            assert getattr(moved, name) == pytest.approx(value, abs=1e-9)
            assert getattr(permuted, name) == pytest.approx(value, abs=1e-9)
            assert getattr(scaled, name) == pytest.approx(value * factor, abs=1e-9)
        assert moved.p_holm == pytest.approx(ours.p_holm, abs=1e-9)
        assert scaled.p_holm == pytest.approx(ours.p_holm, abs=1e-9)
        assert ours.verdict == moved.verdict == permuted.verdict == scaled.verdict
        assert ours.fragile == moved.fragile == permuted.fragile == scaled.fragile
