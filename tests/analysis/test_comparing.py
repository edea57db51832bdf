"""Reports side by side: Welch's interval for differences, Holm over rows, and what is not tested."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from scipy import stats

from harness.analysis.comparison import (
    AGREE,
    DIFFER,
    OPEN,
    UNTESTED,
    compare,
    holm,
    recipes_apart,
    settings_apart,
)


def report_of(rows: dict[str, list[float]], reference: list[float], *, delta: float = 0.2, tag: str = "a"):
    """A report with one table; the effects and intervals are those of Welch's t on the values."""
    cells, runs, arms = [], [], {}
    for name, values in {"base": reference, **rows}.items():
        arms[name] = {"recipe": {"lr": 0.1, "data": {"name": tag}}, "tricks": [], "teacher": None}
        runs += [
            {"run_id": f"{name}{seed}", "arm_id": name, "status": "finished", "top1": value, "loss": 0.1}
            for seed, value in enumerate(values)
        ]
        found = stats.ttest_ind(values, reference, equal_var=False)
        low, high = found.confidence_interval(0.95)
        effect = {
            "versus": "base", "estimate": np.mean(values) - np.mean(reference), "low": low, "high": high,
            "df": found.df, "verdict": "helps",
        }  # fmt: skip
        level = {"mean": np.mean(values), "sd": np.std(values, ddof=1), "n": len(values)}
        cells.append({
            "row": name, "column": None, "arm_id": name, "level": level,
            "effect": None if name == "base" else effect,
        })  # fmt: skip
    settings = {"metric": "top1", "alpha": 0.05, "smallest_effect_pp": delta}
    tables = [{"key": "t", "title": "T", "cells": cells}]
    findings = {"settings": settings, "seeds": [0, 1, 2], "tables": tables}
    return {
        "study": "s", "size": "mini", "findings": findings, "runs": runs, "arms": arms,
        "provenance": {"torch": ["2.0"], "inputs": tag},
    }  # fmt: skip


def draw(seed: int, mean: float, sd: float = 0.3, n: int = 5) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, sd, n))


def only(first, other, row: str = "x"):
    found = {each.key[1]: each for each in compare([first, other])}
    return found[row].differences[0]


def test_the_difference_has_welchs_interval_from_the_two_standard_errors():
    a, b = report_of({"x": draw(1, 71)}, draw(2, 70)), report_of({"x": draw(3, 72)}, draw(4, 70))
    found = only(a, b)
    sides = [cell["effect"] for report in (a, b) for cell in report["findings"]["tables"][0]["cells"][1:]]
    errors = [(s["high"] - s["low"]) / 2 / stats.t.ppf(0.975, s["df"]) for s in sides]
    variance = sum(error**2 for error in errors)
    df = variance**2 / sum(e**4 / s["df"] for e, s in zip(errors, sides, strict=True))
    assert found.estimate == pytest.approx(sides[1]["estimate"] - sides[0]["estimate"])
    assert found.df == pytest.approx(df)
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(variance))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.estimate) / math.sqrt(variance), df))


@pytest.mark.campaign
def test_the_interval_covers_the_true_difference_at_its_nominal_rate():
    covered, times = 0, 300
    for k in range(times):
        a = report_of({"x": draw(4 * k, 71)}, draw(4 * k + 1, 70))
        b = report_of({"x": draw(4 * k + 2, 72, 0.6)}, draw(4 * k + 3, 70, 0.6))
        found = only(a, b)
        covered += found.low <= 1.0 <= found.high
    assert 0.92 <= covered / times <= 0.985


def test_words_follow_holm_and_the_smallest_effect():
    rows = {"x": draw(1, 75), "y": draw(5, 71)}
    a = report_of(rows, draw(2, 70), delta=1.5)
    b = report_of({"x": draw(3, 70), "y": draw(6, 71)}, draw(4, 70), delta=3.0)
    assert only(a, b).answer == DIFFER
    assert only(a, b).p_holm == pytest.approx(2 * only(a, b).p)
    assert only(a, b, "y").answer == AGREE
    close = copy.deepcopy(a)
    close["findings"]["settings"]["smallest_effect_pp"] = 0.01
    assert only(close, b, "y").answer == OPEN


def test_the_same_runs_are_told_and_not_tested():
    a = report_of({"x": draw(1, 71)}, draw(2, 70))
    found = only(a, copy.deepcopy(a))
    assert (found.answer, found.p, found.low, found.why) == (UNTESTED, None, None, "the same runs")
    assert found.estimate == 0.0


def test_the_same_seeds_trained_again_with_other_results_are_other_runs():
    a, b = report_of({"x": draw(1, 71)}, draw(2, 70)), report_of({"x": draw(3, 71)}, draw(4, 70))
    assert [run["run_id"] for run in a["runs"]] == [run["run_id"] for run in b["runs"]]
    assert only(a, b).p is not None


def test_a_shared_reference_makes_the_sides_dependent():
    base = draw(2, 70)
    found = only(report_of({"x": draw(1, 71)}, base), report_of({"x": draw(3, 71)}, base))
    assert found.p is None
    assert found.why == "5 runs are the same: not independent"


def test_rows_of_one_side_and_references_have_no_difference():
    a, b = report_of({"x": draw(1, 71)}, draw(2, 70)), report_of({"z": draw(3, 71)}, draw(4, 70))
    rows = {row.key[1]: row for row in compare([a, b])}
    assert rows["x"].sides[1] is None
    assert rows["z"].sides[0] is None
    assert [rows[name].differences[0].why for name in ("x", "z", "base")] == [
        "one side only", "one side only", "reference",
    ]  # fmt: skip


def test_holm_equals_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_settings_and_recipe_fields_that_differ_are_named_with_their_rows():
    a = report_of({"x": draw(1, 71), "y": draw(5, 71)}, draw(2, 70), tag="mnist")
    b = report_of({"x": draw(3, 71), "y": draw(6, 71)}, draw(4, 70), delta=0.5, tag="cifar10")
    b["arms"]["x"]["recipe"]["lr"] = 0.2
    assert {each.name: each.values for each in settings_apart([a, b])} == {"smallest effect": ("0.2", "0.5")}
    shared, fields = recipes_apart([a, b])
    assert shared == 3
    assert {each.name: (each.values, each.rows) for each in fields} == {
        "recipe.data.name": (("mnist", "cifar10"), 3),
        "recipe.lr": (("0.1", "0.2"), 1),
    }
