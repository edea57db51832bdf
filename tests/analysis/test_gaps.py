"""What is missing, failed, diverged or too little is named, and never turned into a number."""

import numpy as np
import pytest
from scipy import stats

from harness.analysis.findings import HELPS, NOT_EVALUABLE, UNDECIDED
from tests.analysis.tables import QUIET, by_row, cell, found, plain, printed, record, records, star


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


def test_a_seed_that_is_not_planned_is_not_read():
    rows = records({arm: [*row, 99.0] for arm, row in QUIET.items()})
    assert plain(found(star(list(QUIET)), rows, 3)) == plain(found(star(list(QUIET)), records(QUIET), 3))


def test_of_two_records_of_one_run_the_finished_one_counts():
    failed, rows = record("up", 1, None), records(QUIET)
    for both in ([failed, *rows], [*rows, failed]):
        level = by_row(found(star(list(QUIET)), both, 3))["up"].level
        assert (level.n, level.missing) == (3, 0)


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
    assert cells["up"].sentence.endswith("Fragile.")
    assert not cells["down"].effect.fragile  # its own two arms did not diverge


def test_more_than_one_diverged_run_is_not_evaluable():
    rows = [*records({**QUIET, "up": [71.02, None, None]})]
    rows += [record("up", seed, None, status="diverged") for seed in (1, 2)]
    effect = by_row(found(star(list(QUIET)), rows, 3))["up"].effect
    assert (effect.verdict, effect.qualifier) == (NOT_EVALUABLE, "2 of 3 runs diverged")


def test_a_finished_run_without_a_finite_value_is_called_so_and_never_diverged():
    rows = records(QUIET)
    rows[3]["top1"] = float("nan")
    cell = by_row(found(star(list(QUIET)), rows, 3))["up"]
    assert (cell.level.n, cell.level.diverged, cell.level.missing) == (2, 0, 1)
    assert cell.level.missing_reason == "1 with no finite value of top1"
    rows[4]["top1"] = float("inf")
    cell = by_row(found(star(list(QUIET)), rows, 3))["up"]
    assert (cell.effect.verdict, cell.effect.qualifier) == (
        NOT_EVALUABLE,
        "2 of 3 runs have no finite value of top1",
    )
    rows[5].update(status="diverged", top1=None)
    cell = by_row(found(star(list(QUIET)), rows, 3))["up"]
    assert cell.effect.qualifier == "1 of 3 runs diverged, 2 of 3 runs have no finite value of top1"
    assert (cell.level.diverged, cell.level.without_value, cell.level.missing) == (1, 2, 2)


def test_a_verdict_that_one_seed_decides_is_fragile():
    values = {f"a{k}": [70 + ((7 * k + 3 * seed) % 5 - 2) / 20 for seed in range(5)] for k in range(5)}
    values["a1"] = [v + 0.15 for v in values["a0"][:4]] + [values["a0"][4] + 0.4]
    fragile = by_row(found(star(list(values)), records(values), 5))["a1"].effect
    values["a1"] = [v + 0.4 for v in values["a0"]]
    solid = by_row(found(star(list(values)), records(values), 5))["a1"].effect
    assert (fragile.verdict, fragile.fragile) == (HELPS, True)
    assert (solid.verdict, solid.fragile) == (HELPS, False)
