"""Rows that evaluate the same networks: the intervals cover, which a plain block fit's do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.analysis import analyse
from harness.analysis.comparisons import compare, noise
from harness.analysis.findings import Settings
from harness.analysis.intervals import half_width
from harness.analysis.sharing import roots_of
from harness.study.spec import Member
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
        estimate = compare(80 + values, [pair], Settings(), roots=roots)[0].estimate
        missed += abs(estimate.value) > half_width(estimate, 0.05)
    return missed / count


def test_intervals_between_different_networks_cover():
    assert misses((6, 3), None) > 0.09  # treated as independent rows: too short
    assert misses((6, 3), ROOTS) == pytest.approx(0.05, abs=0.03)


def test_two_evaluations_of_one_network_are_compared_by_their_paired_differences():
    values = 80 + tables(1)[0]
    ours = compare(values, [(1, 0), (3, 0)], Settings(), roots=ROOTS)[0].estimate
    theirs = stats.ttest_rel(values[1], values[0])
    assert ours.value / ours.se == pytest.approx(theirs.statistic)
    assert ours.df == 2
    assert ours.se < 0.3 * compare(values, [(1, 0), (3, 0)], Settings())[0].estimate.se


def test_the_noise_between_seeds_is_that_of_trainings():
    pooled = [noise(values, ROOTS).pooled_sd ** 2 for values in tables(200)]
    assert np.mean(pooled) == pytest.approx(1.0, abs=0.15)
    assert np.mean([noise(values).pooled_sd ** 2 for values in tables(200)]) < 0.87


def test_tables_without_shared_networks_are_analysed_as_ever():
    values = 80 + tables(1)[0]
    apart = [frozenset({str(k)}) for k in range(9)]
    pairs = [(k, 0) for k in range(1, 9)]
    assert compare(values, pairs, Settings(), roots=apart) == compare(values, pairs, Settings())


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
