"""The error rates hold: a small version of `make validate-statistics`, which measures the product."""

import dataclasses

import numpy as np
import pytest

from harness.analysis import calibration
from harness.analysis.contrasts import compare, compare_family
from harness.analysis.findings import HELPS, HURTS, Settings
from harness.analysis.looks import settle
from tests.analysis.validation import targets, validate_statistics, validation_sequential
from tests.conftest import mostly_campaign

STAR = [(arm, 0) for arm in range(1, 5)]
CHAIN = [(arm, arm - 1) for arm in range(1, 5)]
QUICK = (  # the patterns of noise of check "nulls" are in test_guard.py
    "coverage",
    "mixed",
    "power",
    "better",
    "credit",
    "equivalence",
    "unequal",
    "images",
    "certificates",
    "lost verdicts",
    "claims",
)


@pytest.mark.parametrize("name", mostly_campaign(QUICK, *QUICK[:5]))
def test_every_target_is_met(name):
    assert validate_statistics.missed_targets([name]) == []


def test_adaptive_studies_save_runs():
    rows = validation_sequential.adaptive(validation_sequential.TYPICAL, 12)
    assert [row for row in rows if not row.met] == []
    assert next(row.value for row in rows if row.quantity == "runs saved") > 0.3


def test_peeking_without_a_correction_finds_effects_where_there_are_none():
    assert all(row.value > 0.3 for row in validation_sequential.naive_peeking(400))


@pytest.mark.parametrize("pairs", [STAR, CHAIN], ids=["star", "chain"])
@pytest.mark.parametrize("gap", [False, True])
def test_many_tables_at_once_are_decided_as_one_by_one(pairs, gap):
    values = np.random.default_rng(0).normal(size=(20, 5, 4)) * np.array([2.0, 1, 1, 3, 1])[:, None]
    values[:, 2] += 4.0
    present = np.ones((5, 4), dtype=bool)
    if gap:
        present[[0, 3], [3, 1]] = False
    many = calibration.judge_tables(values, pairs, 0.05, present)
    for k in range(20):
        single = compare(np.where(present, values[k], np.nan), pairs, Settings())
        assert many.holm.p[k] == pytest.approx([each.p_holm for each in single], abs=1e-12)
        assert many.holm.level[k] == pytest.approx([each.level for each in single])
        for estimate, each in zip(many.estimates, single, strict=True):
            assert float(estimate.se[k]) == pytest.approx(float(each.estimate.se), rel=1e-9)
            assert float(estimate.df[k]) == pytest.approx(float(each.estimate.df), rel=1e-9)


def test_first_alarms_are_those_of_adaptive_studies_that_never_stop_for_equivalence():
    steps = (3, 5, 8)
    values = np.random.default_rng(2).normal(size=(60, 5, 8)) * np.array([3.0, 1, 1, 1, 1])[:, None]
    values[:30, 1:] += np.random.default_rng(3).normal(size=(30, 1, 1)) * 2.0  # otherwise alarms are rare
    at_once = validation_sequential.first_alarms(values, steps)
    settings = Settings(looks=steps, smallest_effect_pp=1e-9)
    one_by_one = [
        any(end.word in (HELPS, HURTS) for end in settle(table, STAR, settings)) for table in values
    ]
    assert at_once.tolist() == one_by_one
    assert 0 < sum(one_by_one) < 60


def test_tables_without_a_fit_are_refused():
    with pytest.raises(ValueError, match="3 arms and 3 seeds"):
        calibration.judge_tables(np.zeros((1, 2, 5)), [(1, 0)], 0.05)
    assert compare_family.__name__  # two arms are decided by Welch's test there


ROW = targets.Measured(quantity="q", setting="3 seeds", value=0.08, repetitions=10_000, high=0.05)
KNOWN = {("q", "3 seeds"): targets.Known(why="because", limit=0.079)}


def test_a_target_is_missed_beyond_two_standard_errors():
    slack = 2 * np.sqrt(0.05 * 0.95 / 10_000)
    assert dataclasses.replace(ROW, value=0.05 + 0.99 * slack).met
    assert not dataclasses.replace(ROW, value=0.05 + 1.01 * slack).met
    assert not dataclasses.replace(ROW, high=None, low=0.1).met
    assert dataclasses.replace(ROW, high=None).met


def test_a_known_miss_is_excused_up_to_its_limit_only():
    assert targets.explained(ROW, KNOWN)
    assert not targets.explained(dataclasses.replace(ROW, value=0.09), KNOWN)
    assert not targets.explained(dataclasses.replace(ROW, setting="5 seeds"), KNOWN)
    assert not targets.explained(dataclasses.replace(ROW, quantity="another"), KNOWN)


def test_a_group_is_shown_by_its_worst_row(capsys):
    rows = [
        dataclasses.replace(ROW, value=value, group="g", setting=f"{value}") for value in (0.01, 0.08, 0.03)
    ]
    [worst] = targets.worst_of_each_group(rows)
    assert worst.value == 0.08
    targets.print_table([worst], {})
    assert "g; worst of 3: 0.08 | <= 0.05 | 0.0800 ± 0.0027 | **missed**" in capsys.readouterr().out
