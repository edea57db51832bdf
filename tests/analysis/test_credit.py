"""Credit of real tables: numbers against statsmodels, words, and what cannot be concluded."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from harness.analysis import decide
from harness.analysis.contrasts import weights_for
from harness.analysis.credit import with_credit
from harness.analysis.findings import HELPS, HURTS, NO_DIFFERENCE, NOT_EVALUABLE, UNDECIDED, Settings
from harness.analysis.fit import BlockDesign, combination, contrast, fit, guard
from harness.study.plan import Cell, PlanTable
from tests.analysis.tables import plain, record

TRICKS = ("a", "b", "c", "d")
NONE, EVERY = frozenset(), frozenset(TRICKS)
EFFECTS = {"a": 2.0, "b": 1.0, "c": 0.0, "d": -1.0}
OVERLAP = {frozenset("ab"): -0.8}  # a and b do partly the same


def name(on):
    return "".join(sorted(on)) or "none"


def cell(row, on, versus, column=None, arm=None):
    arm = arm or name(on) + (column or "")
    return Cell(row=row, column=column, arm_id=arm, tricks=(), versus=versus, switched_on=tuple(sorted(on)))


def ends(tricks=TRICKS, column=None):
    every = frozenset(tricks)
    cells = [cell("baseline", NONE, None, column)]
    cells += [cell(f"+ {each}", {each}, "baseline", column) for each in tricks]
    cells += [cell("all", every, "baseline", column)]
    return cells + [cell(f"without {each}", every - {each}, "all", column) for each in tricks]


def ways(tricks=TRICKS):
    cells, above = [cell("baseline", NONE, None)], "baseline"
    for k, each in enumerate(tricks, start=1):
        cells.append(cell(f"+ {each}", tricks[:k], above))
        above = f"+ {each}"
    above = "baseline"
    for k in range(len(tricks) - 1, 0, -1):
        cells.append(cell(f"+ {tricks[k]} (reverse order)", tricks[k:], above))
        above = f"+ {tricks[k]} (reverse order)"
    return cells


def subsets(tricks=TRICKS):
    sets = [frozenset(s) for k in range(len(tricks) + 1) for s in itertools.combinations(tricks, k)]
    return [cell(name(on), on, None if on == NONE else "none") for on in sets]


def table(cells, design="both_ends", tricks=TRICKS, key="t", ground="same"):
    columns = tuple(dict.fromkeys(each.column for each in cells))
    return PlanTable(
        key=key, title="T", design=design, columns=columns, cells=tuple(cells), switches=tuple(tricks),
        ground=ground,
    )  # fmt: skip


def value(on, effects=EFFECTS, terms=OVERLAP):
    return 70 + sum(effects[each] for each in on) + sum(v for pair, v in terms.items() if pair <= set(on))


def runs(tables, seeds=3, sd=0.1, truth=value, leave_out=()):
    """Every run of some tables: a seed effect, noise, and the truth of the tricks that are on."""
    rng = np.random.default_rng(4)
    block = 0.2 * rng.normal(size=seeds)
    arms = {each.arm_id: each.switched_on for t in tables for each in t.cells}
    return [
        record(arm, seed, truth(on) + block[seed] + noise)
        for arm, on in arms.items()
        for seed, noise in enumerate(sd * rng.normal(size=seeds))
        if (arm, seed) not in leave_out
    ]


def found(tables, rows=None, seeds=3, **settings):
    rows = runs(tables, seeds) if rows is None else rows
    settings = Settings(smallest_effect_pp=0.5, **settings)
    findings = decide(tables, pd.DataFrame(rows), settings, study="s", size="mini", seeds=tuple(range(seeds)))
    for each in findings.tables:
        plain(each)  # JSON without NaN
    return [each.credit for each in findings.tables]


def credit_of(cells, rows=None, design="both_ends", seeds=3, tricks=TRICKS):
    (credit,) = found([table(cells, design, tricks)], rows, seeds)
    return credit


def by_trick(credit):
    return {each.trick: each for each in credit.credits}


def test_credits_of_a_clear_table():
    credit = credit_of(ends())
    mine = by_trick(credit)
    assert [mine[each].verdict for each in TRICKS] == [HELPS, HELPS, NO_DIFFERENCE, HURTS]
    for each, expected in {"a": 1.6, "b": 0.6, "c": 0.0, "d": -1.0}.items():
        assert mine[each].credit.estimate == pytest.approx(expected, abs=0.15)
        assert mine[each].adjusted_low <= mine[each].credit.low < mine[each].credit.high
    (total,) = credit.totals
    assert sum(each.credit.estimate for each in credit.credits) == pytest.approx(total.total.estimate)
    assert total.total.estimate == pytest.approx(total.every - total.none)
    assert mine["a"].sentence.startswith("a helps by at least 0.5 pp: +1.5")
    assert "of the total, 3 seeds (+" in mine["a"].sentence
    assert total.sentence.startswith("All 4 tricks together: +1.")


def test_overlapping_tricks_are_path_dependent_and_the_others_are_not():
    mine = by_trick(credit_of(ends()))
    assert [mine[each].path_dependent for each in TRICKS] == [True, True, False, False]
    assert mine["a"].half_gap.estimate == pytest.approx(-0.4, abs=0.1)
    assert mine["a"].half_gap.high < 0
    assert "Path-dependent: it overlaps with the others, half-gap -0." in mine["a"].sentence
    needs = by_trick(
        credit_of(
            ends(),
            runs([table(ends())], truth=lambda on: value(on, terms={EVERY: 0.0, frozenset("ab"): 2.0})),
        )
    )
    assert "it needs the others" in needs["b"].sentence


@pytest.mark.parametrize("design", ["both_ends", "both_ways", "factorial"])
@pytest.mark.parametrize("gaps", [(), (("a", 1), ("abcd", 0)), (("none", 2),)])
def test_estimate_and_standard_error_equal_statsmodels(design, gaps):
    """Every credit as a linear combination of arm effects in the two-way fit, with and without gaps."""
    cells = {"both_ends": ends, "both_ways": ways, "factorial": subsets}[design]()
    rows = runs([table(cells)], seeds=4, leave_out=gaps)
    credit = credit_of(cells, rows, design, seeds=4)
    frame = pd.DataFrame(rows)
    model = smf.ols("top1 ~ C(arm_id) + C(seed)", frame).fit()
    arms = [each.arm_id for each in cells]
    values = frame.pivot(index="arm_id", columns="seed", values="top1").loc[arms].to_numpy()
    fitted = fit(BlockDesign.of(np.isfinite(values)), values)
    unguarded = guard(fitted, np.full(len(arms), -1.0))
    sets = [frozenset(TRICKS.index(trick) for trick in each.switched_on) for each in cells]
    weights = weights_for(design, sets, len(TRICKS)).credit
    for mine, of_arms in zip(credit.credits, weights, strict=True):
        text = " + ".join(
            f"{weight!r} * C(arm_id)[T.{arm}]"
            for arm, weight in zip(arms, of_arms.tolist(), strict=True)
            if arm != min(arms) and weight
        )
        theirs = model.t_test(f"{text} = 0")
        assert mine.credit.estimate == pytest.approx(float(theirs.effect[0]), abs=1e-9)
        estimate = combination(fitted, unguarded, of_arms)
        assert estimate.se == pytest.approx(float(theirs.sd.item()), rel=1e-9)
        assert estimate.df == pytest.approx(model.df_resid)


def test_intervals_agree_with_their_p_values():
    cells = ends()
    for each in credit_of(cells, runs([table(cells)], sd=1.0)).credits:
        se = abs(each.credit.estimate) / stats.t.isf(each.p / 2, each.df)
        half = stats.t.isf(0.025, each.df) * se
        ends_of = (each.credit.estimate - half, each.credit.estimate + half)
        assert (each.credit.low, each.credit.high) == pytest.approx(ends_of)
        assert (each.adjusted_low > 0 or each.adjusted_high < 0) == (each.p_holm <= 0.05)


def test_a_pair_of_arms_is_the_contrast_of_rows():
    values = np.random.default_rng(0).normal(size=(5, 4))
    fitted = fit(BlockDesign.of(np.ones((5, 4))), values)
    guarded = guard(fitted, np.full(5, 0.5))
    weights = np.array([0.0, -1.0, 0.0, 1.0, 0.0])
    one, other = combination(fitted, guarded, weights), contrast(fitted, guarded, 3, 1)
    assert (one.value, one.se, one.df) == pytest.approx((other.value, other.se, other.df), rel=1e-12)


def test_first_and_last_are_the_effects_of_the_rows():
    (finding,) = decide(
        [table(ends())], pd.DataFrame(runs([table(ends())])), Settings(), study="s", size="mini",
        seeds=(0, 1, 2),
    ).tables  # fmt: skip
    rows = {each.row: each.effect for each in finding.cells}
    for each in finding.credit.credits:
        assert each.first.estimate == pytest.approx(rows[f"+ {each.trick}"].estimate)
        assert each.last.estimate == pytest.approx(-rows[f"without {each.trick}"].estimate)


def test_holm_is_over_the_tricks_of_all_columns():
    """The smallest p is multiplied by the size of the family."""
    for columns in (("x",), ("x", "y")):
        cells = [each for column in columns for each in ends(column=column)]
        credit = credit_of(cells, runs([table(cells)], sd=1.0))
        assert [each.column for each in credit.totals] == list(columns)
        assert len(credit.credits) == 4 * len(columns)
        first = min(credit.credits, key=lambda each: each.p)
        assert first.p_holm / first.p == pytest.approx(4 * len(columns))


def test_a_pair_of_tables_is_one_design_and_the_second_carries_it():
    cells = ends()
    alone = table(cells[:5], "add_one_in", key="alone")
    left_out = table(cells[5:6] + cells[6:], "leave_one_out", key="left_out")
    left_out = dataclasses.replace(
        left_out,
        cells=(dataclasses.replace(left_out.cells[0], versus=None), *left_out.cells[1:]),
        switches=TRICKS[::-1],
    )
    rows = runs([alone, left_out])
    nothing, credit = found([alone, left_out], rows)
    assert nothing is None
    assert credit.tables == ("alone", "left_out")
    together = by_trick(credit_of(cells, runs([table(cells)])))
    for each in credit.credits:
        assert each.credit.estimate == pytest.approx(together[each.trick].credit.estimate)
    elsewhere = dataclasses.replace(left_out, ground="another start")
    assert found([alone, elsewhere], rows) == [None, None]
    assert found([left_out, alone], rows)[1].tables == ("left_out", "alone")
    assert found([alone, alone], rows) == [None, None]


def test_other_designs_have_no_credit():
    assert found([table(ends(), "rows"), table(ends(), "stack")]) == [None, None]


def test_one_trick_has_nothing_to_share():
    credit = credit_of(ends(("a",)), tricks=("a",))
    assert credit.credits == ()
    assert "one trick has nothing to share" in credit.why_not


def test_a_fraction_that_confounds_pairs_says_so():
    half = [each for each in subsets() if len(each.switched_on) % 2 == 0]
    credit = credit_of(half, design="fractional")
    assert credit.credits == ()
    assert "resolution of at least 5" in credit.why_not


def test_a_missing_row_is_named_and_spoils_only_what_needs_it():
    cells = ends()
    rows = [row for row in runs([table(cells)]) if row["arm_id"] != "abd"]  # without c
    mine = by_trick(credit_of(cells, rows))
    assert {each.verdict for each in mine.values()} == {NOT_EVALUABLE}  # all share what is left of the total
    assert mine["a"].qualifier == "row without c: 3 not run yet"
    assert mine["a"].first.estimate is not None
    assert mine["c"].last.estimate is None
    both = by_trick(credit_of(ways(), [r for r in runs([table(ways())]) if r["arm_id"] != "ab"], "both_ways"))
    assert [both[each].verdict == NOT_EVALUABLE for each in TRICKS] == [False, True, True, False]


@pytest.mark.parametrize(("seeds", "word"), [(1, NOT_EVALUABLE), (2, UNDECIDED), (3, HELPS)])
def test_one_and_two_seeds_conclude_nothing(seeds, word):
    cells = ends()
    each = by_trick(credit_of(cells, runs([table(cells)], seeds), seeds=seeds))["a"]
    assert each.verdict == word
    assert each.credit.estimate == pytest.approx(1.6, abs=0.4)
    assert (each.credit.low is None) == (seeds == 1)
    assert ("1 seed: no verdict possible" in each.sentence) == (seeds == 1)
    assert not (seeds < 3 and each.path_dependent)


def test_two_diverged_runs_of_a_row_make_it_not_evaluable():
    cells = ends()
    rows = runs([table(cells)])
    rows = [{**row, "status": "diverged", "top1": None} if row["arm_id"] == "none" and row["seed"] else row
            for row in rows]  # fmt: skip
    mine = by_trick(credit_of(cells, rows))
    assert {each.qualifier for each in mine.values()} == {"row baseline: 2 of 3 runs diverged"}
    one = [{**row, "status": "diverged", "top1": None} if (row["arm_id"], row["seed"]) == ("none", 1) else row
           for row in runs([table(cells)])]  # fmt: skip
    assert by_trick(credit_of(cells, one))["a"].verdict == UNDECIDED  # two seeds of the baseline are left


def test_no_spread_between_seeds_gives_no_interval():
    cells = ends()
    rows = [record(each.arm_id, seed, value(each.switched_on)) for each in cells for seed in range(3)]
    mine = by_trick(credit_of(cells, rows))
    assert {each.verdict for each in mine.values()} == {NOT_EVALUABLE}
    assert "every seed gave the same value" in mine["a"].sentence
    assert mine["a"].credit.estimate == pytest.approx(1.6)
    assert mine["a"].credit.low is None


def test_a_trick_that_changes_no_run_has_a_credit_of_0_by_construction():
    """At some sizes a trick is the identity: then pairs of rows are one arm."""
    cells = [dataclasses.replace(each, arm_id=name(set(each.switched_on) - {"c"})) for each in ends()]
    mine = by_trick(credit_of(cells, runs([table(cells)], truth=lambda on: value(set(on) - {"c"}))))
    assert mine["c"].credit.estimate == pytest.approx(0, abs=0.2)
    two = [dataclasses.replace(each, arm_id=name(set(each.switched_on) - {"b"})) for each in ends(("a", "b"))]
    idle = by_trick(credit_of(two, runs([table(two)]), tricks=("a", "b")))["b"]
    assert (idle.credit.estimate, idle.verdict) == (0.0, NO_DIFFERENCE)
    assert idle.sentence == "b changes no run at this size: its credit is 0 by construction."


def test_verdicts_that_contradict_each_other_are_called_path_dependent():
    """a helps alone and hurts given b."""
    terms = {frozenset("ab"): -4.0}
    cells = ends(("a", "b", "d"))
    rows = runs([table(cells)], truth=lambda on: value(on, terms=terms))
    mine = by_trick(credit_of(cells, rows, tricks=("a", "b", "d")))
    assert mine["a"].contradiction
    assert not mine["d"].contradiction
    assert "its verdicts contradict each other" in mine["a"].sentence


def test_interactions_of_three_are_seen_and_their_absence_is_said():
    cells = ends()
    (total,) = credit_of(cells).totals
    assert total.check_p > 0.05
    assert "there is no sign that three or more tricks interact" in total.sentence
    rows = runs([table(cells)], truth=lambda on: value(on, terms={frozenset("abc"): 3.0}))
    (total,) = credit_of(cells, rows).totals
    assert total.check_p < 0.001
    assert "; three or more tricks interact (p " in total.sentence
    rows = runs([table(subsets())], truth=lambda on: value(on, terms={frozenset("abc"): 3.0}))
    credit = credit_of(subsets(), rows, "factorial")
    assert "The designs with fewer rows would differ by up to" in credit.totals[0].sentence
    assert by_trick(credit)["a"].credit.estimate == pytest.approx(3.0, abs=0.15)


def test_one_noisy_arm_pays_with_its_own_variance():
    cells = ends()
    rows = [
        {**row, "top1": row["top1"] + 4 * (-1) ** row["seed"]} if row["arm_id"] == "a" else row
        for row in runs([table(cells)], seeds=5)
    ]
    mine = by_trick(credit_of(cells, rows, seeds=5))
    assert mine["a"].flagged
    widths = {k: mine[k].credit.high - mine[k].credit.low for k in TRICKS}
    assert widths["a"] > 1.3 * widths["b"]
    assert mine["a"].df < mine["b"].df


def test_arms_that_evaluate_one_network_are_compared_seed_by_seed():
    """d changes only the evaluation: the rows with and without it share their trainings."""
    cells = ends()
    plan = table(cells)
    rows = runs([plan], seeds=5)
    (finding,) = decide(
        [plan], pd.DataFrame(rows), Settings(), study="s", size="mini", seeds=tuple(range(5))
    ).tables
    roots = {each.arm_id: frozenset({name(set(each.switched_on) - {"d"})}) for each in cells}
    (with_roots,) = with_credit([plan], [finding], Settings(), roots)
    mine = by_trick(with_roots.credit)["a"]
    frame = pd.DataFrame(rows).pivot(index="seed", columns="arm_id", values="top1")
    first, last = frame["a"] - frame["none"], frame["abcd"] - frame["bcd"]
    middle = sum((frame[t] - frame["none"] + frame["abcd"] - frame[name(EVERY - {t})]) / 2 for t in TRICKS)
    per_seed = (first + last) / 2 + (frame["abcd"] - frame["none"] - middle) / 4
    half = 2.7764451 * per_seed.std(ddof=1) / np.sqrt(5)
    assert mine.df == 4
    assert mine.credit.estimate == pytest.approx(per_seed.mean())
    assert mine.credit.high == pytest.approx(per_seed.mean() + half, rel=1e-6)
