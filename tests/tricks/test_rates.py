"""Schedules and warm-ups that a trick writes, by hand and as the training loop applies them."""

from __future__ import annotations

import pytest

from harness.training.optim import lr_at, make_schedule
from harness.tricks.constant_warmup import ConstantWarmup
from harness.tricks.exponential_decay import ExponentialDecay, exponential_lr
from harness.tricks.step_decay import StepDecay, milestones
from tests.tricks import tiny


def test_exponential_decay_by_hand() -> None:
    """Rethinking: 0.045 for 2 epochs, then 0.0423, after 100 epochs 0.045 * 0.94^49 in the last stair."""
    recipe = ExponentialDecay().edit_recipe(tiny.recipe(lr=0.045, epochs=100.0))
    assert recipe == tiny.recipe(
        lr=0.045, epochs=100.0, schedule="exponential", decay=0.94, decay_every=2.0, milestones=()
    )
    schedule = make_schedule(recipe, steps_per_epoch=10)
    for step, lr in [(0, 0.045), (19, 0.045), (20, 0.0423), (40, 0.039762), (999, 0.045 * 0.94**49)]:
        assert lr_at(step, schedule) == pytest.approx(lr)
        assert exponential_lr(step / 10, lr_peak=0.045, factor=0.94, every=2.0) == pytest.approx(lr)


def test_step_decay_by_hand() -> None:
    """Bag of Tricks: 0.1 at epochs 30, 60, 90 of 120; of 90 epochs, the one at the end is not there."""
    other = tiny.recipe(schedule="cosine", milestones=(), decay=0.5)
    assert StepDecay().edit_recipe(other) == tiny.recipe(milestones=(30.0, 60.0, 90.0), decay=0.1)
    assert milestones(epochs=90.0, every=30.0) == (30.0, 60.0)
    schedule = make_schedule(StepDecay().edit_recipe(tiny.recipe(lr=0.1)), steps_per_epoch=10)
    for step, lr in [(0, 0.1), (299, 0.1), (300, 0.01), (600, 1e-3), (900, 1e-4), (1199, 1e-4)]:
        assert lr_at(step, schedule) == pytest.approx(lr)


def test_a_step_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="step_decay: 30 epochs do not pass within 20 epochs of training"):
        StepDecay().edit_recipe(tiny.recipe(epochs=20.0))


def test_constant_warm_up_by_hand() -> None:
    """Goyal: 0.1 for 5 epochs, then 3.2 at once, at 8,192 images."""
    recipe = ConstantWarmup().edit_recipe(tiny.recipe(lr=3.2))
    assert recipe == tiny.recipe(lr=3.2, warmup_epochs=5.0, warmup_lr=0.1, warmup_shape="constant")
    schedule = make_schedule(recipe, steps_per_epoch=10)
    for step, lr in [(0, 0.1), (49, 0.1), (50, 3.2), (299, 3.2), (300, 0.32)]:
        assert lr_at(step, schedule) == pytest.approx(lr)


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="constant_warmup: 5 epochs of warm-up do not fit into 5 epochs"):
        ConstantWarmup().edit_recipe(tiny.recipe(epochs=5.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ExponentialDecay(factor=1.0),
            r"exponential_decay: factor must be a number in \(0, 1\), got 1",
        ),
        (lambda: ExponentialDecay(every=0.0), "exponential_decay: every must be a number > 0, got 0"),
        (lambda: StepDecay(factor=0.0), r"step_decay: factor must be a number in \(0, 1\), got 0"),
        (lambda: StepDecay(every=-1.0), "step_decay: every must be a number > 0, got -1"),
        (lambda: ConstantWarmup(epochs=0.0), "constant_warmup: epochs must be a number > 0, got 0"),
        (lambda: ConstantWarmup(lr=0.0), "constant_warmup: lr must be a number > 0, got 0"),
    ],
)
def test_values_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
