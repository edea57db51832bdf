"""What validates the statistics can fail: one part of the protocol is broken at a time, and it is noticed."""

import dataclasses
import sys

import numpy as np
import pytest

from harness.analysis import competence, fit, intervals
from harness.analysis.findings import CANNOT_TEST
from harness.analysis.fit import BlockDesign, Guarded
from harness.study import conditions
from tests.analysis import test_competence
from tests.analysis.validation import validate_statistics


@pytest.fixture
def break_everywhere(monkeypatch):
    """Replaces a function wherever it has been imported to."""

    def replace(original, broken):
        for name, module in list(sys.modules.items()):
            if name.startswith(("harness.analysis", "validation_", "tests.analysis.validation")):
                for key, value in list(vars(module).items()):
                    if value is original:
                        monkeypatch.setattr(module, key, broken)

    return replace


def missed(name):
    return {row.quantity for row in validate_statistics.missed_targets([name])}


@pytest.mark.campaign
def test_seeds_that_are_not_taken_as_blocks(monkeypatch):
    def around_arm_means(design, runs):
        of_arm = design.x[:, : design.present.shape[0]]
        return runs - (runs @ of_arm / of_arm.sum(axis=0)) @ of_arm.T

    monkeypatch.setattr(BlockDesign, "residuals", around_arm_means)
    assert missed("coverage") == {"coverage, per row"}


@pytest.mark.campaign
def test_degrees_of_freedom_of_all_runs(break_everywhere):
    right = fit._design

    def as_if_nothing_were_fitted(shape, mask):
        return dataclasses.replace(right(shape, mask), df=shape[0] * shape[1])

    break_everywhere(right, as_if_nothing_were_fitted)
    assert missed("mixed") == {"family-wise error"}
    assert missed("power") == {"power, 3 sigma"}  # too many arms look noisier than the rest


def test_no_correction_for_the_number_of_rows(break_everywhere):
    def uncorrected(p, alpha):
        return intervals.Holm(p=np.asarray(p), level=np.full(np.shape(p), alpha))

    break_everywhere(intervals.holm, uncorrected)
    assert missed("mixed") == {"family-wise error"}


@pytest.mark.campaign
def test_a_guard_that_never_minds_noise(break_everywhere):
    def pooled(fitted, threshold):
        zeros = np.zeros_like(fitted.own)
        return Guarded(variance=zeros + fitted.pooled[..., None], weight=zeros)

    break_everywhere(fit.guard, pooled)
    assert missed("mixed") == {"family-wise error"}
    assert "coverage of P(A > B)" in missed("better")


@pytest.mark.campaign
def test_a_guard_that_gives_every_arm_its_own_variance(break_everywhere):
    def own(fitted, threshold):
        return Guarded(variance=np.maximum(fitted.own, 1e-9), weight=np.ones_like(fitted.own))

    break_everywhere(fit.guard, own)
    assert missed("power") == {"power, 3 sigma"}


@pytest.mark.campaign
def test_the_whole_level_at_every_look(break_everywhere):
    break_everywhere(intervals.nominal_levels, lambda alpha, looks, sides=2: (alpha,) * len(looks))
    assert missed("unequal") == {"family-wise error, adaptive"}


@pytest.mark.campaign
def test_an_equivalence_margin_twice_as_wide(break_everywhere):
    right = intervals.is_equivalent
    break_everywhere(right, lambda estimate, margin, alpha=0.05: right(estimate, 2.0 * margin, alpha))
    assert missed("equivalence") == {"exact smallest effect called no difference"}


@pytest.mark.campaign
def test_new_images_without_the_images_part(break_everywhere):
    right = intervals.new_images_half_width

    def seeds_alone(over_training, mean_squares, alpha):
        return float(intervals.half_width(over_training, alpha))

    break_everywhere(right, seeds_alone)
    assert missed("images") == {"coverage on new images (T2)"}


NOTICED_BY = {  # a condition that never stands against anything -> the case that notices it
    "diverged": test_competence.test_a_diverged_run_is_no_basis_of_a_comparison,
    "below_floor": test_competence.test_one_row_below_the_floor_leaves_the_comparison_of_the_others,
    "both_below_floor": test_competence.test_rows_below_a_linear_classifier_get_no_word,
    "collapsed": test_competence.test_a_collapsed_training_confirms_nothing,
    "too_few_updates": test_competence.test_too_few_updates,
    "too_short_warmup": test_competence.test_a_short_warm_up_counts_where_warm_ups_are_compared,
    "no_headroom": test_competence.test_no_headroom,
    "same_arm": test_competence.test_the_same_run_is_equal_by_construction_and_nothing_is_tested,
    "not_sensitive": test_competence.test_no_difference_needs_a_table_that_could_have_seen_one,
    "other_loss": test_competence.test_a_training_loss_with_other_targets_is_no_comparison,
}


@pytest.mark.parametrize("condition", NOTICED_BY)
def test_a_condition_that_never_stands_against_anything(condition, monkeypatch):
    NOTICED_BY[condition]()
    monkeypatch.setattr(conditions, condition, lambda *_, **__: "")
    with pytest.raises(AssertionError):
        NOTICED_BY[condition]()


def test_a_regime_that_never_stands_against_anything(monkeypatch):
    monkeypatch.setattr(conditions, "other_regime", lambda *_: "")
    with pytest.raises(AssertionError):
        test_competence.test_rows_that_are_close_in_the_paper_and_far_apart_here(76.5, CANNOT_TEST)


def test_a_control_that_is_always_detected(monkeypatch):
    monkeypatch.setattr(competence, "HURTS", "undecided")
    with pytest.raises(AssertionError):
        test_competence.test_a_control_that_was_not_detected_or_is_below_the_floor_says_nothing(
            [85.1, 85.2, 85.0]
        )


@pytest.mark.campaign
@pytest.mark.parametrize("condition", ["is_below", "collapsed", "too_few_updates", "no_headroom"])
def test_simulated_tables_notice_a_condition_that_is_gone(condition, monkeypatch):
    assert missed("certificates") == set()
    if condition == "is_below":
        monkeypatch.setattr(competence.ArmFacts, condition, lambda _: False)
    else:
        monkeypatch.setattr(conditions, condition, lambda *_, **__: "")
    assert missed("certificates") == {"false certificates"}
