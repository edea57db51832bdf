"""Averaged weights over the first steps, by hand; views and networks that answer together."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from harness.tricks.build import make, validate
from harness.tricks.evaluation import Ema, Ensemble, MixedEnsemble, MultiCrop, RawWeights, decay_at
from harness.tricks.optimizer import FineTuning
from tests.tricks import tiny


def averages(trick: Ema, weights: list[float]) -> list[float]:
    """The averages after each step of a one-weight network whose weight takes these values."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weights[0])
    state = trick.new_state(model)
    optimizer = trick.edit_optimizer(torch.optim.SGD(model.parameters(), lr=1.0), state)
    found = []
    for before, after in itertools.pairwise(weights):
        model.weight.grad = torch.full((1, 1), before - after)  # w - 1.0 * grad
        optimizer.step()
        found.append(trick.edit_eval_model(model, state).weight.item())
    assert model.weight.item() == pytest.approx(weights[-1])
    return found


def test_first_steps_without_ramp() -> None:
    """a1 = .9 * 1 + .1 * 2 = 1.1;  a2 = .9 * 1.1 + .1 * 4 = 1.39;  a3 = .9 * 1.39 + .1 * 0 = 1.251."""
    found = averages(Ema(decay=0.9, ramp=False), [1.0, 2.0, 4.0, 0.0])
    assert found == pytest.approx([1.1, 1.39, 1.251])


def test_first_steps_with_ramp() -> None:
    """d = 1/10, 2/11, 3/12: a1 = .1 * 1 + .9 * 2 = 1.9;  a2 = (2 * 1.9 + 9 * 4) / 11;  a3 = a2 / 4."""
    a2 = (2 * 1.9 + 9 * 4) / 11
    assert averages(Ema(), [1.0, 2.0, 4.0, 0.0]) == pytest.approx([1.9, a2, a2 / 4])


def test_ema_is_no_arithmetic_mean_and_says_so() -> None:
    """It weighs the last of n steps with 9 / (n + 9), in the end 1e-4; a mean with 1 / (n + 1)."""
    assert averages(Ema(), [0.0, 0.0, 0.0, 1.0])[-1] == pytest.approx(9 / 12)  # the mean of the four is 1 / 4
    for step, share in ((91, 0.09), (10**6, 1e-4)):
        assert 1 - decay_at(step, decay=0.9999, ramp=True) == pytest.approx(share)
    assert "arithmetic mean" in (Ema.__doc__ or "")


def test_the_ramp_ends_at_the_decay() -> None:
    """decay = 0.25 is reached at step 3: from there on both forms average alike."""
    assert averages(Ema(decay=0.25), [0.0] * 5 + [1.0]) == pytest.approx(
        averages(Ema(decay=0.25, ramp=False), [0.0] * 5 + [1.0])
    )


def test_the_evaluated_network_has_averaged_weights_and_the_trained_networks_buffers() -> None:
    run = tiny.Training([Ema(decay=0.5, ramp=False)])
    initial = run.model[0].weight.detach().clone()
    run.step()
    averaged = run.eval_model()
    torch.testing.assert_close(averaged[0].weight, 0.5 * initial + 0.5 * run.model[0].weight)
    assert torch.equal(averaged[1].running_mean, run.model[1].running_mean)
    assert averaged[1].running_mean.abs().sum() > 0
    assert averaged[1].num_batches_tracked.item() == 1


def test_training_is_not_changed_by_it() -> None:
    plain, averaging = tiny.Training([]), tiny.Training([Ema()])
    for _ in range(3):
        plain.step()
        averaging.step()
    assert tiny.bits(plain.model) == tiny.bits(averaging.model)
    assert tiny.bits(averaging.eval_model()) != tiny.bits(averaging.model)


def test_its_state_is_made_by_itself() -> None:
    optimizer = torch.optim.SGD(tiny.net().parameters(), lr=0.1)
    with pytest.raises(TypeError, match="ema needs the state"):
        Ema().edit_optimizer(optimizer, None)
    with pytest.raises(TypeError, match="ema needs the state"):
        Ema().edit_eval_model(tiny.net(), None)


# Rows that only evaluate: which networks, and how; and the one that starts from another run's weights.


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
