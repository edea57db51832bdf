"""The average of the weights over the first steps, by hand, and what is evaluated."""

import itertools

import pytest
import torch
from torch import nn

from harness.tricks import ema
from harness.tricks.ema import Ema, decay_at
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


def test_it_is_no_arithmetic_mean_and_says_so() -> None:
    """It weighs the last of n steps with 9 / (n + 9), in the end 1e-4; a mean with 1 / (n + 1)."""
    assert averages(Ema(), [0.0, 0.0, 0.0, 1.0])[-1] == pytest.approx(9 / 12)  # the mean of the four is 1 / 4
    for step, share in ((91, 0.09), (10**6, 1e-4)):
        assert 1 - decay_at(step, decay=0.9999, ramp=True) == pytest.approx(share)
    assert "arithmetic mean" in (ema.__doc__ or "")


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
