"""From records to findings: what is there is reported, what is not there is named, nothing is NaN."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis import decide
from harness.analysis.findings import (
    COMPATIBLE,
    DIFFERS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    REPRODUCED,
    UNDECIDED,
    Settings,
)
from tests.analysis.tables import by_row, cell, found, printed, record, records, star

QUIET = {  # seed effects of -.1, 0, .1 and noise of about .02
    "base": [70.00, 70.10, 70.21],
    "up": [71.02, 71.10, 71.19],
    "down": [69.01, 69.10, 69.22],
    "same": [70.01, 70.12, 70.19],
    "other": [70.52, 70.60, 70.73],
}


def quiet(**changes):
    return by_row(found(star(list(QUIET)), records({**QUIET, **changes}), 3))


def plain(finding):
    """Findings as JSON data; fails on NaN and infinity."""
    return json.loads(json.dumps(dataclasses.asdict(finding), allow_nan=False))


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


def test_one_seed_gives_a_difference_but_no_verdict():
    rows = by_row(found(star(["base", "up", "down"]), records({k: v[:1] for k, v in QUIET.items()}), 1))
    effect = rows["up"].effect
    assert (effect.n, effect.estimate, effect.low, effect.p) == (1, pytest.approx(1.02), None, None)
    assert (effect.verdict, effect.qualifier) == (NOT_EVALUABLE, "1 seed: no verdict possible")
    assert "observed +1.02 pp, 1 seed" in rows["up"].sentence
    assert rows["base"].level.low is None


def test_two_seeds_are_undecided_however_large_the_effect():
    effect = by_row(found(star(list(QUIET)), records({k: v[:2] for k, v in QUIET.items()}), 2))["up"].effect
    theirs = stats.ttest_ind(QUIET["up"][:2], QUIET["base"][:2], equal_var=False)
    assert effect.verdict == UNDECIDED
    assert effect.p == pytest.approx(theirs.pvalue)
    assert not effect.fragile


def test_no_spread_between_seeds_is_not_certainty():
    with np.errstate(all="raise"):
        rows = by_row(
            found(star(["a", "b", "c"]), records({"a": [70.0] * 3, "b": [71.0] * 3, "c": [70.0] * 3}), 3)
        )
    for row in ("b", "c"):
        assert rows[row].effect.verdict == NOT_EVALUABLE
        assert "every seed gave the same value" in rows[row].effect.qualifier
        assert rows[row].effect.p is None
    assert rows["b"].effect.estimate == pytest.approx(1.0)


def test_missing_failed_and_running_runs_are_counted_and_named():
    rows = [
        *records({**QUIET, "up": [71.02, None, None]}),
        record("up", 1, None, reason="out of memory"),
        record("other", 3, None, status="running"),
    ]
    level = by_row(found(star(list(QUIET)), rows, 4))["up"].level
    assert (level.n, level.diverged, level.missing) == (1, 0, 3)
    assert level.missing_reason == "1 failed: out of memory; 2 not run yet"
    assert by_row(found(star(list(QUIET)), rows, 4))["other"].level.missing_reason == "1 running"


def test_seeds_that_only_some_arms_have_are_used():
    full = {arm: [*row, row[0] + 0.05] for arm, row in QUIET.items()}
    gaps = {**full, "up": QUIET["up"]}
    effect = by_row(found(star(list(QUIET)), records(gaps), 4))["up"].effect
    assert effect.n == 3
    assert effect.df == pytest.approx(4 * 3 - 1)
    assert set(effect.differences) == {0, 1, 2}
    assert effect.verdict == HELPS


def test_nothing_there_is_reported_without_numbers():
    finding = found(star(["a", "b"]), [], 2)
    base, row = finding.cells
    assert base.sentence == "a: no value (2 not run yet)."
    assert row.effect.verdict == NOT_EVALUABLE
    assert (row.effect.estimate, row.level.mean, finding.pooled_sd) == (None, None, None)
    plain(finding)


def test_a_quoted_number_is_never_a_result_or_a_reference():
    cells = [
        cell("theirs", None, None, paper=printed(75.3)),
        cell("ours", "up", "theirs", paper=printed(76.0)),
    ]
    theirs, ours = found(cells, records(QUIET), 3).cells
    assert theirs.level is None
    assert theirs.effect is None
    assert ours.effect.verdict == NOT_EVALUABLE
    assert "quoted number" in ours.effect.qualifier
    assert ours.effect.paper == pytest.approx(0.7)


def test_one_diverged_run_is_an_outcome_that_makes_a_verdict_fragile():
    rows = [
        *records({**QUIET, "up": [*QUIET["up"]]}),
        *[record(arm, 3, v[0] + 0.1) for arm, v in QUIET.items()],
    ]
    clean = by_row(found(star(list(QUIET)), rows, 4))["up"]
    for row in rows:
        if row["run_id"] == "up-3":
            row.update(status="diverged", top1=None)
    cells = by_row(found(star(list(QUIET)), rows, 4))
    assert (clean.effect.verdict, clean.effect.fragile) == (HELPS, False)
    assert (cells["up"].level.n, cells["up"].level.diverged, cells["up"].level.missing) == (3, 1, 0)
    assert (cells["up"].effect.verdict, cells["up"].effect.fragile) == (HELPS, True)
    assert "3 seeds, 1 diverged" in cells["up"].sentence
    assert cells["up"].sentence.endswith("changes the verdict.")
    assert not cells["down"].effect.fragile  # its own two arms did not diverge


def test_more_than_one_diverged_run_is_not_evaluable():
    rows = [*records({**QUIET, "up": [71.02, None, None]})]
    rows += [record("up", seed, None, status="diverged") for seed in (1, 2)]
    effect = by_row(found(star(list(QUIET)), rows, 3))["up"].effect
    assert (effect.verdict, effect.qualifier) == (NOT_EVALUABLE, "2 of 3 runs diverged")


def test_a_finished_run_without_a_finite_value_counts_as_diverged():
    rows = records(QUIET)
    rows[3]["top1"] = float("nan")
    level = by_row(found(star(list(QUIET)), rows, 3))["up"].level
    assert (level.n, level.diverged) == (2, 1)


def test_a_verdict_that_one_seed_decides_is_fragile():
    values = {f"a{k}": [70 + ((7 * k + 3 * seed) % 5 - 2) / 20 for seed in range(5)] for k in range(5)}
    values["a1"] = [v + 0.15 for v in values["a0"][:4]] + [values["a0"][4] + 0.4]
    fragile = by_row(found(star(list(values)), records(values), 5))["a1"].effect
    values["a1"] = [v + 0.4 for v in values["a0"]]
    solid = by_row(found(star(list(values)), records(values), 5))["a1"].effect
    assert (fragile.verdict, fragile.fragile) == (HELPS, True)
    assert (solid.verdict, solid.fragile) == (HELPS, False)


def with_bits(shared):
    """Three arms, three seeds, 400 images; `up` is right on 12 more images: the same or others per seed."""
    rng = np.random.default_rng(3)
    rows = []
    for seed in range(3):
        base = np.zeros(400, dtype=np.uint8)
        base[:200] = 1
        up = base.copy()
        up[200 + (0 if shared else 12 * seed) : 212 + (0 if shared else 12 * seed)] = 1
        for arm, bits in (("base", base), ("up", up), ("third", base)):
            noisy = bits.copy()
            noisy[rng.integers(0, 200, size=rng.integers(0, 4))] = 0
            rows.append(record(arm, seed, 100 * noisy.mean(), bits=noisy))
    return by_row(found(star(["base", "up", "third"]), rows, 3))["up"].effect


def test_t2_says_on_this_test_set_where_a_few_images_carry_the_effect():
    effect = with_bits(shared=True)
    assert effect.verdict == HELPS
    assert effect.new_images_low < effect.low
    assert effect.new_images_high > effect.high
    few = with_bits(shared=False)
    assert few.new_images_high - few.new_images_low < effect.new_images_high - effect.new_images_low


def test_t2_changes_the_words():
    rng = np.random.default_rng(4)
    rows = []
    for seed in range(3):
        base = np.zeros(400, dtype=np.uint8)
        base[:200] = 1
        up = base.copy()
        up[200:204] = 1  # one percentage point, from the same 4 images in every seed
        for arm, bits in (("base", base), ("up", up), ("third", base)):
            rows.append(record(arm, seed, 100 * bits.mean() + rng.normal(0, 0.02), bits=bits))
    cells = by_row(found(star(["base", "up", "third"]), rows, 3))
    assert cells["up"].effect.verdict == HELPS
    assert cells["up"].effect.new_images_low < 0.2
    assert cells["up"].effect.qualifier == "on this test set by at least 0.2 pp"


def test_without_bits_there_is_no_t2():
    effect = quiet()["up"].effect
    assert (effect.new_images_low, effect.new_images_high) == (None, None)


def paper_cells():
    return [
        cell("base", "base", None, paper=printed(76.0)),
        cell("up", "up", "base", paper=printed(77.0, "memory")),
        cell("other", "other", "up", paper=printed(76.2), paper_versus="base"),
    ]


def test_the_papers_effect_is_shown_and_only_compared_where_comparable():
    mini = by_row(found(paper_cells(), records(QUIET), 3))
    assert (mini["up"].effect.paper, mini["up"].effect.paper_status) == (pytest.approx(1.0), "memory")
    assert mini["up"].sentence.endswith("(the paper, from memory: +1.00).")
    assert (mini["other"].effect.paper, mini["other"].effect.paper_status) == (pytest.approx(0.2), "verified")
    assert mini["up"].effect.agreement is None
    assert mini["up"].effect.gap is None
    assert plain(mini["base"])["effect"] is None


@pytest.mark.parametrize(
    ("theirs", "delta", "word"), [(77.0, 0.2, REPRODUCED), (79.0, 0.2, DIFFERS), (77.0, 0.01, COMPATIBLE)]
)
def test_agreement_with_the_paper(theirs, delta, word):
    cells = [cell("base", "base", None, paper=printed(76.0)), cell("up", "up", "base", paper=printed(theirs))]
    cells += star(list(QUIET))[2:]
    comparable = Settings(comparable_to_paper=True, smallest_effect_pp=delta)
    effect = by_row(found(cells, records(QUIET), 3, comparable))["up"].effect
    assert effect.gap == pytest.approx(effect.estimate - (theirs - 76.0))
    twice = 2 * (effect.high - effect.estimate)  # v (2/3 + 2/1) is 4 times v 2/3
    assert effect.gap_high - effect.gap == pytest.approx(twice)
    assert effect.agreement == word


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Settings(metric="top11"), "did you mean 'top1'"),
        (Settings(metric="loss"), "Valid: top1, top5"),
        (Settings(smallest_effect_pp=0.0), "above 0 pp"),
        (Settings(alpha=5.0), "between 0 and 1"),
    ],
)
def test_bad_settings_are_refused_in_words(bad, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        decide([], pd.DataFrame(), bad, study="s", size="mini", seeds=(0,))


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
