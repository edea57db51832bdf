"""Rows that only evaluate: which networks, and how; and the one that starts from another run's weights."""

from __future__ import annotations

import pytest

from harness.tricks.build import make, validate
from harness.tricks.ensemble import Ensemble
from harness.tricks.fine_tuning import FineTuning
from harness.tricks.mixed_ensemble import MixedEnsemble
from harness.tricks.multi_crop import MultiCrop
from harness.tricks.raw_weights import RawWeights
from tests.tricks import tiny


@pytest.mark.parametrize("crops", [10, 12, 144])
def test_the_number_of_views(crops: int) -> None:
    trick = make("multi_crop", {"crops": crops})
    assert trick.edit_recipe(tiny.recipe()) == tiny.recipe(eval_crops=crops)


def test_another_number_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match="multi_crop: crops must be one of 10, 12, 144, got 5"):
        validate(MultiCrop, {"crops": 5})


def test_raw_weights() -> None:
    assert RawWeights().edit_recipe(tiny.recipe()) == tiny.recipe(eval_weights="raw")


def test_an_ensemble_is_of_runs_of_the_rows_own_arm() -> None:
    assert Ensemble().member_counts() == (7,)
    assert make("ensemble", {"members": 4}).member_counts() == (4,)
    assert Ensemble().edit_recipe(tiny.recipe()) == tiny.recipe()
    with pytest.raises(ValueError, match="ensemble: members must be an integer >= 2, got 1"):
        Ensemble(members=1)


def test_a_mixed_ensemble_is_of_two_arms() -> None:
    """Inception-v4 and three Inception-ResNet-v2: first the row's own arm, then its partner."""
    assert MixedEnsemble().member_counts() == (1, 3)
    assert MixedEnsemble.arms == ("partner",)
    with pytest.raises(ValueError, match="mixed_ensemble: partner_members must be an integer >= 1, got 0"):
        MixedEnsemble(partner_members=0)
    with pytest.raises(ValueError, match="mixed_ensemble: members must be an integer >= 1, got 0"):
        MixedEnsemble(members=0)


def test_the_members_are_an_option_under_that_name() -> None:
    assert make("ensemble", {}).options() == {"members": 7}
    assert make("mixed_ensemble", {}).options() == {"members": 1, "partner_members": 3}


def test_fine_tuning_names_its_source_and_edits_nothing() -> None:
    assert FineTuning.arms == ("source",)
    assert not FineTuning.observes
    assert FineTuning().edit_recipe(tiny.recipe()) == tiny.recipe()
