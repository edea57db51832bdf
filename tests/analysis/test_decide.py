"""From records to findings: numbers, families, columns and words."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.analysis import decide
from harness.analysis.findings import HELPS, HURTS, NO_DIFFERENCE, NOT_EVALUABLE, Settings
from tests.analysis.tables import QUIET, by_row, cell, found, quiet, records, star


def test_verdicts_and_sentences_of_a_clear_table():
    rows = quiet()
    assert rows["base"].effect is None
    assert rows["base"].sentence == "base: 70.10 % top-1 [69.84, 70.36], 3 seeds."
    assert {row: rows[row].effect.verdict for row in ("up", "down", "same")} == {
        "up": HELPS,
        "down": HURTS,
        "same": NO_DIFFERENCE,
    }
    assert rows["up"].sentence == "up helps by at least 0.2 pp: +1.00 pp [0.97, 1.03] over base, 3 seeds."
    assert rows["same"].effect.differences == pytest.approx({0: 0.01, 1: 0.02, 2: -0.02})


def test_the_numbers_of_one_effect_by_hand():
    effect = quiet()["up"].effect
    y = np.array(list(QUIET.values()))
    residuals = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    variance = (residuals**2).sum() / 8
    assert effect.estimate == pytest.approx(y[1].mean() - y[0].mean())
    assert not effect.flagged
    assert effect.df == pytest.approx(8)
    half = stats.t.ppf(0.975, 8) * math.sqrt(2 * variance / 3)
    assert (effect.low, effect.high) == pytest.approx((effect.estimate - half, effect.estimate + half))
    p = 2 * stats.t.sf(effect.estimate / math.sqrt(2 * variance / 3), 8)
    assert effect.p == pytest.approx(p)
    assert p <= effect.p_holm <= 4 * p * 1.0001
    assert effect.prob_better == 1.0


def test_the_family_is_every_declared_contrast_of_the_table_even_before_its_runs_exist():
    cells = [*star(["base", "up", "other"]), cell("later", "later", "base")]
    finding = found(cells, records({k: QUIET[k] for k in ("base", "up", "other")}), 3)
    assert finding.contrasts == 3
    rows = by_row(finding)
    worst = max(rows["up"].effect.p, rows["other"].effect.p)
    assert min(rows["up"].effect.p_holm, rows["other"].effect.p_holm) == pytest.approx(
        3 * min(rows["up"].effect.p, rows["other"].effect.p)
    )
    assert max(rows["up"].effect.p_holm, rows["other"].effect.p_holm) == pytest.approx(2 * worst)
    assert rows["later"].effect.verdict == NOT_EVALUABLE
    assert rows["later"].effect.qualifier == "3 not run yet"


def test_a_row_that_is_the_same_run_is_said_to_be_and_not_counted():
    cells = [*star(["base", "up", "other"]), cell("again", "base", "base"), cell("copy", "up", "base")]
    finding = found(cells, records(QUIET), 3)
    again, copy = by_row(finding)["again"], by_row(finding)["copy"]
    assert finding.contrasts == 2  # again is no contrast, copy is the same contrast as up
    assert (again.effect.estimate, again.effect.low, again.effect.p) == (0.0, 0.0, None)
    assert (again.effect.verdict, again.effect.qualifier) == (NO_DIFFERENCE, "the same run")
    assert again.sentence == (
        "again is the same run as base at this size: no detectable difference by construction, 3 seeds."
    )
    assert dataclasses.replace(copy.effect) == by_row(finding)["up"].effect


def test_columns_share_one_fit_and_one_family():
    cells = [
        cell(row, f"{row}{column}", None if row == "a" else "a", column=column)
        for row in ("a", "b")
        for column in ("x", "y")
    ]
    values = {"ax": [1.0, 2.0, 3.1], "bx": [2.0, 3.1, 4.0], "ay": [5.0, 6.2, 7.0], "by": [6.1, 7.0, 8.0]}
    finding = found(cells, records({k: [10 * v for v in row] for k, row in values.items()}), 3)
    assert finding.contrasts == 2
    assert finding.paired_df_cost == 2
    assert [each.effect.df for each in finding.cells if each.effect] == pytest.approx([6, 6])
    assert "b (x) " in finding.cells[2].sentence


def test_two_arms_get_welchs_test():
    finding = found(star(["base", "up"]), records({k: QUIET[k] for k in ("base", "up")}), 3)
    theirs = stats.ttest_ind(QUIET["up"], QUIET["base"], equal_var=False)
    effect = by_row(finding)["up"].effect
    assert effect.p == pytest.approx(theirs.pvalue)
    assert effect.df == pytest.approx(theirs.df)


def with_f1(values):
    """Records whose plugin's metric is the top-1 as a fraction; top-1 itself says the opposite."""
    rows = records(values)
    return [{**row, "macro_f1": row["top1"] / 100, "top1": 100 - row["top1"]} for row in rows]


def test_a_plugins_metric_of_any_unit_is_analysed_like_an_accuracy_and_written_without_percent():
    accuracies = found(star(list(QUIET)), records(QUIET), 3)
    metric = Settings(metric="macro_f1", smallest_effect_pp=0.002)
    rows = by_row(found(star(list(QUIET)), with_f1(QUIET), 3, metric))
    for name, cell_found in by_row(accuracies).items():
        if cell_found.effect is not None:
            assert rows[name].effect.estimate == pytest.approx(cell_found.effect.estimate / 100)
            assert rows[name].effect.verdict == cell_found.effect.verdict
    assert rows["base"].sentence == "base: macro f1 0.701 [0.6984, 0.7036], 3 seeds."
    assert rows["up"].sentence == (
        "up helps by at least 0.002: +0.01 [0.009742, 0.01026] over base, 3 seeds."
    )
    assert rows["up"].level.secondary["top1"] == pytest.approx(100 - 71.103, abs=0.01)


def test_a_diverged_run_counts_as_the_worst_value_of_a_metric_without_a_known_zero():
    four = {arm: [value - 200 for value in (*row, row[1] + 0.03)] for arm, row in QUIET.items()}
    rows = with_f1(four)  # all values are negative: a zero would be the best of all
    lost = next(k for k, row in enumerate(rows) if row["arm_id"] == "down")
    rows[lost] = {**rows[lost], "status": "diverged", "macro_f1": None}
    cells = by_row(found(star(list(QUIET)), rows, 4, Settings(metric="macro_f1", smallest_effect_pp=0.002)))
    assert (cells["down"].effect.verdict, cells["down"].effect.n) == (HURTS, 3)
    assert not cells["down"].effect.fragile


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Settings(metric="loss"), "less loss is better"),
        (Settings(metric="train_loss"), "Valid: top1, top5, a plugin's"),
        (Settings(smallest_effect_pp=0.0), "above 0 pp"),
        (Settings(alpha=5.0), "between 0 and 1"),
    ],
)
def test_bad_settings_are_refused_in_words(bad, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        decide([], pd.DataFrame(), bad, study="s", size="mini", seeds=(0,))
