"""What a published table could have detected, against closed forms and scipy."""

from __future__ import annotations

import dataclasses

import pytest
from scipy import stats

from harness.analysis.precision import (
    BETTER,
    CANNOT_TELL,
    NO_DIFFERENCE,
    NOT_SETTLED,
    WORSE,
    AssumedSd,
    PrintedRow,
    PrintedTable,
    audit,
    spread_of,
)

ASSUMED = AssumedSd(value=0.12, runs=5, source="elsewhere")


def table(*rows: PrintedRow, **more: object) -> PrintedTable:
    return PrintedTable(title="a table", rows=rows, **more)  # type: ignore[arg-type]


def row(label: str, value: float, **more: object) -> PrintedRow:
    return PrintedRow(label=label, value=value, **more)  # type: ignore[arg-type]


BASE = row("base", 76.0, plus_minus=0.2, runs=5, spread="sd")
TRICK = row("trick", 76.5, plus_minus=0.3, runs=4, spread="sd", versus="base")


def test_a_comparison_with_stated_spreads_is_welchs_test():
    found = audit(table(BASE, TRICK)).rows[0]
    welch = stats.ttest_ind_from_stats(76.5, 0.3, 4, 76.0, 0.2, 5, equal_var=False)
    assert found.p_holm == pytest.approx(welch.pvalue)
    v1, v2 = 0.3**2 / 4, 0.2**2 / 5
    df = (v1 + v2) ** 2 / (v1**2 / 3 + v2**2 / 4)
    width = stats.t.ppf(0.975, df) * (v1 + v2) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - width, 0.5 + width))


def test_two_assumed_spreads_are_one_estimate_with_its_own_degrees_of_freedom():
    found = audit(table(row("a", 75.0), row("b", 75.6, versus="a"), assume_sd=ASSUMED)).rows[0]
    width = stats.t.ppf(0.975, 4) * 0.12 * 2**0.5
    assert (found.low, found.high) == pytest.approx((0.6 - width, 0.6 + width))
    assert found.word == BETTER
    assert found.why == "the number of runs is not stated and counted as 1; with the assumed spread"


@pytest.mark.parametrize(
    ("spread", "sd"),
    [("sd", 0.3), ("se", 0.3 * 2), ("unknown", 0.3 * 2), ("ci95", 0.3 * 2 / stats.t.ppf(0.975, 3))],
)
def test_each_kind_of_plus_minus_is_taken_to_a_standard_deviation(spread: str, sd: float):
    found = spread_of(row("a", 1.0, plus_minus=0.3, runs=4, spread=spread), None)
    assert found is not None
    assert found.sd == pytest.approx(sd)
    assert found.df == 3


def test_a_plus_minus_of_one_run_is_not_taken_for_a_spread_over_runs():
    lonely = row("b", 76.9, plus_minus=0.1, runs=1, spread="sd", versus="base")
    found = audit(table(BASE, lonely)).rows[0]
    assert (found.word, found.low) == (CANNOT_TELL, None)
    assert "the ± of 'b' cannot be over re-training: one run, or none stated" in found.why


def test_without_any_spread_nothing_is_claimed():
    found = audit(table(row("a", 70.0), row("b", 79.0, versus="a"), test_images=50_000)).rows[0]
    assert (found.word, found.low, found.p_holm, found.detectable) == (CANNOT_TELL, None, None, None)
    share = (0.70 * 0.30 + 0.79 * 0.21) / 50_000
    assert found.images_width == pytest.approx(100 * stats.norm.ppf(0.975) * share**0.5)


def test_holm_counts_every_comparison_also_those_without_a_spread():
    alone = audit(table(BASE, TRICK)).rows[0]
    unknown = row("c", 77.0, versus="base")
    with_unknown = audit(table(BASE, TRICK, unknown)).rows[0]
    assert with_unknown.p_holm == pytest.approx(2 * alone.p_holm)


def test_less_is_better_where_the_table_says_so():
    errors = audit(table(row("a", 24.0), row("b", 22.0, versus="a"), assume_sd=ASSUMED, better="lower")).rows[
        0
    ]
    assert errors.improvement == pytest.approx(2.0)
    assert errors.word == BETTER
    assert audit(table(row("a", 24.0), row("b", 22.0, versus="a"), assume_sd=ASSUMED)).rows[0].word == WORSE


def test_a_small_effect_known_to_be_small_is_no_detectable_difference():
    near = row("b", 76.01, plus_minus=0.05, runs=10, spread="sd", versus="a")
    base = row("a", 76.0, plus_minus=0.05, runs=10, spread="sd")
    assert audit(table(base, near, smallest_effect=0.2)).rows[0].word == NO_DIFFERENCE
    assert audit(table(base, near)).rows[0].word == NOT_SETTLED


def test_the_detectable_effect_has_80_percent_power():
    """By simulation: 20,000 Welch tests of two groups of five with that true difference."""
    import numpy as np

    base = dataclasses.replace(BASE, plus_minus=0.2)
    found = audit(table(base, row("b", 76.1, plus_minus=0.2, runs=5, spread="sd", versus="base"))).rows[0]
    random = np.random.default_rng(5)
    a, b = random.normal(0, 0.2, (20_000, 5)), random.normal(found.detectable, 0.2, (20_000, 5))
    power = (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.80, abs=0.01)


def test_the_seeds_for_the_smallest_effect_find_it_with_80_percent_power():
    import numpy as np

    found = audit(table(row("a", 75.0), row("b", 75.1, versus="a"), assume_sd=ASSUMED, smallest_effect=0.2))
    n = found.seeds_for_smallest
    assert n is not None
    random = np.random.default_rng(6)
    a, b = random.normal(0, 0.12, (20_000, n)), random.normal(0.2, 0.12, (20_000, n))
    fewer = stats.ttest_ind(a[:, :-1], b[:, :-1], axis=1).pvalue < 0.05
    assert (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean() >= 0.79
    assert fewer.mean() < 0.80


def test_a_row_from_memory_marks_its_comparison():
    found = audit(table(dataclasses.replace(BASE, status="memory"), TRICK)).rows[0]
    assert found.status == "memory"
