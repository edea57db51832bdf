"""What validates the statistics can fail: one part of the protocol is broken at a time, and it is noticed."""

import dataclasses
import sys

import numpy as np
import pytest

from harness.analysis import fit, intervals
from harness.analysis.fit import BlockDesign, Guarded
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
