"""Rows that evaluate the same networks: the intervals cover, which a plain block fit's do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.analysis import analyse
from harness.analysis.contrasts import compare, noise
from harness.analysis.findings import Settings
from harness.analysis.fit import Relations, roots_of
from harness.analysis.intervals import half_width
from harness.spec import Member
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained

ROOTS = [frozenset(name) for name in "aaabbbccc"]


def tables(count, seeds=3):
    """(count, 9, seeds): three networks, each evaluated in three ways that differ little; no true effects."""
    rng = np.random.default_rng(0)
    networks = np.repeat(rng.normal(size=(count, 3, seeds)), 3, axis=1)
    return networks + 0.1 * rng.normal(size=(count, 9, seeds))


def misses(pair, roots, count=400):
    missed = 0
    for values in tables(count):
        estimate = compare(80 + values, [pair], Settings(), relations=Relations(roots))[0].estimate
        missed += abs(estimate.value) > half_width(estimate, 0.05)
    return missed / count


@pytest.mark.campaign
def test_intervals_between_different_networks_cover():
    assert misses((6, 3), None) > 0.09  # treated as independent rows: too short
    assert misses((6, 3), ROOTS) == pytest.approx(0.05, abs=0.03)


def test_two_evaluations_of_one_network_are_compared_by_their_paired_differences():
    values = 80 + tables(1)[0]
    ours = compare(values, [(1, 0), (3, 0)], Settings(), relations=Relations(ROOTS))[0].estimate
    theirs = stats.ttest_rel(values[1], values[0])
    assert ours.value / ours.se == pytest.approx(theirs.statistic)
    assert ours.df == 2
    assert ours.se < 0.3 * compare(values, [(1, 0), (3, 0)], Settings())[0].estimate.se


def test_the_noise_between_seeds_is_that_of_trainings():
    pooled = [noise(values, Relations(ROOTS)).pooled_sd ** 2 for values in tables(200)]
    assert np.mean(pooled) == pytest.approx(1.0, abs=0.15)
    assert np.mean([noise(values).pooled_sd ** 2 for values in tables(200)]) < 0.87


def test_tables_without_shared_networks_are_analysed_as_ever():
    values = 80 + tables(1)[0]
    apart = [frozenset({str(k)}) for k in range(9)]
    pairs = [(k, 0) for k in range(1, 9)]
    assert compare(values, pairs, Settings(), relations=Relations(apart)) == compare(
        values, pairs, Settings()
    )


def test_an_ensemble_shares_with_each_of_its_networks_and_they_not_with_each_other():
    one, other = trained(0), trained(1)
    mixed = observer(Member(arm=one.arm_id), Member(arm=other.arm_id, runs=3))
    roots = roots_of({arm.arm_id: arm for arm in (one, other, mixed)})
    assert roots[mixed.arm_id] == {one.arm_id, other.arm_id}
    assert not roots[one.arm_id] & roots[other.arm_id]


def test_a_study_reads_from_its_plan_which_rows_share_networks():
    one, others = trained(0), [trained(k) for k in (1, 2, 3)]
    crops = observer(Member(arm=one.arm_id))
    rows = [Row(label="one", arm=one), Row(label="crops", arm=crops, versus="one")]
    rows += [Row(label=f"r{k}", arm=arm, versus="one") for k, arm in enumerate(others)]
    plan = make_plan({"t": rows})
    findings = analyse(plan, *frames_of(plan, {}, Noise()), Settings())
    effects = {cell.row: cell.effect for cell in findings.tables[0].cells}
    assert effects["crops"].df == 2  # paired
    assert effects["r0"].df == 6  # four networks, three seeds, without the second evaluation of the first


def test_a_column_has_its_own_noise():
    """Two columns of four arms; the second is ten times as noisy and does not touch the first one."""
    rng = np.random.default_rng(3)
    quiet, loud = 80 + rng.normal(0, 0.3, (4, 3)), 60 + rng.normal(0, 3.0, (4, 3))
    values = np.vstack([quiet, loud])
    columns = Relations(None, [frozenset({"quiet"})] * 4 + [frozenset({"loud"})] * 4)
    pairs = [(1, 0), (2, 0), (5, 4), (6, 4)]
    apart = compare(values, pairs, Settings(), relations=columns)
    alone = [*compare(quiet, [(1, 0), (2, 0)], Settings()), *compare(loud, [(1, 0), (2, 0)], Settings())]
    assert [each.estimate for each in apart] == [each.estimate for each in alone]
    together = compare(values, pairs, Settings())
    assert together[0].estimate.se > 2 * apart[0].estimate.se


def test_holm_counts_the_contrasts_of_all_columns():
    values = 80 + np.random.default_rng(5).normal(0, 0.3, (6, 3))
    columns = Relations(None, [frozenset({"a"})] * 3 + [frozenset({"b"})] * 3)
    pairs = [(1, 0), (2, 0), (4, 3), (5, 3)]
    found = compare(values, pairs, Settings(), relations=columns)
    assert min(each.level for each in found) == 0.05 / 4


def test_an_arm_in_two_columns_is_fitted_with_the_column_of_the_contrast():
    both = frozenset({"a", "b"})
    columns = Relations(None, [both, frozenset({"a"}), frozenset({"a"}), frozenset({"b"}), frozenset({"b"})])
    assert columns.fitted_with((1, 0), 5) == (0, 1, 2)
    assert columns.fitted_with((3, 0), 5) == (0, 3, 4)


def test_a_column_of_two_arms_is_fitted_with_the_table():
    columns = Relations(None, [frozenset({"a"})] * 2 + [frozenset({"b"})] * 3)
    assert columns.fitted_with((1, 0), 5) == (0, 1, 2, 3, 4)
    assert columns.fitted_with((3, 2), 5) == (2, 3, 4)
